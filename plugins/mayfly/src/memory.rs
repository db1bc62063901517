//! What is remembered of one provider over the end of this plugin, for the time in which it
//! is down. Pure: the file is somebody else's.

use std::collections::BTreeMap;

use mayfly_plugin::{InstanceState, InstanceStatus};
use serde::{Deserialize, Serialize};

/// The most instances that are remembered of one provider, about 1 MB: the file is written
/// with each change. A part of a list would say of the rest that they are gone.
pub(crate) const MOST_INSTANCES: usize = 10_000;

/// The states in the file. Another one is in transition, as for hosts.
const WORDS: [(InstanceState, &str); 8] = [
    (InstanceState::Creating, "creating"),
    (InstanceState::Running, "running"),
    (InstanceState::Deleting, "deleting"),
    (InstanceState::Deleted, "deleted"),
    (InstanceState::Timeout, "timeout"),
    (InstanceState::Suspending, "suspending"),
    (InstanceState::Suspended, "suspended"),
    (InstanceState::Resuming, "resuming"),
];

/// What is known of a provider that does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remembered {
    /// Nothing before its first start.
    pub(crate) facts: Option<Facts>,
    /// States by id, as it listed them last. Nothing before the first list, and where there
    /// were too many.
    instances: Option<BTreeMap<String, String>>,
}

/// What a provider said of itself in `Init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The configuration that it accepted, see `Underneath::fingerprint`.
    pub(crate) accepted: u64,
    pub(crate) max_size: u32,
    pub(crate) suspends: bool,
}

impl Remembered {
    pub(crate) fn new(facts: Option<Facts>, listed: Option<&[InstanceStatus]>) -> Self {
        let listed = listed.filter(|listed| listed.len() <= MOST_INSTANCES);
        let instances = listed.map(|listed| {
            let there = listed.iter().filter(|one| one.state != InstanceState::Deleted);
            there.map(|one| (one.id.clone(), word(one.state).to_owned())).collect()
        });
        Self { facts, instances }
    }

    /// The last list.
    pub(crate) fn listed(&self) -> Option<Vec<InstanceStatus>> {
        let instances = self.instances.as_ref()?.iter();
        Some(instances.map(|(id, word)| InstanceStatus::new(id, state(word))).collect())
    }
}

fn word(state: InstanceState) -> &'static str {
    WORDS.iter().find(|(it, _)| *it == state).map_or("unknown", |(_, word)| word)
}

fn state(word: &str) -> InstanceState {
    let found = WORDS.iter().find(|(_, it)| *it == word);
    found.map_or(InstanceState::Unknown(-1), |(state, _)| *state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_without_the_gone() {
        let states = WORDS.map(|(state, _)| state).into_iter().chain([InstanceState::Unknown(77)]);
        let listed = states.enumerate();
        let mut listed: Vec<_> =
            listed.map(|(n, state)| InstanceStatus::new(format!("i-{n}"), state)).collect();
        let facts = Some(Facts { accepted: u64::MAX, max_size: 3, suspends: true });
        let kept = Remembered::new(facts, Some(&listed));
        let json = serde_json::to_string(&kept).expect("json");
        let read: Remembered = serde_json::from_str(&json).expect("read");
        assert_eq!(read, kept);
        listed.retain(|one| one.state != InstanceState::Deleted);
        listed.last_mut().expect("one").state = InstanceState::Unknown(-1);
        assert_eq!(read.listed(), Some(listed));
    }

    #[test]
    fn no_list_is_not_an_empty_one_and_of_too_many_none_is_kept() {
        assert_eq!(Remembered::default().listed(), None);
        assert_eq!(Remembered::new(None, Some(&[])).listed(), Some(Vec::new()));
        let one = |n| InstanceStatus::new(format!("i-{n}"), InstanceState::Running);
        let many: Vec<_> = (0..=MOST_INSTANCES).map(one).collect();
        assert_eq!(Remembered::new(None, Some(&many)).listed(), None);
        let listed = Remembered::new(None, Some(&many[1..])).listed();
        assert_eq!(listed.map(|listed| listed.len()), Some(MOST_INSTANCES));
    }
}
