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
    /// How long its agent is without a manager before it tells the server by itself; 0 is
    /// never.
    #[serde(default)]
    pub(crate) alone_after_ms: u64,
    /// `CI_DEBUG_TRACE` is on.
    #[serde(default)]
    pub(crate) debug_trace: bool,
    /// How it ended without its agent, until the server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<LostRecord>,
}

/// Why a job was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostRecord {
    /// Number of `FailureReason`.
    pub(crate) reason: i32,
    pub(crate) message: String,
}

/// An instance of ours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    /// Jobs that began on it.
    pub(crate) uses: u32,
    /// What a preparation learned.
    pub(crate) remembered: Remembered,
    /// Why it is to get no more jobs; empty where it may.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) doomed: String,
    /// Jobs of someone else were seen on it, or nobody knows whose it is: a later process
    /// must ask it for jobs before it goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) strange: bool,
}

/// An instance group, with what a later process needs to drain it when its entry is gone
/// or makes other instances. The template's text holds the secrets of the configuration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    /// Key of the `[[runners]]` entry.
    pub(crate) runner: String,
    pub(crate) name: String,
    pub(crate) url: String,
    /// PEM.
    pub(crate) ca_certificates: String,
    /// The plugin's name of the group.
    pub(crate) provider_id: String,
    /// See `config::Template`.
    pub(crate) template: String,
    /// It only drains.
    pub(crate) retired: bool,
}

/// How long the last instances of a group took to come up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootsRecord {
    /// The oldest first.
    pub(crate) millis: Vec<u64>,
}

/// Instances that the provider was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AskRecord {
    pub(crate) n: u32,
    /// Why what comes of it is of no use any more; empty where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) doomed: String,
}
