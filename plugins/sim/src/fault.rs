//! What goes wrong with calls: rules that the operator wrote, and when they hold. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chance;
use crate::config::MAX_SIZE_LIMIT;
use crate::wait::duration;

/// A call of the fleeting protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    Init,
    List,
    Create,
    Delete,
    ConnectInfo,
    Heartbeat,
    Suspend,
    Resume,
}

impl Call {
    /// The word in configuration and ledger.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::List => "list",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::ConnectInfo => "connect_info",
            Self::Heartbeat => "heartbeat",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The call fails, `by` late, with `message` or with the one of `reason`.
    Error,
    /// It is never answered.
    Hang,
    /// It is answered `by` late.
    Slow,
    /// The plugin ends in the middle of it.
    Crash,
    /// create, delete: only `take` of those asked for are accepted.
    Partial,
    /// create: it fails, and the instances come into being `by` later.
    Late,
    /// create: ids of instances that are gone are given out again.
    ReuseId,
    /// delete: it succeeds, and the instances run on for `by`.
    Stay,
    /// list: `take` instances are missing.
    Omit,
    /// list: every instance is listed twice.
    Duplicate,
    /// list: `take` instances are listed that do not exist.
    Unknown,
    /// list: instances that are deleted are listed as running.
    DeletedRunning,
    /// list: instances that were killed are listed as running.
    DeadRunning,
    /// connect_info: the answer has no address.
    NoAddress,
    /// connect_info: the answer is of a Windows machine.
    #[serde(rename = "winrm")]
    WinRm,
}

impl Kind {
    /// Calls that it fits; empty is every call.
    fn calls(self) -> &'static [Call] {
        match self {
            Self::Error | Self::Hang | Self::Slow | Self::Crash => &[],
            Self::Partial => &[Call::Create, Call::Delete],
            Self::Late | Self::ReuseId => &[Call::Create],
            Self::Stay => &[Call::Delete],
            Self::Omit
            | Self::Duplicate
            | Self::Unknown
            | Self::DeletedRunning
            | Self::DeadRunning => &[Call::List],
            Self::NoAddress | Self::WinRm => &[Call::ConnectInfo],
        }
    }

    /// Whether it changes a list instead of the call.
    pub(crate) fn is_lie(self) -> bool {
        self.calls() == [Call::List]
    }

    /// The word in configuration and ledger.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Hang => "hang",
            Self::Slow => "slow",
            Self::Crash => "crash",
            Self::Partial => "partial",
            Self::Late => "late",
            Self::ReuseId => "reuse_id",
            Self::Stay => "stay",
            Self::Omit => "omit",
            Self::Duplicate => "duplicate",
            Self::Unknown => "unknown",
            Self::DeletedRunning => "deleted_running",
            Self::DeadRunning => "dead_running",
            Self::NoAddress => "no_address",
            Self::WinRm => "winrm",
        }
    }
}

/// On which side of the call's effect it strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    /// Nothing was done yet.
    #[default]
    Before,
    /// Everything was done, or as much as `take` says.
    After,
}

/// Why a provider refuses, in the words of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    #[default]
    Internal,
    Capacity,
    Throttling,
    Quota,
}

impl Refusal {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Internal => "InternalError: the provider failed, try again",
            Self::Capacity => "InsufficientInstanceCapacity: none of this type is to be had now",
            Self::Throttling => "Throttling: Rate exceeded",
            Self::Quota => "InstanceLimitExceeded: the quota of instances is used up",
        }
    }
}

/// One entry of `faults`: what happens to which calls. Every condition that is written
/// must hold; without one it happens to each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) call: Call,
    pub(crate) kind: Kind,
    /// Only this one, counted from 1 since the group's birth.
    nth: Option<u64>,
    /// Each one of so many.
    every: Option<u64>,
    /// From so many seconds after the group's birth.
    from: Option<f64>,
    /// Until so many seconds after the group's birth.
    until: Option<f64>,
    /// 0 to 1.
    probability: Option<f64>,
    #[serde(default)]
    pub(crate) when: When,
    /// How many of those asked for, or listed, it concerns.
    pub(crate) take: Option<u32>,
    by: Option<Value>,
    #[serde(default)]
    reason: Refusal,
    message: Option<String>,
}

