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
    /// Of those still to come, so many that perhaps do not: a list could have shown them, or
    /// what came may have been theirs and was taken for others'. They count as what they may
    /// cost, and are not waited for.
    pub doubtful: u32,
    /// How often one of them was doubted for the sake of asks before it, and when last.
    pub doubts: u32,
    /// See `doubts`.
    pub doubted: Moment,
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

    /// Of an ask without effect: for so many an ask after it waits in vain, either because it
    /// took them, or because an ask before it had, and it did not wait for them.
    pub(super) fn owed(&self) -> u32 {
        self.seen() + self.doubts
    }

    /// Whether something of it is still to come, or to be said.
    pub(super) fn is_open(&self) -> bool {
        self.outstanding > 0 || self.answer == Answer::Pending
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.answer, Answer::Unknown { .. })
    }

    /// A list that began then is known.
    pub(super) fn looked_for(&mut self, begun: Moment) {
        if self.is_unknown() && begun >= self.at.after(HEARD_EFFECT) {
            self.doubtful = self.outstanding;
        }
        // Those of an accepted ask that were doubted in vain would have shown by now.
        if self.answer == Answer::Accepted && begun >= self.doubted.after(LATE_EFFECT) {
            self.outstanding -= self.doubtful;
            self.doubtful = 0;
        }
    }

    /// How many are likely to come.
    pub fn expected(&self) -> u32 {
        self.outstanding.saturating_sub(self.doubtful)
    }

    /// How many are likely to come and of use.
    pub(super) fn promising(&self) -> u32 {
        if self.doomed.is_none() { self.expected() } else { 0 }
    }

    /// One of it less is to come.
    fn came(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.doubtful = self.doubtful.min(self.outstanding);
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
    /// The provider accepted so many. Returns for how many asks after it wait in vain: more
    /// were taken for its own, or doubted, than it ever has.
    pub(super) fn accept(&mut self, accepted: u32, now: Moment) -> u32 {
        let (seen, owed) = (self.seen(), self.owed());
        self.outstanding = self.outstanding.min(accepted.saturating_sub(seen));
        self.doubtful = self.doubtful.min(self.outstanding);
        self.answer = Answer::Accepted;
        self.at = now;
        owed.saturating_sub(accepted)
    }
}

/// An instance was seen: of the oldest ask that waits for one; else of the oldest of which
/// it is doubtful that more comes. Otherwise what one call took of another would go on from
/// ask to ask, and the last would wait for nothing.
pub(super) fn credit(asks: &mut [Ask]) -> Option<&Ask> {
    let waits = asks.iter().position(|ask| ask.expected() > 0);
    let ask = asks.get_mut(waits.or_else(|| asks.iter().position(|ask| ask.outstanding > 0))?)?;
    ask.came();
    Some(ask)
}

/// So many that are waited for came perhaps, and were not taken for theirs. Returns how many
/// are not waited for any more.
pub(super) fn doubt<'a>(asks: impl Iterator<Item = &'a mut Ask>, n: u32, now: Moment) -> u32 {
    let mut left = n;
    for ask in asks.filter(|ask| !ask.is_unknown()) {
        let doubted = left.min(ask.expected());
        if doubted > 0 {
            ask.doubtful += doubted;
            ask.doubts += doubted;
            ask.doubted = now;
            left -= doubted;
        }
    }
    n - left
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
