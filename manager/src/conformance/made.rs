//! The instances that an examination made, and their removal, whatever happened.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mayfly_plugin::Settings;
use mayfly_plugin::host::Probe;
use tokio::time::Instant;

use super::lab::{LOOK, Options, PATIENCE, launch, living};

/// How long removal waits at the end, for an instance that was told to go before.
const REMOVAL_LIMIT: Duration = Duration::from_secs(120);
/// How long an instance that was asked for, and never seen, may take to be listed.
const LATE: Duration = Duration::from_secs(5);
/// What tells descendants of the plugins: plugins hand on variables of this family.
const MARKER: &str = "MAYFLY_PLUGIN_CHECK";

/// What was asked for and what there was before. Known at any time: an examination may end
/// between any two steps.
#[derive(Debug)]
pub(crate) struct Made {
    marker: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Instances that were there before the first ask.
    before: BTreeSet<String>,
    /// How many were asked for.
    asked: u32,
    /// Those that were made and are gone.
    gone: BTreeSet<String>,
}

impl Made {
    pub(crate) fn new() -> Self {
        let marker = format!("{}-{:x}", std::process::id(), rand::random::<u64>());
        Self { marker, known: Mutex::default() }
    }

    /// A variable and its value in the environment of all that is started.
    pub(super) fn marker(&self) -> (&'static str, &str) {
        (MARKER, &self.marker)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Must be called before the first ask.
    pub(super) fn were_before(&self, ids: impl IntoIterator<Item = String>) {
        self.known().before.extend(ids);
    }

    /// Must be called before `Increase`, since an answer may never come.
    pub(super) fn ask(&self, n: u32) {
        self.known().asked += n;
    }

    /// These are gone for good.
    pub(super) fn are_gone(&self, ids: impl IntoIterator<Item = String>) {
        self.known().gone.extend(ids);
    }

    /// Those of a list that this examination made. In a group that others use, too, more may
    /// have come than were asked for: then nobody can tell whose they are, and none counts.
    pub(super) fn ours(&self, living: &[String]) -> Vec<String> {
        let known = self.known();
        let new = living.iter().filter(|id| !known.before.contains(*id));
        let new: Vec<String> = new.cloned().collect();
        let room = known.asked as usize;
        let fits = known.before.is_empty() || new.len() + known.gone.len() <= room;
        if fits { new } else { Vec::new() }
    }

    /// Those of a list that came since, whoever made them.
    pub(super) fn newcomers(&self, living: &[String]) -> Vec<String> {
        let known = self.known();
        living.iter().filter(|id| !known.before.contains(*id)).cloned().collect()
    }

    /// Whether all that were asked for are gone, or among these many.
    fn were_seen(&self, going: usize) -> bool {
        let known = self.known();
        known.gone.len() + going >= known.asked as usize
    }

    /// Whether there may be something to remove.
    pub(super) fn is_pending(&self) -> bool {
        let known = self.known();
        known.asked as usize > known.gone.len()
    }
}

/// Removes what was made. Returns what is left, or may be, in words.
pub(crate) async fn clean_up(options: &Options, made: &Made) -> Result<(), String> {
    if !made.is_pending() {
        return Ok(());
    }
    let cannot = |error: String| format!("cannot look for instances that are left: {error}");
    let limit = options.call_limit;
    let deadline = Instant::now() + PATIENCE;
    let probe = loop {
        let probe = Probe::start(&launch(options, made)).await;
        let probe = probe.map_err(|error| cannot(error.to_string()))?;
        match probe.init(&options.config, &Settings::default(), limit).await {
            Ok(_) => break probe,
            // The one before may still be about to end.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(cannot(error.to_string())),
        }
    };
    let result = remove(options, made, &probe).await;
    stop(&probe, limit).await;
    result
}

/// Deletes what is left of ours, and waits until it is gone.
pub(super) async fn remove(options: &Options, made: &Made, probe: &Probe) -> Result<(), String> {
    let deadline = Instant::now() + REMOVAL_LIMIT.min(options.change_limit);
    let late = Instant::now() + LATE.min(options.change_limit);
    let mut told = BTreeSet::new();
    loop {
        let listed = probe.update(options.call_limit).await.map_err(|error| error.to_string())?;
        let living = living(&listed);
        let left = made.ours(&living);
        let all_seen = made.were_seen(told.len());
        if left.is_empty() && (all_seen || Instant::now() >= late) {
            let strangers = made.newcomers(&living);
            made.known().asked = 0;
            return if strangers.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "more instances came than were asked for, and none was deleted: {}",
                    strangers.join(", ")
                ))
            };
        }
        if Instant::now() >= deadline {
            return Err(format!("still there, delete them by hand: {}", left.join(", ")));
        }
        let fresh: Vec<String> = left.into_iter().filter(|id| !told.contains(id)).collect();
        if !fresh.is_empty() {
            match probe.decrease(fresh.clone(), options.call_limit).await {
                Ok(taken) => told.extend(taken),
                Err(error) => tracing::warn!(%error, "cannot delete"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends a plugin as hosts do.
pub(super) async fn stop(probe: &Probe, limit: Duration) {
    let _ = probe.shutdown(limit).await;
    probe.end(Duration::from_secs(2)).await;
    if tokio::time::timeout(PATIENCE, probe.ended()).await.is_err() {
        probe.kill();
    }
    let _ = tokio::time::timeout(PATIENCE, probe.ended()).await;
}
