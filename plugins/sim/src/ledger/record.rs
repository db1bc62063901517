//! One line of the ledger. Words are stable: programs read them.

use serde::{Deserialize, Serialize};

use super::Sums;
use crate::facts::Step;
use crate::fault::{Call, Kind};

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) entry: Entry,
}

/// What it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A plugin took the group over.
    Opened { quota: Option<u32> },
    /// A call was made.
    Call(CallRecord),
    /// An instance went on.
    Step { instance: String, number: u64, step: Step },
    /// The sums of everything before.
    Carry { sums: Sums },
}

/// A call, what it asked for and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallRecord {
    pub(crate) call: Call,
    /// Instances it asked for or named.
    pub(crate) asked: u32,
    /// Those that it had an effect on.
    pub(crate) done: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What was made to go wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) faults: Vec<Kind>,
}
