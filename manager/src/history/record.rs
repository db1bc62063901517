//! One line of the history. Words are stable: programs read them.

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) at: jiff::Timestamp,
    /// The `[[runners]]` entry's name.
    pub(crate) runner: String,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// What it was. Reasons are the words of `scheduler::Reason`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The provider was asked for instances.
    Asked { n: u32, reason: String },
    /// It accepted fewer, or none.
    AskFailed { n: u32, accepted: u32, why: String },
    /// Instances are wanted and not asked for.
    HeldBack { wanted: u32, reason: String },
    /// An instance takes jobs, so long after it was first seen.
    InstanceReady { instance: String, after_s: f64 },
    /// It cannot be prepared.
    InstanceUnfit { instance: String, why: String },
    /// Its connection is lost.
    ConnectionLost { instance: String },
    /// It gets no more jobs.
    InstanceDrained { instance: String, reason: String },
    /// An operator took its drain back.
    InstanceKept { instance: String },
    /// The provider was asked to delete it.
    InstanceDeleting { instance: String, reason: String },
    /// The provider does not list it any more.
    InstanceGone { instance: String, wanted: bool, lost_jobs: usize },
    /// The server handed a job out to us.
    JobReceived { job: u64, name: String, project: String },
    /// No slot was free for it.
    JobWaits { job: u64 },
    /// It has a slot.
    JobBound { job: u64, instance: String, slot: u32 },
    /// The slot did not take it.
    SlotFailed { job: u64, instance: String, why: String },
    /// Its agent was told to begin.
    JobBegun { job: u64, instance: String },
    /// A new process goes on with it.
    JobRecovered { job: u64, instance: String },
    /// It ended; for a failure with GitLab's word and our message.
    JobEnded { job: u64, success: bool, reason: String, message: String },
}

impl Event {
    /// The job that it is about.
    pub(crate) fn job(&self) -> Option<u64> {
        match self {
            Self::JobReceived { job, .. }
            | Self::JobWaits { job }
            | Self::JobBound { job, .. }
            | Self::SlotFailed { job, .. }
            | Self::JobBegun { job, .. }
            | Self::JobRecovered { job, .. }
            | Self::JobEnded { job, .. } => Some(*job),
            _ => None,
        }
    }

    /// The instance that it is about.
    pub(crate) fn instance(&self) -> Option<&str> {
        match self {
            Self::InstanceReady { instance, .. }
            | Self::InstanceUnfit { instance, .. }
            | Self::ConnectionLost { instance }
            | Self::InstanceDrained { instance, .. }
            | Self::InstanceKept { instance }
            | Self::InstanceDeleting { instance, .. }
            | Self::InstanceGone { instance, .. }
            | Self::JobBound { instance, .. }
            | Self::SlotFailed { instance, .. }
            | Self::JobBegun { instance, .. }
            | Self::JobRecovered { instance, .. } => Some(instance),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_object() {
        let record = Record {
            at: "2026-11-26T01:02:03Z".parse().expect("a time"),
            runner: "linux".into(),
            event: Event::JobBegun { job: 7, instance: "i-1".into() },
        };
        let line = serde_json::to_string(&record).expect("JSON");
        assert_eq!(
            line,
            r#"{"at":"2026-11-26T01:02:03Z","runner":"linux","event":"job_begun","job":7,"instance":"i-1"}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&line).expect("read"), record);
        assert_eq!((record.event.job(), record.event.instance()), (Some(7), Some("i-1")));
    }
}
