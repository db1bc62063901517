//! How long to wait before the next attempt: longer after each failure, never for hours,
//! never in step with others.

use std::time::Duration;

use rand::RngExt as _;

/// Doubling waits with jitter.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `asked` is what the server asked for; an absurd
    /// wish is cut.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let pause = job::report::pause(self.failures, asked, rand::rng().random());
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}