impl Rule {
    /// An error names the entry by its place.
    pub(crate) fn check(&self, place: usize) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("faults[{place}]: {what}"));
        let (kind, calls) = (self.kind.as_str(), self.kind.calls());
        if !calls.is_empty() && !calls.contains(&self.call) {
            let calls: Vec<&str> = calls.iter().map(|call| call.as_str()).collect();
            let calls = calls.join("\" or \"");
            return wrong(&format!("kind = {kind:?} is for call = \"{calls}\" only"));
        }
        let needs_by = matches!(self.kind, Kind::Slow | Kind::Late | Kind::Stay);
        if needs_by && self.by.is_none() {
            return wrong(&format!("kind = {kind:?} needs by = a duration such as \"2s\""));
        }
        if let Some(by) = &self.by
            && duration(by).is_none()
        {
            return wrong(&format!("by = {by}: must be a duration such as \"2s\""));
        }
        if self.kind == Kind::Partial && self.take.is_none() {
            return wrong("kind = \"partial\" needs take = how many are accepted");
        }
        if self.take.is_some_and(|take| take > MAX_SIZE_LIMIT) {
            return wrong(&format!("take must be at most {MAX_SIZE_LIMIT}"));
        }
        if self.nth == Some(0) || self.every == Some(0) {
            return wrong("nth and every count from 1");
        }
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return wrong("probability must be from 0 to 1");
        }
        Ok(())
    }

    /// Whether it strikes the call of this count at this age of the group. Chance differs
    /// by `seed`: each entry has its own.
    pub(crate) fn strikes(&self, call: Call, count: u64, age: Duration, seed: u64) -> bool {
        let age_s = age.as_secs_f64();
        self.call == call
            && self.nth.is_none_or(|nth| nth == count)
            && self.every.is_none_or(|every| count.is_multiple_of(every))
            && self.from.is_none_or(|from| age_s >= from)
            && self.until.is_none_or(|until| age_s < until)
            && self.probability.is_none_or(|p| chance::fraction(seed, call.as_str(), count) < p)
    }

    /// Its `by`, or zero.
    pub(crate) fn by(&self) -> Duration {
        self.by.as_ref().and_then(duration).unwrap_or_default()
    }

    /// What a call that it fails says.
    pub(crate) fn message(&self) -> String {
        self.message.clone().unwrap_or_else(|| self.reason.message().to_owned())
    }

    /// How many of `asked` have an effect.
    pub(crate) fn taken(&self, asked: u32) -> u32 {
        self.take.map_or(asked, |take| take.min(asked))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: Value) -> Rule {
        serde_json::from_value(value).expect("a rule")
    }

    fn struck(value: Value, age_s: u64) -> Vec<u64> {
        let rule = rule(value);
        let age = Duration::from_secs(age_s);
        (1..=10).filter(|count| rule.strikes(Call::Create, *count, age, 1)).collect()
    }

    #[test]
    fn every_condition_must_hold() {
        let at = |more: Value| {
            let mut all = json!({"call": "create", "kind": "error"});
            all.as_object_mut().expect("a table").extend(more.as_object().expect("one").clone());
            all
        };
        assert_eq!(struck(at(json!({})), 0).len(), 10);
        assert_eq!(struck(at(json!({"nth": 3})), 0), [3]);
        assert_eq!(struck(at(json!({"every": 4})), 0), [4, 8]);
        assert_eq!(struck(at(json!({"every": 4, "from": 5})), 4), [0u64; 0]);
        assert_eq!(struck(at(json!({"every": 4, "from": 5})), 5), [4, 8]);
        assert_eq!(struck(at(json!({"until": 5})), 5), [0u64; 0]);
        let by_chance = struck(at(json!({"probability": 0.5})), 0);
        assert!((1..10).contains(&by_chance.len()), "{by_chance:?}");
        assert_eq!(struck(json!({"call": "list", "kind": "error"}), 0), [0u64; 0]);
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused() {
        for (value, part) in [
            (json!({"call": "create", "kind": "omit"}), "call = \"list\""),
            (json!({"call": "list", "kind": "slow"}), "needs by"),
            (json!({"call": "list", "kind": "slow", "by": "soon"}), "by = \"soon\""),
            (json!({"call": "create", "kind": "partial"}), "needs take"),
            (json!({"call": "create", "kind": "error", "nth": 0}), "from 1"),
            (json!({"call": "list", "kind": "unknown", "take": 4_000_000_000u32}), "at most"),
            (json!({"call": "create", "kind": "error", "probability": 2}), "0 to 1"),
        ] {
            let refused = rule(value).check(4).expect_err(part);
            assert!(refused.starts_with("faults[4]: ") && refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn words_are_those_of_the_configuration() {
        for kind in [Kind::ReuseId, Kind::DeletedRunning, Kind::NoAddress, Kind::WinRm] {
            assert_eq!(serde_json::to_value(kind).expect("a word"), kind.as_str());
        }
        assert_eq!(serde_json::to_value(Call::ConnectInfo).expect("a word"), "connect_info");
    }
}
