//! How long instances of a group take to come up, learned from those that did.

use std::collections::VecDeque;
use std::time::Duration;

/// So many of the last instances are remembered.
const REMEMBERED: usize = 64;
/// Fewer say nothing.
const ENOUGH: usize = 5;
/// An instance may take so many times as long as the slowest that is remembered. Where one
/// is given up, the next ones are given so many times more.
const SLOWER: u32 = 4;
/// Nobody is given less: a provider has a bad minute now and then.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);

/// The boot times of a group: from being asked for to being ready for jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootTimes {
    came: VecDeque<Duration>,
    /// How long those had taken that were given up since one came.
    given_up: Duration,
}

impl BootTimes {
    /// Those of before, the oldest first.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut boots = Self::default();
        times.into_iter().for_each(|took| boots.came(took));
        boots
    }

    /// The oldest first.
    pub fn all(&self) -> impl Iterator<Item = Duration> {
        self.came.iter().copied()
    }

    /// An instance took so long.
    pub fn came(&mut self, took: Duration) {
        if self.came.len() == REMEMBERED {
            self.came.pop_front();
        }
        self.came.push_back(took);
        self.given_up = Duration::ZERO;
    }

    /// An instance was given up after so long.
    pub fn gave_up(&mut self, after: Duration) {
        self.given_up = self.given_up.max(after);
    }

    /// The time within which this share (0 to 1) of the instances came up; nothing before
    /// there are enough of them.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.came.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<Duration> = self.came.iter().copied().collect();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "at most 64"
        )]
        let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// How long an instance may take, at most `limit`.
    pub fn deadline(&self, limit: Duration) -> Duration {
        match self.quantile(1.0) {
            Some(slowest) => {
                (slowest.max(self.given_up) * SLOWER).max(SHORTEST_DEADLINE).min(limit)
            }
            None => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(all: impl IntoIterator<Item = u64>) -> BootTimes {
        BootTimes::of(all.into_iter().map(Duration::from_secs))
    }

    #[test]
    fn quantiles_are_of_the_last_ones() {
        assert_eq!(seconds([1, 2, 3, 4]).quantile(0.5), None);
        let boots = seconds(1..=10);
        let of = |share| boots.quantile(share).map(|time| time.as_secs());
        assert_eq!([of(0.0), of(0.5), of(0.9), of(1.0)], [Some(1), Some(5), Some(9), Some(10)]);
        let boots = seconds((1..=100).map(|n| if n <= 36 { 1000 } else { n }));
        assert_eq!(boots.all().count(), REMEMBERED);
        assert_eq!(boots.quantile(1.0), Some(Duration::from_secs(100)));
    }

    #[test]
    fn the_deadline_grows_with_what_was_given_up() {
        let limit = Duration::from_secs(900);
        assert_eq!(seconds([1, 1]).deadline(limit), limit);
        let mut boots = seconds([20, 30, 25, 22, 28]);
        assert_eq!(boots.deadline(limit).as_secs(), 120);
        boots.gave_up(boots.deadline(limit));
        assert_eq!(boots.deadline(limit).as_secs(), 480);
        boots.gave_up(boots.deadline(limit));
        assert_eq!(boots.deadline(limit), limit);
        // What was given up is no boot time, and one that comes says how long it takes now.
        assert_eq!(boots.quantile(0.5), Some(Duration::from_secs(25)));
        boots.came(Duration::from_secs(35));
        assert_eq!(boots.deadline(limit).as_secs(), 140);
        assert_eq!(seconds([0; 9]).deadline(limit), SHORTEST_DEADLINE);
    }
}
