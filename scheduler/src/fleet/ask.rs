//! One ask for instances, from its call to the lists that show what it did.

use std::time::Duration;

use crate::plan::Reason;
use crate::time::Moment;

/// A list that begins this long after a call without an answer shows what the call did.
const LATE_EFFECT: Duration = Duration::from_secs(60);
/// The same after an error that the plugin told: its cloud may have acted nevertheless, and
/// list it a moment later.
const HEARD_EFFECT: Duration = Duration::from_secs(5);

/// Names one ask for instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Instances that the provider was asked for and has not listed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Its name.
    pub id: AskId,
    /// How many it was for.
    pub asked: u32,
    /// How many are still to come, at worst.
    pub outstanding: u32,
    /// When it was sent, if this process did.
    pub sent: Option<Moment>,
    /// When it was sent or restored; once it was accepted, when that was.
    pub at: Moment,
    /// What is known of it.
    pub answer: Answer,
    /// It is doubtful whether anything comes of it, since a list could have shown it, or
    /// what came was taken for another's: it counts as what it may cost, and is not waited
    /// for.
    pub vain: bool,
    /// Its instances are of no use any more, for this reason.
    pub doomed: Option<Reason>,
}

impl Ask {
    /// When it counts no longer, if nothing comes of it by then.
    pub fn deadline(&self, boot_deadline: Duration) -> Option<Moment> {
        (self.answer == Answer::Accepted).then_some(self.at.after(boot_deadline))
    }

    /// Instances that were taken for its own.
    pub(super) fn seen(&self) -> u32 {
        self.asked.saturating_sub(self.outstanding)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.answer, Answer::Unknown { .. })
    }

    /// A list that began then is known.
    pub(super) fn looked_for(&mut self, begun: Moment) {
        self.vain |= self.is_unknown() && begun >= self.at.after(HEARD_EFFECT);
    }

    /// Whether its instances are likely to come and of use.
    pub(super) fn is_promising(&self) -> bool {
        !self.vain && self.doomed.is_none()
    }

    /// What came may have been its own, and was taken for another's.
    pub(super) fn doubt(&mut self) {
        self.vain |= self.answer == Answer::Accepted;
    }
}

/// What the provider said to an ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The call is under way.
    #[default]
    Pending,
    /// It accepted so many as are outstanding.
    Accepted,
    /// It failed or did not answer: what it did shows in a list begun after that moment.
    Unknown {
        /// The list that tells the truth begins no earlier.
        truth_after: Moment,
    },
}

impl Ask {
    /// The provider accepted so many. Returns how many instances of others were taken for
    /// its own while the call was under way.
    pub(super) fn accept(&mut self, accepted: u32, now: Moment) -> u32 {
        let seen = self.seen();
        self.outstanding = self.outstanding.min(accepted.saturating_sub(seen));
        self.answer = Answer::Accepted;
        self.at = now;
        seen.saturating_sub(accepted)
    }
}

/// An instance was seen: of the oldest ask that waits for one, if any does.
pub(super) fn credit(asks: &mut [Ask]) -> Option<&Ask> {
    let ask = asks.iter_mut().find(|ask| ask.outstanding > 0)?;
    ask.outstanding -= 1;
    Some(ask)
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

impl AskFailure {
    /// What is known after such a failure.
    pub(super) fn answer(self, now: Moment) -> Answer {
        let wait = match self {
            Self::NotSent => Duration::ZERO,
            Self::Heard => HEARD_EFFECT,
            Self::Silent => LATE_EFFECT,
        };
        Answer::Unknown { truth_after: now.after(wait) }
    }
}
