//! Why a script's operation failed: one readable line, without anything that it printed
//! on stdout, where secrets may be.

use std::time::Duration;

/// Shown with the operation's name before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It did not run.
    #[error("cannot run {program}: {why}")]
    NotRun { program: String, why: String },
    /// It ended with a status that is an error.
    #[error("{message}")]
    Refused { message: String },
    /// It ended with the status that asks for another attempt.
    #[error("temporary failure: {message}")]
    Temporary { message: String },
    /// It does not know the operation.
    #[error("the script does not offer it (exit status 64)")]
    NotOffered,
    /// It was killed at its deadline.
    #[error("killed after {} s, its deadline: see timeouts in plugin_config", limit.as_secs_f32())]
    Deadline { limit: Duration },
    /// As many scripts ran as may, until the deadline.
    #[error("no turn within {} s: see parallel in plugin_config", limit.as_secs_f32())]
    NoTurn { limit: Duration },
    /// A signal ended it.
    #[error("signal {number} ended the script")]
    Killed { number: i32 },
    /// It printed more than is read.
    #[error("killed: it printed more than {} KiB on stdout", limit_bytes / 1024)]
    TooMuch { limit_bytes: usize },
    /// What it printed is no answer.
    #[error("its answer is not understood: {why}")]
    Answer { why: String },
    /// Something on this side went wrong.
    #[error("{step}: {why}")]
    Own { step: &'static str, why: String },
}

impl Failure {
    /// Whether it says nothing about what was asked, only that it could not be told now.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. } | Self::Deadline { .. } | Self::NoTurn { .. })
    }

    /// The error of a call.
    pub(crate) fn of(self, operation: &str) -> mayfly_plugin::Error {
        mayfly_plugin::Error::new(format!("{operation}: {self}"))
    }
}
