//! One ask for instances: how many may come of it, and until when.

use std::time::Duration;

use crate::plan::Reason;
use crate::time::Moment;

/// A list that begins this long after a call without an answer shows what the call did.
pub(super) const LATE_EFFECT: Duration = Duration::from_secs(60);
/// The same after an error that the plugin told: its cloud may have acted nevertheless, and
/// list it a moment later.
const HEARD_EFFECT: Duration = Duration::from_secs(5);
/// A call is answered within this, or counts as one without an answer.
pub(super) const LONGEST_CALL: Duration = Duration::from_secs(120);

/// Names one ask for instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Instances that the provider was asked for, until all have come or no more can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Its name.
    pub id: AskId,
    /// How many it was for.
    pub asked: u32,
    /// How many may come of it in all: once it was accepted, so many as were.
    pub cap: u32,
    /// When it was sent, if this process did.
    pub sent: Option<Moment>,
    /// When it was sent or restored; once it was accepted, when that was.
    pub at: Moment,
    /// What is known of it.
    pub answer: Answer,
    /// Its instances are of no use any more, for this reason.
    pub doomed: Option<Reason>,
    /// A list could have shown what came of it, and nobody knows whether anything did.
    pub(super) is_late: bool,
    /// Of the instances first seen while it was the newest ask: so many, at least and at
    /// most, came of it or of open ones before it.
    pub(super) least: u32,
    /// See `least`.
    pub(super) most: u32,
}

impl Ask {
    /// When it counts no longer, whatever came of it by then.
    pub fn deadline(&self, boot_deadline: Duration) -> Option<Moment> {
        (self.answer == Answer::Accepted).then_some(self.at.after(boot_deadline))
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.answer, Answer::Unknown { .. })
    }

    /// The provider accepted so many.
    pub(super) fn accepted(&mut self, accepted: u32, now: Moment) {
        self.cap = self.cap.min(accepted);
        self.answer = Answer::Accepted;
        self.at = now;
    }

    /// The call failed.
    pub(super) fn failed(&mut self, failure: AskFailure, now: Moment) {
        let shows_within = match failure {
            AskFailure::NotSent => {
                self.cap = 0;
                Duration::ZERO
            }
            AskFailure::Heard => HEARD_EFFECT,
            AskFailure::Silent => LATE_EFFECT,
        };
        self.answer = Answer::Unknown { truth_after: now.after(shows_within) };
    }

    /// A list that began then is known. Returns whether it tells all that came of the ask.
    pub(super) fn looked_for(&mut self, begun: Moment) -> bool {
        self.is_late |= self.is_unknown() && begun >= self.at.after(HEARD_EFFECT);
        match self.answer {
            Answer::Unknown { truth_after } => begun >= truth_after,
            Answer::Pending | Answer::Accepted => false,
        }
    }
}

/// What the provider said to an ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The call is under way.
    #[default]
    Pending,
    /// It accepted so many as may come.
    Accepted,
    /// It failed or did not answer: what it did shows in a list begun after that moment.
    Unknown {
        /// The list that tells the truth begins no earlier.
        truth_after: Moment,
    },
}

/// What became of an ask that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskFailure {
    /// The provider never heard of it.
    NotSent,
    /// The provider said that it failed.
    Heard,
    /// Nothing is known.
    Silent,
}
