//! What the lines of a ledger add up to.
//!
//! An instance costs from its creation until it is gone, suspended time excepted. A line
//! that comes twice counts once: a plugin that is killed between ledger and facts says it
//! again.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Entry, Record};
use crate::facts::Step;

/// The sums so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    quota: Option<u32>,
    /// Lives that ended before this file.
    ended: Totals,
    /// The others, by number. As pairs: a number is no key in JSON.
    #[serde(serialize_with = "as_pairs", deserialize_with = "from_pairs")]
    lives: BTreeMap<u64, Life>,
    alive: u32,
    peak: u32,
    peak_ms: u64,
    /// The most instances beyond the quota of their time.
    over_quota: u32,
    pub(crate) calls: BTreeMap<String, CallCount>,
    pub(crate) faults: BTreeMap<String, u64>,
    last_ms: u64,
}

/// Of calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallCount {
    pub(crate) made: u64,
    pub(crate) failed: u64,
}

/// Of many instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) instances: u64,
    pub(crate) cost_ms: u64,
    pub(crate) boot_ms: u64,
    /// Those that are not gone.
    pub(crate) alive: u32,
}

/// Of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) id: String,
    pub(crate) created_ms: u64,
    pub(crate) running_ms: Option<u64>,
    pub(crate) over_ms: Option<u64>,
    /// How it ended, or where it stands.
    pub(crate) last: Option<Step>,
    suspended_since_ms: Option<u64>,
    suspended_ms: u64,
}

impl Life {
    /// Until it ended, or until now. At least nothing, whatever clocks did.
    pub(crate) fn cost_ms(&self, now_ms: u64) -> u64 {
        let end = self.over_ms.unwrap_or(now_ms);
        let off = self.suspended_since_ms.map_or(0, |since| end.saturating_sub(since));
        end.saturating_sub(self.created_ms).saturating_sub(self.suspended_ms + off)
    }

    /// From creation until it ran; of one that never did, as long as it was there.
    pub(crate) fn boot_ms(&self, now_ms: u64) -> u64 {
        let end = self.running_ms.or(self.over_ms).unwrap_or(now_ms);
        end.saturating_sub(self.created_ms)
    }
}

impl Sums {
    /// Adds a line.
    pub(crate) fn add(&mut self, record: Record) {
        let at_ms = record.at_ms;
        self.last_ms = self.last_ms.max(at_ms);
        match record.entry {
            Entry::Carry { sums } => *self = sums,
            Entry::Opened { quota } => self.quota = quota,
            Entry::Call(call) => {
                let count = self.calls.entry(call.call.as_str().into()).or_default();
                count.made += 1;
                count.failed += u64::from(call.error.is_some());
                for kind in call.faults {
                    *self.faults.entry(kind.as_str().into()).or_default() += 1;
                }
            }
            Entry::Step { instance, number, step } => self.step((number, instance), step, at_ms),
        }
    }

    fn step(&mut self, (number, id): (u64, String), step: Step, at_ms: u64) {
        if step == Step::Created && !self.lives.contains_key(&number) {
            let life = Life { id, created_ms: at_ms, last: Some(step), ..Life::default() };
            self.lives.insert(number, life);
            self.alive += 1;
            if self.alive > self.peak {
                (self.peak, self.peak_ms) = (self.alive, at_ms);
            }
            let over = self.quota.map_or(0, |quota| self.alive.saturating_sub(quota));
            self.over_quota = self.over_quota.max(over);
            return;
        }
        let Some(life) = self.lives.get_mut(&number).filter(|life| life.over_ms.is_none()) else {
            return;
        };
        match step {
            Step::Running => life.running_ms = life.running_ms.or(Some(at_ms)),
            Step::Suspended => {
                life.suspended_since_ms = life.suspended_since_ms.or(Some(at_ms));
            }
            Step::Resuming => {
                let since = life.suspended_since_ms.take();
                life.suspended_ms += since.map_or(0, |since| at_ms.saturating_sub(since));
            }
            Step::Killed | Step::Gone => {
                life.over_ms = Some(at_ms);
                self.alive -= 1;
            }
            _ => {}
        }
        life.last = Some(step);
    }

    /// The same without the lives that ended, which are only added up.
    pub(super) fn carried(mut self) -> Self {
        let now = self.last_ms;
        for life in self.lives.values().filter(|life| life.over_ms.is_some()) {
            count(&mut self.ended, life, now);
        }
        self.lives.retain(|_, life| life.over_ms.is_none());
        self
    }

    /// Lives that this file tells of, by number.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    /// All instances that ever were, at this moment.
    pub(crate) fn totals(&self, now_ms: u64) -> Totals {
        let mut totals = Totals { alive: self.alive, ..self.ended };
        for life in self.lives.values() {
            count(&mut totals, life, now_ms);
        }
        totals
    }

    /// The most instances at a time, and when that was first so.
    pub(crate) fn peak(&self) -> (u32, u64) {
        (self.peak, self.peak_ms)
    }

    /// How many instances there were beyond the quota, at most; `None` without one.
    pub(crate) fn over_quota(&self) -> Option<u32> {
        self.quota.map(|_| self.over_quota)
    }

    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms
    }
}

fn as_pairs<S: Serializer>(lives: &BTreeMap<u64, Life>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(lives)
}

fn from_pairs<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u64, Life>, D::Error> {
    Ok(Vec::<(u64, Life)>::deserialize(from)?.into_iter().collect())
}

fn count(totals: &mut Totals, life: &Life, now_ms: u64) {
    totals.instances += 1;
    totals.cost_ms += life.cost_ms(now_ms);
    totals.boot_ms += life.boot_ms(now_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(steps: &[(u64, u64, Step)]) -> Sums {
        let mut sums = Sums::default();
        sums.add(Record { at_ms: 0, entry: Entry::Opened { quota: Some(1) } });
        for (at_ms, number, step) in steps {
            let instance = format!("i{number}");
            let entry = Entry::Step { instance, number: *number, step: *step };
            sums.add(Record { at_ms: *at_ms, entry });
        }
        sums
    }

    #[test]
    fn what_comes_twice_counts_once() {
        let (created, gone) = ((1000, 1, Step::Created), (4000, 1, Step::Gone));
        let once = sums(&[created, gone]).totals(9000);
        assert_eq!(once, Totals { instances: 1, cost_ms: 3000, boot_ms: 3000, alive: 0 });
        assert_eq!(sums(&[created, created, gone, gone]).totals(9000), once);
    }

    #[test]
    fn suspended_time_costs_nothing_and_the_peak_is_one_of_its_moment() {
        let sums = sums(&[
            (0, 1, Step::Created),
            (1000, 1, Step::Running),
            (2000, 1, Step::Suspended),
            (2500, 2, Step::Created),
            (3000, 2, Step::Killed),
            (7000, 1, Step::Resuming),
            (8000, 1, Step::Resumed),
        ]);
        let totals = sums.totals(10_000);
        assert_eq!((totals.cost_ms, totals.boot_ms, totals.alive), (5500, 1500, 1));
        assert_eq!((sums.peak(), sums.over_quota()), ((2, 2500), Some(1)));
    }
}
