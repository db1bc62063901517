//! What a day has cost so far, in instance-hours and in money. Pure: the time is told.
//!
//! Between two looks the instances of the first one are taken to have run all the time, at
//! the prices of then, also when the plugin did not run: a restart is not for free.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const HOUR_MS: f64 = 60.0 * 60.0 * 1000.0;

/// The instances of one provider that cost from a look on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    pub(crate) provider: &'a str,
    pub(crate) instances: u32,
    /// Of one instance; 0 where none is written.
    pub(crate) price_per_hour: f64,
}

/// The sums of one day, by UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meter {
    /// Milliseconds since 1970 of the last look.
    at_ms: u64,
    /// What ran at the last look.
    instances: u32,
    /// Sum of the day of the last look.
    spent_ms: u64,
    /// By provider. Files of before there were prices have none.
    #[serde(default)]
    shares: BTreeMap<String, Share>,
}

/// The part of one provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Share {
    instances: u32,
    price_per_hour: f64,
    spent_ms: u64,
    /// What `spent_ms` has cost, each part at the price of its time.
    cost: f64,
}

impl Meter {
    /// Charges for the time since the last look. A clock that went back charges nothing.
    pub(crate) fn look(&mut self, now_ms: u64, running: &[Running<'_>]) {
        let midnight = now_ms - now_ms % DAY_MS;
        let is_same_day = (midnight..midnight + DAY_MS).contains(&self.at_ms);
        let charged_ms = now_ms.saturating_sub(self.at_ms.max(midnight));
        let sum = |sum: u64, instances: u32| {
            let before = if is_same_day { sum } else { 0 };
            before.saturating_add(charged_ms.saturating_mul(instances.into()))
        };
        self.spent_ms = sum(self.spent_ms, self.instances);
        for share in self.shares.values_mut() {
            let before = if is_same_day { share.cost } else { 0.0 };
            let charged_hours = hours(charged_ms) * f64::from(share.instances);
            share.cost = before + charged_hours * share.price_per_hour;
            share.spent_ms = sum(share.spent_ms, share.instances);
            share.instances = 0;
        }
        for one in running {
            let share = self.shares.entry(one.provider.to_owned()).or_default();
            (share.instances, share.price_per_hour) = (one.instances, one.price_per_hour);
        }
        // Who was removed from the configuration has cost what it did until midnight.
        self.shares.retain(|_, share| share.instances > 0 || share.spent_ms > 0);
        let instances = running.iter().map(|one| one.instances);
        (self.at_ms, self.instances) = (now_ms, instances.fold(0, u32::saturating_add));
    }

    pub(crate) fn hours(&self) -> f64 {
        hours(self.spent_ms)
    }

    /// In the currency of the prices.
    pub(crate) fn cost(&self) -> f64 {
        self.shares.values().map(|share| share.cost).sum()
    }

    /// Who has cost what: `spot 1.20, on-demand 3.81`.
    pub(crate) fn costs(&self) -> String {
        let each = self.shares.iter().map(|(name, share)| format!("{name} {:.2}", share.cost));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Whether the last look is long enough ago, or shows other numbers than `written`.
    pub(crate) fn differs(&self, written: &Self, by_ms: u64) -> bool {
        let running = |meter: &Self| {
            let shares = meter.shares.iter();
            let each = shares.map(|(name, it)| (name.clone(), it.instances, it.price_per_hour));
            each.collect::<Vec<_>>()
        };
        running(self) != running(written) || self.at_ms.abs_diff(written.at_ms) >= by_ms
    }
}

fn hours(ms: u64) -> f64 {
    ms as f64 / HOUR_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;
    const DAY: u64 = 24 * 1000;

    fn of(provider: &str, instances: u32, price_per_hour: f64) -> Running<'_> {
        Running { provider, instances, price_per_hour }
    }

    fn after(looks: &[(u64, u32)]) -> f64 {
        let mut meter = Meter::default();
        for (hour, instances) in looks {
            meter.look(hour * HOUR, &[of("a", *instances, 2.0)]);
            assert!((meter.cost() - 2.0 * meter.hours()).abs() < 1e-9, "{meter:?}");
        }
        meter.hours()
    }

    #[test]
    fn hours_are_those_of_the_day_and_of_what_ran_before_each_look() {
        assert_eq!(after(&[(DAY, 3)]), 0.0, "what ran before the first look is unknown");
        assert_eq!(after(&[(DAY, 3), (DAY + 2, 5), (DAY + 3, 0), (DAY + 9, 1)]), 11.0);
        // Only the hours after midnight count for the new day.
        assert_eq!(after(&[(DAY + 20, 2), (DAY + 27, 2)]), 6.0);
        // A whole day without a look.
        assert_eq!(after(&[(DAY + 20, 2), (DAY + 24 * 3 + 1, 0)]), 2.0);
        // A clock that goes back, within the day and over midnight.
        assert_eq!(after(&[(DAY, 1), (DAY + 5, 1), (DAY + 3, 1), (DAY + 4, 1)]), 6.0);
        assert_eq!(after(&[(DAY, 1), (DAY + 5, 1), (DAY - 3, 1), (DAY - 2, 0)]), 1.0);
    }

    #[test]
    fn each_hour_costs_the_price_of_its_time_and_provider() {
        let mut meter = Meter::default();
        meter.look(DAY * HOUR, &[of("a", 2, 0.5), of("b", 1, 3.0)]);
        meter.look((DAY + 1) * HOUR, &[of("a", 2, 1.0), of("b", 1, 0.0)]);
        assert_eq!((meter.hours(), meter.cost()), (3.0, 4.0));
        assert_eq!(meter.costs(), "a 1.00, b 3.00");
        // The new prices. Who is not there any more has cost what it did.
        meter.look((DAY + 2) * HOUR, &[of("a", 0, 1.0)]);
        assert_eq!((meter.hours(), meter.costs().as_str()), (6.0, "a 3.00, b 3.00"));
        meter.look((DAY + 23) * HOUR, &[of("a", 1, 1.0)]);
        meter.look((DAY + 25) * HOUR, &[of("a", 1, 1.0)]);
        assert_eq!((meter.hours(), meter.costs().as_str()), (1.0, "a 1.00"));
    }

    #[test]
    fn hours_of_before_there_were_prices_count_and_cost_nothing() {
        let old = format!(r#"{{"at_ms":{},"instances":2,"spent_ms":{HOUR}}}"#, DAY * HOUR);
        let mut meter: Meter = serde_json::from_str(&old).expect("read");
        meter.look((DAY + 1) * HOUR, &[of("a", 1, 5.0)]);
        assert_eq!((meter.hours(), meter.cost()), (3.0, 0.0));
        meter.look((DAY + 2) * HOUR, &[of("a", 1, 5.0)]);
        assert_eq!((meter.hours(), meter.cost()), (4.0, 5.0));
    }

    #[test]
    fn what_is_written_is_not_far_behind() {
        let mut meter = Meter::default();
        meter.look(HOUR, &[of("a", 2, 1.0)]);
        let written = meter.clone();
        meter.look(HOUR + 500, &[of("a", 2, 1.0)]);
        assert!(!meter.differs(&written, 1000));
        meter.look(HOUR + 1000, &[of("a", 2, 1.0)]);
        assert!(meter.differs(&written, 1000));
        for other in [of("a", 3, 1.0), of("a", 2, 2.0), of("b", 2, 1.0)] {
            meter = written.clone();
            meter.look(HOUR + 1, &[other]);
            assert!(meter.differs(&written, 10_000), "{other:?}");
        }
    }
}
