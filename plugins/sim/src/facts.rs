//! One instance: when what becomes of it, and where it stands at a moment. Pure.
//!
//! Times are milliseconds since the Unix epoch: they must mean the same to the next
//! plugin. A clock that is set moves the simulation with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// An instance as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) id: String,
    /// Counted from 1 since the group's birth; never used again.
    pub(crate) number: u64,
    /// Whether there is a process to log in to while it runs.
    pub(crate) has_ssh: bool,
    /// It costs from here on.
    pub(crate) created_ms: u64,
    pub(crate) listed_ms: u64,
    /// `None`: its boot never finishes.
    pub(crate) running_ms: Option<u64>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) interrupt_ms: Option<u64>,
    /// When it dies, or died, by itself or by somebody else's hand.
    pub(crate) killed_ms: Option<u64>,
    pub(crate) deletion: Option<Deletion>,
    #[serde(default)]
    pub(crate) power: Power,
    /// Steps that the ledger has.
    #[serde(default)]
    pub(crate) told: BTreeSet<Step>,
}

/// A deletion that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deletion {
    /// It runs on until here.
    pub(crate) begins_ms: u64,
    pub(crate) gone_ms: u64,
}

/// Whether it is switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Power {
    #[default]
    On,
    /// Off, at the latest by `until_ms`.
    Off { until_ms: u64 },
    /// On again from `until_ms`.
    Resuming { until_ms: u64 },
}

/// What happened to an instance, in the ledger's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Created,
    Listed,
    Running,
    Timeout,
    Interrupted,
    Deleting,
    Killed,
    Gone,
    Suspending,
    Suspended,
    Resuming,
    Resumed,
}

/// Where an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It will come into being.
    Promised,
    /// It exists, but lists do not have it yet.
    Unlisted,
    Creating,
    Running,
    Timeout,
    Suspending,
    Suspended,
    Resuming,
    /// Told that it will be taken away; runs.
    Interrupted,
    Deleting,
    /// It died.
    Killed,
    /// It was deleted.
    Gone,
}

impl Stage {
    /// Whether a machine runs then.
    pub(crate) fn has_machine(self) -> bool {
        matches!(self, Self::Running | Self::Interrupted)
    }

    /// Whether it is no more.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Killed | Self::Gone)
    }

    /// The word for people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Promised => "promised",
            Self::Unlisted => "unlisted",
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Timeout => "timeout",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Resuming => "resuming",
            Self::Interrupted => "interrupted",
            Self::Deleting => "deleting",
            Self::Killed => "killed",
            Self::Gone => "gone",
        }
    }
}

impl Facts {
    /// Where it stands.
    pub(crate) fn stage(&self, now_ms: u64) -> Stage {
        let passed = |at: Option<u64>| at.is_some_and(|at| now_ms >= at);
        let deletion = |at: fn(&Deletion) -> u64| passed(self.deletion.as_ref().map(at));
        if passed(self.killed_ms) {
            return Stage::Killed;
        }
        if deletion(|deletion| deletion.gone_ms) {
            return Stage::Gone;
        }
        if now_ms < self.created_ms {
            return Stage::Promised;
        }
        if deletion(|deletion| deletion.begins_ms) {
            return Stage::Deleting;
        }
        if now_ms < self.listed_ms {
            return Stage::Unlisted;
        }
        if passed(self.timeout_ms) {
            return Stage::Timeout;
        }
        if !passed(self.running_ms) {
            return Stage::Creating;
        }
        if passed(self.interrupt_ms) {
            return Stage::Interrupted;
        }
        match self.power {
            Power::Off { until_ms } if now_ms < until_ms => Stage::Suspending,
            Power::Off { .. } => Stage::Suspended,
            Power::Resuming { until_ms } if now_ms < until_ms => Stage::Resuming,
            Power::On | Power::Resuming { .. } => Stage::Running,
        }
    }

