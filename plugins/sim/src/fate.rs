//! What becomes of single instances: rules that the operator wrote. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::chance;
use crate::wait::duration;

/// What happens to an instance by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FateKind {
    /// Its boot never finishes.
    NeverBoots,
    /// `after` its creation the provider gives up on it.
    Timeout,
    /// It dies `after` its boot.
    Kill,
    /// `after` its boot it is told that it will be taken away, and is, `notice` later.
    Interrupt,
}

/// One entry of `fates`. Every condition that is written must hold; without one it
/// happens to each instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fate {
    pub(crate) kind: FateKind,
    /// Only those of these numbers, counted from 1 since the group's birth.
    instances: Option<Vec<u64>>,
    /// Each one of so many.
    every: Option<u64>,
    /// 0 to 1.
    probability: Option<f64>,
    after: Option<Value>,
    notice: Option<Value>,
}

impl Fate {
    /// An error names the entry by its place.
    pub(crate) fn check(&self, place: usize) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("fates[{place}]: {what}"));
        for (key, value) in [("after", &self.after), ("notice", &self.notice)] {
            if let Some(value) = value
                && duration(value).is_none()
            {
                return wrong(&format!("{key} = {value}: must be a duration such as \"2s\""));
            }
        }
        if self.notice.is_some() && self.kind != FateKind::Interrupt {
            return wrong("notice is for kind = \"interrupt\" only");
        }
        if self.every == Some(0) {
            return wrong("every counts from 1");
        }
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return wrong("probability must be from 0 to 1");
        }
        Ok(())
    }

    /// Whether it is the fate of the instance of this number.
    pub(crate) fn meets(&self, number: u64, seed: u64) -> bool {
        self.instances.as_ref().is_none_or(|numbers| numbers.contains(&number))
            && self.every.is_none_or(|every| number.is_multiple_of(every))
            && self.probability.is_none_or(|p| chance::fraction(seed, "fate", number) < p)
    }

    /// Its `after`, or zero.
    pub(crate) fn after(&self) -> Duration {
        self.after.as_ref().and_then(duration).unwrap_or_default()
    }

    /// Its `notice`, or zero.
    pub(crate) fn notice(&self) -> Duration {
        self.notice.as_ref().and_then(duration).unwrap_or_default()
    }
}
