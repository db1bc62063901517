//! How long something that fails is left alone: longer each time, up to a limit.

use std::time::{Duration, Instant};

/// What fails in a row waits twice as long each time.
#[derive(Debug)]
pub(crate) struct Cooling {
    first: Duration,
    longest: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Cooling {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), failures: 0, until: None }
    }

    /// It failed now; returns how long it is left alone.
    pub(crate) fn failed(&mut self, now: Instant) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(self.longest);
        self.until = Some(now + pause);
        pause
    }

    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }

    /// How much longer it is left alone; nothing where it is not.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let seconds = Duration::from_secs;
        let now = Instant::now();
        let mut cooling = Cooling::new(seconds(10), seconds(60));
        assert_eq!(cooling.left(now), None);
        let pauses: Vec<u64> = (0..5).map(|_| cooling.failed(now).as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 60, 60]);
        assert_eq!(cooling.left(now + seconds(59)), Some(seconds(1)));
        assert_eq!(cooling.left(now + seconds(60)), None);
        cooling.succeeded();
        assert_eq!(cooling.left(now), None);
        assert_eq!(cooling.failed(now), seconds(10));
    }
}