    /// The next moment at which it goes on by itself.
    pub(crate) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let power = match self.power {
            Power::On => None,
            Power::Off { until_ms } | Power::Resuming { until_ms } => Some(until_ms),
        };
        let times = [
            Some(self.created_ms),
            Some(self.listed_ms),
            self.running_ms,
            self.timeout_ms,
            self.interrupt_ms,
            self.killed_ms,
            self.deletion.map(|deletion| deletion.begins_ms),
            self.deletion.map(|deletion| deletion.gone_ms),
            power,
        ];
        times.into_iter().flatten().filter(|at| *at > now_ms).min()
    }

    /// When it is no more, as far as that is known.
    pub(crate) fn over_ms(&self) -> Option<u64> {
        let deleted = self.deletion.map(|deletion| deletion.gone_ms);
        [self.killed_ms, deleted].into_iter().flatten().min()
    }

    /// Steps that happened by now and that the ledger does not have, with their times.
    pub(crate) fn news(&self, now_ms: u64) -> Vec<(u64, Step)> {
        let over = self.over_ms().unwrap_or(u64::MAX);
        let deletion = self.deletion.map(|deletion| deletion.begins_ms);
        let (suspended, resumed) = match self.power {
            Power::On => (None, None),
            Power::Off { until_ms } => (Some(until_ms), None),
            Power::Resuming { until_ms } => (None, Some(until_ms)),
        };
        let timeline = [
            (Some(self.created_ms), Step::Created),
            (Some(self.listed_ms), Step::Listed),
            (self.running_ms.filter(|at| self.timeout_ms.is_none_or(|t| *at < t)), Step::Running),
            (self.timeout_ms, Step::Timeout),
            (self.interrupt_ms, Step::Interrupted),
            (suspended, Step::Suspended),
            (resumed, Step::Resumed),
            (deletion, Step::Deleting),
            (self.killed_ms, Step::Killed),
        ];
        let happened = timeline.into_iter().filter_map(|(at, step)| Some((at?, step)));
        let mut news: Vec<(u64, Step)> = happened
            .filter(|(at, step)| *at <= now_ms && *at <= over && !self.told.contains(step))
            .collect();
        news.sort();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            id: "sim-00001".into(),
            number: 1,
            has_ssh: false,
            created_ms: 100,
            listed_ms: 200,
            running_ms: Some(300),
            timeout_ms: None,
            interrupt_ms: None,
            killed_ms: None,
            deletion: None,
            power: Power::On,
            told: BTreeSet::new(),
        }
    }

    fn stages(facts: &Facts) -> Vec<&'static str> {
        let mut stages: Vec<_> = (0..=10).map(|n| facts.stage(n * 100).as_str()).collect();
        stages.dedup();
        stages
    }

    #[test]
    fn a_life_goes_through_its_stages() {
        let slow = Facts { listed_ms: 150, running_ms: Some(350), ..facts() };
        assert_eq!(stages(&slow), ["promised", "unlisted", "creating", "running"]);
        let deletion = Some(Deletion { begins_ms: 500, gone_ms: 700 });
        let never = Facts { running_ms: None, ..facts() };
        assert_eq!(stages(&never), ["promised", "unlisted", "creating"]);
        let life = Facts { deletion, ..facts() };
        assert_eq!(
            stages(&life),
            ["promised", "unlisted", "creating", "running", "deleting", "gone"]
        );
        let killed = Facts { killed_ms: Some(400), deletion, ..facts() };
        assert_eq!(stages(&killed), ["promised", "unlisted", "creating", "running", "killed"]);
        let told = Facts { interrupt_ms: Some(400), killed_ms: Some(600), ..facts() };
        assert_eq!(
            stages(&told),
            ["promised", "unlisted", "creating", "running", "interrupted", "killed"]
        );
        let given_up = Facts { timeout_ms: Some(250), ..facts() };
        assert_eq!(stages(&given_up), ["promised", "unlisted", "creating", "timeout"]);
        let off = Facts { power: Power::Off { until_ms: 500 }, ..facts() };
        assert_eq!(stages(&off), ["promised", "unlisted", "creating", "suspending", "suspended"]);
    }

    #[test]
    fn news_are_told_once_in_order_and_none_after_the_end() {
        let mut life = Facts {
            killed_ms: Some(400),
            deletion: Some(Deletion { begins_ms: 450, gone_ms: 700 }),
            ..facts()
        };
        assert_eq!(life.news(250), [(100, Step::Created), (200, Step::Listed)]);
        life.told.extend([Step::Created, Step::Listed]);
        assert_eq!(life.news(1000), [(300, Step::Running), (400, Step::Killed)]);
        let given_up = Facts { timeout_ms: Some(250), ..facts() };
        assert!(given_up.news(1000).iter().all(|(_, step)| *step != Step::Running));
    }
}
