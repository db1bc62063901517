//! How a run is served.

use std::{path::PathBuf, time::Duration};

/// What the caller decides about a run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Token that a runner must show to get jobs; see [`new_token`](super::new_token).
    pub(crate) runner_token: String,
    /// The server's address as jobs reach it, without a slash at its end; by default that of
    /// the listener.
    pub(crate) url: Option<String>,
    /// Directory for the jobs' logs, one file each; created if need be.
    pub(crate) trace_directory: PathBuf,
    /// Directory for the jobs' artifacts; created if need be.
    pub(crate) artifact_directory: PathBuf,
    /// Bounds; the defaults suit a run at a desk.
    pub(crate) limits: Limits,
}

/// Bounds of a run.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// How long a job request is held open when there is nothing to do.
    pub(crate) long_poll: Duration,
    /// How often runners are asked to send logs; whole seconds go over the wire.
    pub(crate) trace_interval: Duration,
    /// A job whose runner is silent for this long has failed. Runners speak every 30 s.
    pub(crate) silence: Duration,
    /// What a job may take beyond its own timeout before it has failed.
    pub(crate) overtime: Duration,
    /// Size of one job's log, in bytes: GitLab's default.
    pub(crate) trace_size: u64,
    /// Size of one job's archive, in bytes.
    pub(crate) artifact_size: u64,
    /// Connections served at a time; more wait.
    pub(crate) connections: usize,
    /// Clones served at a time; more wait.
    pub(crate) clones: usize,
}

impl Options {
    /// Options with the default limits.
    pub(crate) fn new(
        runner_token: impl Into<String>,
        trace_directory: impl Into<PathBuf>,
        artifact_directory: impl Into<PathBuf>,
    ) -> Self {
        Self {
            runner_token: runner_token.into(),
            url: None,
            trace_directory: trace_directory.into(),
            artifact_directory: artifact_directory.into(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            long_poll: Duration::from_secs(20),
            trace_interval: Duration::from_secs(1),
            silence: Duration::from_secs(5 * 60),
            overtime: Duration::from_secs(15 * 60),
            trace_size: 100 << 20,
            artifact_size: 5 << 30,
            connections: 512,
            clones: 16,
        }
    }
}
