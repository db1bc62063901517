//! A failed step: what was being done, and what the system said.

use std::io;

/// Shown to people, never branched on.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Failed {
    step: String,
    source: io::Error,
}

impl From<Failed> for mayfly_plugin::Error {
    fn from(failed: Failed) -> Self {
        Self::new(failed.to_string())
    }
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.to_string()
    }
}

/// Names the step that a system error belongs to.
pub trait During<T> {
    /// `step` completes "failed to …" without those words, such as `mount /proc`.
    fn during(self, step: impl Into<String>) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: impl Into<String>) -> Result<T, Failed> {
        self.map_err(|error| Failed { step: step.into(), source: error.into() })
    }
}
