//! A plugin that is there again after it died: restart with backoff, `Init` again.
//!
//! Callers take the plugin for one call and get the error of a plugin that is gone;
//! they never wait for a restart longer than their own deadline.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::CallError;
use super::failure::{StartCause, StartError};
use super::launch::{Launch, Plugin};
use crate::contract::Settings;

/// First wait before a restart; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait before a restart.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A plugin that ended so often in a row, each time before it was steady, is broken: it is
/// tried seldom from then on, and someone is needed.
const BREAKS_AT: u32 = 10;
/// Longest wait before a broken plugin is tried again.
const BROKEN_BACKOFF: Duration = Duration::from_secs(5 * 60);
/// Between two looks at a binary that may not be run. To look costs little, and an operator who
/// has put it right waits.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// A plugin that lived this long starts with the shortest wait again.
const STEADY: Duration = Duration::from_secs(60);

/// Where a supervised plugin stands.
#[derive(Clone)]
#[non_exhaustive]
pub enum SupervisedStatus {
    /// The first start is under way.
    Starting,
    /// It runs and is initialized.
    Up(Arc<Plugin>),
    /// It ended or could not be started; it is tried again.
    Down(Arc<StartFailure>),
    /// It was stopped for good.
    Stopped,
}

/// Why a supervised plugin is down.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It ran and ended.
    #[error("the plugin {0}")]
    Ended(String),
}

/// A plugin under supervision. Dropping it kills the plugin.
pub struct Supervised {
    status: watch::Receiver<SupervisedStatus>,
    stopping: CancellationToken,
}

impl Supervised {
    /// Starts the plugin and keeps it running until `stop`. Must be called on a tokio
    /// runtime.
    pub fn start(launch: Launch, config: Vec<u8>, settings: Settings) -> Self {
        let (sender, status) = watch::channel(SupervisedStatus::Starting);
        let stopping = CancellationToken::new();
        tokio::spawn(keep_running(launch, config, settings, sender, stopping.clone()));
        Self { status, stopping }
    }

    /// Where it stands; changes with every start and end.
    pub fn status(&self) -> watch::Receiver<SupervisedStatus> {
        self.status.clone()
    }

    /// The running plugin, or why there is none, waiting at most `limit`.
    pub async fn plugin(
        &self,
        call: &'static str,
        limit: Duration,
    ) -> Result<Arc<Plugin>, CallError> {
        let mut status = self.status.clone();
        let up = status.wait_for(|status| {
            matches!(status, SupervisedStatus::Up(_) | SupervisedStatus::Stopped)
        });
        if let Ok(Ok(status)) = tokio::time::timeout(limit, up).await
            && let SupervisedStatus::Up(plugin) = &*status
        {
            return Ok(Arc::clone(plugin));
        }
        let message = match &*self.status.borrow() {
            SupervisedStatus::Down(failure) => {
                failure.to_string().lines().next().unwrap_or_default().to_owned()
            }
            SupervisedStatus::Stopped => "it was stopped".into(),
            SupervisedStatus::Starting | SupervisedStatus::Up(_) => "it is starting".into(),
        };
        Err(CallError::Gone { call, message })
    }

    /// Ends the plugin for good: its own shutdown within `limit`, then go-plugin's.
    pub async fn stop(&self, limit: Duration) {
        let running = match &*self.status.borrow() {
            SupervisedStatus::Up(plugin) => Some(Arc::clone(plugin)),
            _ => None,
        };
        self.stopping.cancel();
        if let Some(plugin) = running {
            plugin.stop(limit).await;
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn keep_running(
    launch: Launch,
    config: Vec<u8>,
    settings: Settings,
    sender: watch::Sender<SupervisedStatus>,
    stopping: CancellationToken,
) {
    let binary = launch.binary.display();
    let mut past = Past::default();
    loop {
        let start = Plugin::start(&launch, &config, &settings);
        let start = tokio::select! {
            start = start => start,
            () = stopping.cancelled() => break,
        };
        let failure = match start {
            Ok(plugin) => {
                let up_since = Instant::now();
                if std::mem::replace(&mut past.was_up, true) {
                    tracing::info!(%binary, "plugin is up again");
                }
                let ended = plugin.ended();
                let plugin = Arc::new(plugin);
                let _ = sender.send(SupervisedStatus::Up(plugin));
                tokio::select! {
                    how = ended => {
                        tracing::warn!(%binary, how, "plugin ended, starting it again");
                        past.ended(&launch.binary, up_since.elapsed());
                        StartFailure::Ended(how)
                    }
                    () = stopping.cancelled() => break,
                }
            }
            Err(error) => {
                past.failed(&error);
                StartFailure::Start(error)
            }
        };
        let pause = past.pause(&failure);
        let _ = sender.send(SupervisedStatus::Down(Arc::new(failure)));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => break,
        }
    }
    let _ = sender.send(SupervisedStatus::Stopped);
}

/// What became of the starts so far.
#[derive(Default)]
struct Past {
    was_up: bool,
    /// Ends and failed starts in a row.
    deaths: u32,
    /// Why a restart failed, as it was logged last.
    told: String,
}

impl Past {
    fn ended(&mut self, binary: &Path, after: Duration) {
        self.told.clear();
        if after >= STEADY {
            self.deaths = 0;
        } else {
            self.died(binary);
        }
    }

    fn died(&mut self, binary: &Path) {
        self.deaths += 1;
        if self.deaths == BREAKS_AT {
            tracing::error!(
                binary = %binary.display(),
                deaths = self.deaths,
                "the plugin ends again and again; it is tried every few minutes from now on"
            );
        }
    }

    /// Logs why a restart fails, once for each cause. Who waits for the first start says it.
    fn failed(&mut self, error: &StartError) {
        let is_refused = matches!(error.cause, StartCause::Refused(_));
        if !is_refused {
            self.died(&error.binary);
        }
        let why = error.cause.to_string();
        if !self.was_up || why == self.told {
            return;
        }
        let binary = error.binary.display();
        if is_refused {
            tracing::error!(%binary, why, "plugin is not started again");
        } else {
            tracing::warn!(%binary, why, "plugin cannot be started again, it is tried further");
        }
        self.told = why;
    }

    fn pause(&self, failure: &StartFailure) -> Duration {
        match failure {
            StartFailure::Start(StartError { cause: StartCause::Refused(_), .. }) => REFUSED_PAUSE,
            _ => backoff(self.deaths, rand::random()),
        }
    }
}

/// The wait after so many ends in a row. `chance` (0 to 1) keeps plugins that ended
/// together from starting together.
fn backoff(deaths: u32, chance: f64) -> Duration {
    let longest = if deaths < BREAKS_AT { MAX_BACKOFF } else { BROKEN_BACKOFF };
    let doubled = MIN_BACKOFF.saturating_mul(1 << deaths.saturating_sub(1).min(20));
    doubled.min(longest).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_a_broken_plugin_is_tried_seldom() {
        let seconds = |deaths| backoff(deaths, 1.0).as_secs_f64();
        assert_eq!([seconds(0), seconds(1), seconds(2), seconds(4)], [0.1, 0.1, 0.2, 0.8]);
        assert_eq!((seconds(BREAKS_AT - 1), seconds(BREAKS_AT)), (25.6, 51.2));
        assert_eq!(seconds(1000), BROKEN_BACKOFF.as_secs_f64());
        assert_eq!(backoff(1000, 0.0), BROKEN_BACKOFF / 2);
    }
}
