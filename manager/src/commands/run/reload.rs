//! Takes up a changed configuration: looked for every few seconds, and on SIGHUP, as in
//! GitLab Runner. One that is wrong is told, and the old one stays in force.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::Reloader;
use crate::config;

/// GitLab Runner's `check_interval` of its configuration.
const INTERVAL: Duration = Duration::from_secs(3);

/// A plugin that did not start is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Watches one file.
pub(super) struct Reload {
    path: PathBuf,
    state_dir: Option<PathBuf>,
    hangup: Signal,
    seen: Option<(SystemTime, u64)>,
}

impl Reload {
    /// Of the configuration as it is now. SIGHUP does not end the process from here on.
    pub(super) fn new(path: PathBuf, state_dir: Option<PathBuf>) -> std::io::Result<Self> {
        let (hangup, seen) = (signal(SignalKind::hangup())?, look(&path));
        Ok(Self { path, state_dir, hangup, seen })
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self, mut reloader: Reloader) {
        let mut again_at = None;
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                _ = self.hangup.recv() => true,
            };
            let now = look(&self.path);
            let is_due = again_at.is_some_and(|at| Instant::now() >= at);
            // A file that is being replaced is gone for a moment.
            if asked || is_due || (now.is_some() && now != self.seen) {
                self.seen = now;
                let is_done = self.take_up(&mut reloader).await;
                again_at = (!is_done).then(|| Instant::now() + AGAIN_AFTER);
            }
        }
    }

    /// Returns whether there is nothing to be tried again.
    async fn take_up(&self, reloader: &mut Reloader) -> bool {
        let loaded = match config::load(&self.path, self.state_dir.as_deref()) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the changed configuration is not used, the old one is:\n{error}");
                return true;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let is_done = reloader.apply(loaded.config).await;
        if is_done {
            tracing::info!("the configuration was read again and holds now");
        } else {
            tracing::warn!(
                "the configuration was read again; what does not hold yet is tried again"
            );
        }
        is_done
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
