//! A GitLab that does as it is told: jobs are put into its queue, a runner manager fetches
//! and runs them, and every step of every job is written down.
//!
//! It keeps GitLab's rules (long polling, log ranges, checksums, cancellation, tokens that
//! end with their job), so that what passes here passes there. It serves on a thread of
//! its own; all calls of a test are blocking. Deliberately absent: projects, users,
//! pipelines, TLS.

mod api;
mod audit;
mod fault;
mod git;
mod jobs;
mod line;
mod serving;
mod shared;
mod spec;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use audit::{Audit, Event, State};
pub use fault::{Endpoint, Fault};
pub use git::Repository;
pub use jobs::Archive;
pub use spec::JobSpec;

use serving::Serving;
use shared::Shared;

/// A job's id; the first job of a server has 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A GitLab on a port of this machine. It ends with this value.
pub struct GitLab {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Mutex<Option<Serving>>,
    _directory: TempDir,
}

impl GitLab {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_at([127, 0, 0, 1].into())
    }

    /// Starts one on another address of this machine, for instances that have a network of
    /// their own.
    pub fn start_at(address: std::net::IpAddr) -> Self {
        let directory = tempfile::tempdir().expect("a directory for repositories");
        let any = SocketAddr::from((address, 0));
        let listener = std::net::TcpListener::bind(any).expect("a port");
        let address = listener.local_addr().expect("the port has a number");
        let url = format!("http://{address}");
        let shared = Arc::new(Shared::new(url, directory.path().to_owned()));
        let serving = Serving::start(listener, Arc::clone(&shared));
        Self { shared, address, serving: Mutex::new(Some(serving)), _directory: directory }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// An authentication token that it takes. It takes any other, too.
    pub fn token(&self) -> &'static str {
        "glrt-mayflytest0000000000"
    }

    /// How long a job request is held open; 10 s unless set.
    pub fn set_hold(&self, hold: Duration) {
        self.shared.set(|settings| settings.hold = hold);
    }

    /// How often a runner shall send of a job; 3 s unless set.
    pub fn set_update_interval(&self, interval: Duration) {
        self.shared.set(|settings| settings.update_interval = interval);
    }

    /// A repository `group/NAME.git`, to be cloned with a job's token.
    pub fn repository(&self, name: &str) -> Repository {
        Repository::create(&self.shared, name)
    }

    // The queue.

    /// Puts a job into the queue.
    pub fn enqueue(&self, spec: JobSpec) -> JobId {
        let is_for_one = spec.runner.is_some();
        let id = self.shared.change(|jobs, now| jobs.enqueue(spec, now));
        self.arrived(is_for_one);
        id
    }

    /// Puts the same job into the queue `n` times.
    pub fn enqueue_many(&self, n: usize, spec: &JobSpec) -> Vec<JobId> {
        (0..n).map(|_| self.enqueue(spec.clone())).collect()
    }

    /// Puts a job that was handed out back into the queue, as GitLab does when nobody
    /// acknowledged it. Whoever has it is forbidden from now on.
    pub fn requeue(&self, job: JobId) {
        self.shared.change(|jobs, now| jobs.requeue(job, now));
        self.arrived(true);
    }

    /// Asks for a job to be stopped gracefully: `Job-Status: canceling`.
    pub fn cancel(&self, job: JobId) {
        self.shared.change(|jobs, now| jobs.cancel(job, now));
    }

    /// Takes a job away: `Job-Status: canceled` and 403 from now on.
    pub fn drop_job(&self, job: JobId) {
        self.shared.change(|jobs, now| jobs.drop_job(job, now));
    }

    /// Changes a byte of the log that it has: the runner's checksum will not fit.
    pub fn corrupt_trace(&self, job: JobId) {
        self.shared.change(|jobs, _| jobs.corrupt(job));
    }

    fn arrived(&self, for_one: bool) {
        if for_one {
            self.shared.arrived.notify_waiters();
        } else {
            self.shared.arrived.notify_one();
        }
    }

    // What became of it.

    /// Waits until a job is, or was, in a state. Panics with the job's story when the
    /// time is over, or when it ended otherwise.
    pub fn wait_for(&self, job: JobId, state: State, timeout: Duration) -> Audit {
        let reached = |audit: &Audit| audit.reached(state) || audit.state.is_final();
        let audit = self.wait(job, timeout, reached);
        let log = || String::from_utf8_lossy(self.shared.jobs().trace(job)).into_owned();
        let audit = audit.unwrap_or_else(|audit| {
            panic!("waited {timeout:?} for {state:?}: {audit}\n{}", log());
        });
        assert!(audit.reached(state), "waited for {state:?}: {audit}\n{}", log());
        audit
    }

    /// Waits until a job has ended, however.
    pub fn wait_for_end(&self, job: JobId, timeout: Duration) -> Audit {
        let ended = self.wait(job, timeout, |audit| audit.state.is_final());
        ended.unwrap_or_else(|audit| panic!("waited {timeout:?} for the end: {audit}"))
    }

    /// Waits until all these jobs have succeeded.
    pub fn wait_for_all(&self, jobs: &[JobId], timeout: Duration) -> Vec<Audit> {
        let end = Instant::now() + timeout;
        let left = || end.saturating_duration_since(Instant::now());
        jobs.iter().map(|job| self.wait_for(*job, State::Success, left())).collect()
    }

    /// Waits until a job's log contains a text; the log.
    pub fn wait_for_trace(&self, job: JobId, text: &str, timeout: Duration) -> String {
        let found = self.shared.wait(timeout, |jobs| {
            let trace = String::from_utf8_lossy(jobs.trace(job));
            let is_over = jobs.audit(job).state.is_final();
            (is_over || trace.contains(text)).then(|| trace.into_owned())
        });
        let trace = found.unwrap_or_else(|| self.trace(job));
        assert!(
            trace.contains(text),
            "waited for {text:?} in the log: {}\n{trace}",
            self.audit(job)
        );
        trace
    }

    /// Waits until so many job requests are held open: the manager is ready for jobs.
    pub fn wait_for_requests(&self, n: usize, timeout: Duration) {
        let waiting = || (self.shared.waiting() >= n).then_some(());
        let waited = self.shared.wait(timeout, |_| waiting());
        assert!(waited.is_some(), "{} job requests wait, not {n}", self.shared.waiting());
    }

    fn wait(
        &self,
        job: JobId,
        timeout: Duration,
        is_it: impl Fn(&Audit) -> bool,
    ) -> Result<Audit, Audit> {
        let found = self.shared.wait(timeout, |jobs| {
            let audit = jobs.audit(job);
            is_it(audit).then(|| audit.clone())
        });
        found.ok_or_else(|| self.audit(job))
    }

    /// A job's story so far.
    pub fn audit(&self, job: JobId) -> Audit {
        self.shared.jobs().audit(job).clone()
    }

    /// The stories of all jobs.
    pub fn audits(&self) -> Vec<Audit> {
        self.shared.jobs().audits().cloned().collect()
    }

    /// A job's log so far.
    pub fn trace(&self, job: JobId) -> String {
        String::from_utf8_lossy(self.shared.jobs().trace(job)).into_owned()
    }

    /// A job's log so far, as it was sent.
    pub fn trace_bytes(&self, job: JobId) -> Vec<u8> {
        self.shared.jobs().trace(job).to_vec()
    }

    /// What a job uploaded, in order.
    pub fn archives(&self, job: JobId) -> Vec<Archive> {
        self.shared.jobs().archives(job).to_vec()
    }

    /// How many jobs no runner has yet.
    pub fn queued(&self) -> usize {
        self.shared.jobs().queued()
    }

    /// How many calls came so far.
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        let counts = &self.shared.requests;
        match endpoint {
            Endpoint::Any => counts.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            one => counts[one as usize].load(Ordering::Relaxed),
        }
    }

    // What goes wrong.

    /// The next `n` calls go wrong.
    pub fn fail_next(&self, n: u32, endpoint: Endpoint, fault: Fault) {
        self.shared.faults().times(n, endpoint, fault);
    }

    /// Calls go wrong for a while.
    pub fn fail_for(&self, time: Duration, endpoint: Endpoint, fault: Fault) {
        self.shared.faults().until(Instant::now() + time, endpoint, fault);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.faults().clear();
    }

    /// No longer takes a runner's token.
    pub fn revoke(&self, token: &str) {
        self.shared.revoke(token);
    }

    /// Closes the port and every connection. The jobs are kept.
    pub fn stop(&self) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(serving);
    }

    /// Serves again on the same port, with the same jobs.
    pub fn start_again(&self) {
        let listener = std::net::TcpListener::bind(self.address).expect("the same port");
        let serving = Serving::start(listener, Arc::clone(&self.shared));
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
    }
}
