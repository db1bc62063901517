//! What happened to a job, in order and with the time.

use std::fmt;
use std::time::{Duration, Instant};

use super::JobId;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No runner has it.
    Queued,
    /// A runner got it, and has not said so yet.
    HandedOut,
    /// A runner said that it runs.
    Running,
    /// It succeeded.
    Success,
    /// It failed.
    Failed,
    /// It was canceled.
    Canceled,
}

impl State {
    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Canceled)
    }

    /// GitLab's word for it.
    pub(super) fn as_gitlab(self) -> &'static str {
        match self {
            Self::Queued => "pending",
            Self::HandedOut | Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// One thing that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It came into the queue.
    Queued,
    /// It was sent to a runner.
    HandedOut,
    /// The runner said for the first time that it runs.
    Acknowledged,
    /// The runner said again that it runs.
    Touched,
    /// Bytes of the log, from and to these offsets.
    Patched(u64, u64),
    /// Log bytes that do not follow those that are there: sent from, wanted from.
    RangeRefused(u64, u64),
    /// A final state whose checksum or size is not that of the log.
    LogDiffers,
    /// Someone asked to cancel it.
    CancelAsked,
    /// It was canceled without the runner being asked.
    Dropped,
    /// An archive was stored.
    Uploaded(usize),
    /// An archive of it was downloaded.
    Downloaded,
    /// A runner said something with a wrong token, or after the end.
    Forbidden(&'static str),
    /// It ended.
    Ended,
}

/// A job's whole story.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The job.
    pub job: JobId,
    /// Where it stands.
    pub state: State,
    /// GitLab's word for why it failed.
    pub failure_reason: Option<String>,
    /// Exit code of the script, where the runner told one.
    pub exit_code: Option<i64>,
    /// What happened, and when.
    pub events: Vec<(Instant, Event)>,
}

impl Audit {
    pub(super) fn new(job: JobId, now: Instant) -> Self {
        Self {
            job,
            state: State::Queued,
            failure_reason: None,
            exit_code: None,
            events: vec![(now, Event::Queued)],
        }
    }

    /// When something happened for the first time.
    pub fn first(&self, is_it: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, event)| is_it(event)).map(|(at, _)| *at)
    }

    /// How often something happened.
    pub fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| is_it(event)).count()
    }

    /// When it came into the queue.
    pub fn queued(&self) -> Instant {
        self.events[0].0
    }

    /// When a runner got it for the first time.
    pub fn handed_out(&self) -> Option<Instant> {
        self.first(|event| *event == Event::HandedOut)
    }

    /// When a runner said that it runs.
    pub fn acknowledged(&self) -> Option<Instant> {
        self.first(|event| *event == Event::Acknowledged)
    }

    /// When the first bytes of the log came.
    pub fn first_byte(&self) -> Option<Instant> {
        self.first(|event| matches!(event, Event::Patched(..)))
    }

    /// When it ended.
    pub fn ended(&self) -> Option<Instant> {
        self.first(|event| *event == Event::Ended)
    }

    /// From the queue to the end.
    pub fn took(&self) -> Option<Duration> {
        self.ended().map(|end| end - self.queued())
    }

    /// Whether it is, or was, in this state.
    pub fn reached(&self, state: State) -> bool {
        self.state == state
            || match state {
                State::Queued => true,
                State::HandedOut => self.handed_out().is_some(),
                State::Running => self.acknowledged().is_some(),
                _ => false,
            }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} is {:?}", self.job.0, self.state)?;
        if let Some(reason) = &self.failure_reason {
            write!(f, " ({reason}, exit code {:?})", self.exit_code)?;
        }
        for (at, event) in &self.events {
            let since = (*at - self.queued()).as_secs_f64();
            write!(f, "\n  {since:9.3} s  {event:?}")?;
        }
        Ok(())
    }
}
