//! What a run tells its caller, live and when asked.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::coordinator::run::{JobOutcome, JobState, PipelineOutcome};

/// Something that happened. Jobs are told apart by their place in `Pipeline::jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// When.
    #[serde(serialize_with = "as_text")]
    pub(crate) at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub(crate) kind: EventKind,
}

/// The closed set of things that happen. A job is queued, taken, running and finished in this
/// order, each at most once; one that is skipped or canceled early is only finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum EventKind {
    /// A runner may take the job.
    JobQueued {
        /// Which.
        job: usize,
    },
    /// A runner has taken the job.
    JobTaken {
        /// Which.
        job: usize,
    },
    /// The job's runner has spoken for the first time.
    JobRunning {
        /// Which.
        job: usize,
    },
    /// The job's log has grown; the bytes are in its file.
    TraceAppended {
        /// Which.
        job: usize,
        /// Where the new bytes begin.
        offset: u64,
        /// How many there are.
        len: u64,
    },
    /// The job's log did not arrive intact; its file is empty and filled again from the start.
    TraceReset {
        /// Which.
        job: usize,
    },
    /// The job has ended. No more of its log follows.
    JobFinished {
        /// Which.
        job: usize,
        /// How.
        outcome: JobOutcome,
        /// Of its script, when the runner gave one.
        exit_code: Option<i32>,
        /// GitLab's word for why it failed.
        failure_reason: Option<String>,
    },
    /// All jobs have ended. No more events follow.
    PipelineFinished {
        /// How.
        outcome: PipelineOutcome,
    },
}

/// Where a job stands, for those who ask instead of listening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JobStatus {
    /// Its name.
    pub(crate) name: String,
    /// Its stage.
    pub(crate) stage: String,
    /// Its state.
    pub(crate) state: JobState,
    /// When it got where.
    pub(crate) times: JobTimes,
    /// Of its script, when the runner gave one.
    pub(crate) exit_code: Option<i32>,
    /// GitLab's word for why it failed.
    pub(crate) failure_reason: Option<String>,
}

/// When a job got where; absent what has not happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct JobTimes {
    /// A runner might take it.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) queued: Option<Timestamp>,
    /// A runner took it.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) taken: Option<Timestamp>,
    /// The first byte of its log arrived.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) first_byte: Option<Timestamp>,
    /// It ended.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) finished: Option<Timestamp>,
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn as_optional_text<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}
