//! What is kept, in JSON: readable by people, and by newer builds that know more fields.

use serde::{Deserialize, Serialize};

use crate::connect::Remembered;

/// A job that was handed out to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub(crate) job: u64,
    /// The job's own token: its log is sent with it.
    pub(crate) token: String,
    /// Name of its directory on the instance.
    pub(crate) job_key: String,
    /// Empty while it waits for one.
    pub(crate) instance: String,
    pub(crate) slot: u32,
    /// Failure reasons that the server knows.
    pub(crate) failure_reasons: Vec<String>,
    /// When it must have ended, in seconds of the wall clock; 0 where nobody knows.
    #[serde(default)]
    pub(crate) overdue_s: u64,
    /// `CI_DEBUG_TRACE` is on.
    #[serde(default)]
    pub(crate) debug_trace: bool,
}

/// An instance of ours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    /// Jobs that began on it.
    pub(crate) uses: u32,
    /// What a preparation learned.
    pub(crate) remembered: Remembered,
}

/// Instances that the provider was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AskRecord {
    pub(crate) n: u32,
}
