//! What calls are told: lists, true or not, and single instances.

use mayfly_plugin::{InstanceState, InstanceStatus};

use super::Cloud;
use crate::facts::{Facts, Stage};
use crate::fault::{Kind, Rule};

/// Instances that are gone are told as deleted for so long.
const DELETED_TOLD_MS: u64 = 10_000;

impl Cloud {
    /// All instances, changed by these rules.
    pub(crate) fn list(&self, lies: &[Rule], now_ms: u64) -> Vec<InstanceStatus> {
        let has = |kind: Kind| lies.iter().any(|rule| rule.kind == kind);
        let take = |kind: Kind| {
            let takes = lies.iter().filter(|rule| rule.kind == kind);
            takes.map(|rule| rule.take.unwrap_or(1)).sum::<u32>() as usize
        };
        let mut listed = Vec::with_capacity(self.facts.len());
        for facts in self.facts.values() {
            let state = match self.state(facts, now_ms) {
                Some(InstanceState::Deleting) if has(Kind::DeletedRunning) => {
                    Some(InstanceState::Running)
                }
                state => state,
            };
            listed.extend(state.map(|state| InstanceStatus::new(&facts.id, state)));
        }
        listed.drain(..take(Kind::Omit).min(listed.len()));
        // A plugin that was killed may have written down an end that is still to come.
        let is_gone = |id: &str| !self.facts.contains_key(id);
        for gone in self.group.gone.iter().filter(|gone| is_gone(&gone.id)) {
            let lie = if gone.was_killed { Kind::DeadRunning } else { Kind::DeletedRunning };
            if has(lie) {
                listed.push(InstanceStatus::new(&gone.id, InstanceState::Running));
            } else if now_ms < gone.at_ms + DELETED_TOLD_MS {
                listed.push(InstanceStatus::new(&gone.id, InstanceState::Deleted));
            }
        }
        for n in 1..=take(Kind::Unknown) {
            listed.push(InstanceStatus::new(format!("sim-ghost-{n}"), InstanceState::Running));
        }
        if has(Kind::Duplicate) {
            listed.extend_from_within(..);
        }
        listed
    }

    /// `None` for what is in no list.
    fn state(&self, facts: &Facts, now_ms: u64) -> Option<InstanceState> {
        match facts.stage(now_ms) {
            Stage::Promised | Stage::Unlisted => None,
            Stage::Creating => Some(InstanceState::Creating),
            // Its process may be some milliseconds late.
            Stage::Running if !self.is_up(facts) => Some(InstanceState::Creating),
            Stage::Running => Some(InstanceState::Running),
            Stage::Timeout => Some(InstanceState::Timeout),
            Stage::Suspending => Some(InstanceState::Suspending),
            Stage::Suspended => Some(InstanceState::Suspended),
            Stage::Resuming => Some(InstanceState::Resuming),
            Stage::Interrupted | Stage::Deleting => Some(InstanceState::Deleting),
            // Until nothing of it is left.
            Stage::Killed | Stage::Gone => Some(InstanceState::Deleting),
        }
    }

    fn is_up(&self, facts: &Facts) -> bool {
        !facts.has_ssh || self.machines.contains_key(&facts.id)
    }

    /// An instance that can be used.
    pub(crate) fn running(&self, id: &str, now_ms: u64) -> Option<&Facts> {
        let facts = self.facts.get(id)?;
        (facts.stage(now_ms).has_machine() && self.is_up(facts)).then_some(facts)
    }

    /// Where its files are.
    pub(crate) fn directory(&self, id: &str) -> std::path::PathBuf {
        self.store.instance(id)
    }
}
