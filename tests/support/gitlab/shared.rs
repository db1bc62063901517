//! What all requests and the test itself share, behind short locks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Notify;

use super::fault::{Endpoint, Faults};
use super::jobs::Jobs;

#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// How long a job request is held when there is no job.
    pub(super) hold: Duration,
    /// `X-GitLab-Trace-Update-Interval`.
    pub(super) update_interval: Duration,
}

pub(super) struct Shared {
    jobs: Mutex<Jobs>,
    /// Something of the jobs changed: the test looks again.
    changed: Condvar,
    /// A job came into the queue: held requests look again.
    pub(super) arrived: Notify,
    faults: Mutex<Faults>,
    settings: Mutex<Settings>,
    revoked: Mutex<BTreeSet<String>>,
    pub(super) requests: [AtomicU64; Endpoint::COUNT],
    pub(super) waiting: AtomicUsize,
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    /// The git repositories.
    pub(super) repositories: PathBuf,
}

impl Shared {
    pub(super) fn new(url: String, repositories: PathBuf) -> Self {
        let settings = Settings {
            hold: Duration::from_secs(10),
            // GitLab's while someone looks at the job.
            update_interval: Duration::from_secs(3),
        };
        Self {
            jobs: Mutex::default(),
            changed: Condvar::new(),
            arrived: Notify::new(),
            faults: Mutex::default(),
            settings: Mutex::new(settings),
            revoked: Mutex::default(),
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            waiting: AtomicUsize::new(0),
            url,
            repositories,
        }
    }

    pub(super) fn jobs(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.jobs)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(super) fn settings(&self) -> Settings {
        *lock(&self.settings)
    }

    pub(super) fn set(&self, set: impl FnOnce(&mut Settings)) {
        set(&mut lock(&self.settings));
    }

    pub(super) fn is_revoked(&self, token: &str) -> bool {
        lock(&self.revoked).contains(token)
    }

    pub(super) fn revoke(&self, token: &str) {
        lock(&self.revoked).insert(token.into());
    }

    /// Changes jobs, and wakes whoever waits for it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Jobs, Instant) -> T) -> T {
        let result = change(&mut self.jobs(), Instant::now());
        self.changed();
        result
    }

    pub(super) fn changed(&self) {
        self.changed.notify_all();
    }

    /// The next job for a runner, and the version of the queue after it.
    pub(super) fn hand_out(&self, runner: &str) -> Option<(Value, u64)> {
        let mut jobs = self.jobs();
        let payload = jobs.hand_out(runner, &self.url, Instant::now())?;
        let version = jobs.version;
        drop(jobs);
        self.changed();
        Some((payload, version))
    }

    /// Looks again after every change, until there is an answer or the time is over.
    pub(super) fn wait<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&Jobs) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + timeout;
        let mut jobs = self.jobs();
        loop {
            if let Some(found) = look(&jobs) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(jobs, left);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
