//! Takes up a changed configuration: looked for every few seconds, and on SIGHUP, as in
//! GitLab Runner. One that is wrong is told, and the old one stays in force.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::Reloader;
use crate::config;

/// GitLab Runner's `check_interval` of its configuration.
const INTERVAL: Duration = Duration::from_secs(3);

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
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                _ = self.hangup.recv() => true,
            };
            let now = look(&self.path);
            // A file that is being replaced is gone for a moment.
            if asked || (now.is_some() && now != self.seen) {
                self.seen = now;
                self.take_up(&mut reloader).await;
            }
        }
    }

    async fn take_up(&self, reloader: &mut Reloader) {
        let loaded = match config::load(&self.path, self.state_dir.as_deref()) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the changed configuration is not used, the old one is:\n{error}");
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        reloader.apply(loaded.config).await;
        tracing::info!("the configuration was read again and holds now");
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
