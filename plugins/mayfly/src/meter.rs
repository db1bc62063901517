//! How many instance-hours a day has cost so far. Pure: the time is told.
//!
//! Between two looks the instances of the first one are taken to have run all the time,
//! also when the plugin did not: a restart is not for free.

use serde::{Deserialize, Serialize};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const HOUR_MS: f64 = 60.0 * 60.0 * 1000.0;

/// The sum of one day, by UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meter {
    /// Milliseconds since 1970 of the last look.
    at_ms: u64,
    /// What ran at the last look.
    instances: u32,
    /// Sum of the day of the last look.
    spent_ms: u64,
}

impl Meter {
    /// Charges for the time since the last look. A clock that went back charges nothing.
    pub(crate) fn look(&mut self, now_ms: u64, instances: u32) {
        let midnight = now_ms - now_ms % DAY_MS;
        if self.at_ms < midnight || self.at_ms >= midnight + DAY_MS {
            self.spent_ms = 0;
        }
        let charged_ms = now_ms.saturating_sub(self.at_ms.max(midnight));
        self.spent_ms =
            self.spent_ms.saturating_add(charged_ms.saturating_mul(self.instances.into()));
        (self.at_ms, self.instances) = (now_ms, instances);
    }

    pub(crate) fn hours(&self) -> f64 {
        self.spent_ms as f64 / HOUR_MS
    }

    /// Whether the last look is long enough ago, or shows another number than `written`.
    pub(crate) fn differs(&self, written: &Self, by_ms: u64) -> bool {
        self.instances != written.instances || self.at_ms.abs_diff(written.at_ms) >= by_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    fn after(looks: &[(u64, u32)]) -> f64 {
        let mut meter = Meter::default();
        looks.iter().for_each(|(hour, instances)| meter.look(hour * HOUR, *instances));
        meter.hours()
    }

    #[test]
    fn hours_are_those_of_the_day_and_of_what_ran_before_each_look() {
        let day = 24 * 1000;
        assert_eq!(after(&[(day, 3)]), 0.0, "what ran before the first look is unknown");
        assert_eq!(after(&[(day, 3), (day + 2, 5), (day + 3, 0), (day + 9, 1)]), 11.0);
        // Only the hours after midnight count for the new day.
        assert_eq!(after(&[(day + 20, 2), (day + 27, 2)]), 6.0);
        // A whole day without a look.
        assert_eq!(after(&[(day + 20, 2), (day + 24 * 3 + 1, 0)]), 2.0);
        // A clock that goes back, within the day and over midnight.
        assert_eq!(after(&[(day, 1), (day + 5, 1), (day + 3, 1), (day + 4, 1)]), 6.0);
        assert_eq!(after(&[(day, 1), (day + 5, 1), (day - 3, 1), (day - 2, 0)]), 1.0);
    }

    #[test]
    fn what_is_written_is_not_far_behind() {
        let mut meter = Meter::default();
        meter.look(HOUR, 2);
        let written = meter.clone();
        meter.look(HOUR + 500, 2);
        assert!(!meter.differs(&written, 1000));
        meter.look(HOUR + 1000, 2);
        assert!(meter.differs(&written, 1000));
        meter.look(HOUR + 1001, 3);
        assert!(meter.differs(&written, 10_000));
    }
}
