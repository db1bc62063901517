//! How long to wait before the next attempt: longer after each failure, never for hours,
//! never in step with others.

use std::time::Duration;

use rand::RngExt as _;

/// Longest wait for a server that is down: with it back, work goes on within half a
/// minute.
const LONGEST: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_millis(500);

/// Doubling waits with jitter.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `asked` is what the server asked for; an absurd
    /// wish is cut.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(10));
        self.failures += 1;
        let base = asked.unwrap_or(doubled).min(LONGEST);
        base.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..20).map(|_| backoff.failed(None)).collect();
        assert!(waits[0] <= FIRST && waits[19] <= LONGEST && waits[19] >= LONGEST / 2);
        assert!(backoff.failed(Some(Duration::from_secs(1 << 40))) <= LONGEST);
        backoff.succeeded();
        assert!(backoff.failed(None) <= FIRST);
    }
}
