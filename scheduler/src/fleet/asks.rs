//! The open asks, and how many of the instances that were seen since came of them.
//!
//! Nobody can tell of which call an instance came. So it is counted how many of them came of
//! the open asks at least, for what may cost money, and at most, for what is waited for; by
//! the ask that was the newest when they were first seen, for they came of none after it. An
//! ask that goes takes with it what may have been its: no guess has to be taken back.
//!
//! Invariant: of the oldest asks, however many, no more came at least than at most, and no
//! more at most than may come of them. Deliberately absent: which instance came of which ask.

use std::time::Duration;

use super::ask::{Answer, Ask, AskFailure, AskId, LATE_EFFECT, LONGEST_CALL};
use crate::plan::Reason;
use crate::time::Moment;

/// Asks of which instances may be to come, or an answer is; the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    open: Vec<Ask>,
    /// A list that begins then and shows no more shows that what came perhaps did: what would
    /// be missing otherwise would have come. That may be wrong only if the asks after those
    /// have overlapped all the time: nothing would ever be sure, and too little be made.
    sure_at: Moment,
    /// How long the instances of an accepted ask may take.
    boot_deadline: Duration,
}

impl Asks {
    pub(super) fn open(&self) -> &[Ask] {
        &self.open
    }

    /// How many are still to come, at worst.
    pub(super) fn outstanding(&self) -> u32 {
        let (caps, least) =
            self.open.iter().fold((0, 0), |(caps, least), ask| (caps + ask.cap, least + ask.least));
        caps - least
    }

    /// How many are likely to come, by ask, the newest first: what came is taken for the
    /// oldest's. What a call without an answer did is waited for until a list could have
    /// shown it.
    pub(super) fn expected(&self) -> impl Iterator<Item = (&Ask, u32)> {
        let (mut caps, mut seen) = (0, 0);
        for ask in &self.open {
            caps += if ask.is_late { 0 } else { ask.cap };
            seen = caps.min(seen + ask.most);
        }
        let mut left = caps - seen;
        self.open.iter().rev().filter(|ask| !ask.is_late).map(move |ask| {
            let expected = left.min(ask.cap);
            left -= expected;
            (ask, expected)
        })
    }

    pub(super) fn expected_of(&self, id: AskId) -> u32 {
        self.expected().find(|(ask, _)| ask.id == id).map_or(0, |(_, expected)| expected)
    }

    pub(super) fn doom(&mut self, reason: Reason) {
        self.open.iter_mut().for_each(|ask| ask.doomed = Some(reason));
    }

    pub(super) fn sent(&mut self, ask: Ask, boot_deadline: Duration) {
        self.boot_deadline = boot_deadline;
        self.open.push(ask);
    }

    /// An ask of before this process.
    pub(super) fn restored(&mut self, ask: Ask) {
        self.open.push(ask);
    }

    /// The provider accepted so many. Returns how many it was asked for.
    pub(super) fn accepted(&mut self, id: AskId, accepted: u32, now: Moment) -> Option<u32> {
        self.answered(id, |ask| ask.accepted(accepted, now))
    }

    pub(super) fn failed(&mut self, id: AskId, failure: AskFailure, now: Moment) {
        self.answered(id, |ask| ask.failed(failure, now));
    }

    fn answered(&mut self, id: AskId, answer: impl FnOnce(&mut Ask)) -> Option<u32> {
        let place = self.open.iter().position(|ask| ask.id == id)?;
        let ask = &mut self.open[place];
        answer(ask);
        let (asked, may_come) = (ask.asked, ask.cap > 0);
        if !may_come {
            self.remove(place);
        }
        self.close();
        Some(asked)
    }

    /// An instance is new. Returns the ask that it is taken for, unless nothing was to come.
    pub(super) fn came(&mut self) -> Option<Ask> {
        if self.outstanding() == 0 {
            return None;
        }
        let awaited = self.expected().filter(|(_, expected)| *expected > 0).last();
        let ask = awaited.map(|(ask, _)| ask).or(self.open.first()).cloned();
        self.seen(1);
        ask
    }

    /// An instance is new that may be of before, or of an ask that is settled. Returns
    /// whether one less is waited for by that.
    pub(super) fn came_perhaps(&mut self, now: Moment) -> bool {
        let expected = |asks: &Self| asks.expected().map(|(_, expected)| expected).sum::<u32>();
        let (before, unsure) = (expected(self), self.unsure());
        self.seen(0);
        self.doubt(unsure, now.after(LATE_EFFECT));
        expected(self) < before
    }

    fn seen(&mut self, least: u32) {
        if let Some(newest) = self.open.last_mut() {
            newest.least += least;
            newest.most += 1;
        }
        self.close();
    }

    /// A list that began then is known: asks of which it tells the truth count no longer.
    pub(super) fn listed(&mut self, begun: Moment, now: Moment) {
        let unsure = self.unsure();
        for place in (0..self.open.len()).rev() {
            if self.open[place].looked_for(begun) {
                self.remove(place);
            }
        }
        self.doubt(unsure, now.after(LONGEST_CALL + self.boot_deadline));
        if begun >= self.sure_at {
            self.open.iter_mut().for_each(|ask| ask.least = ask.most);
        }
        self.close();
    }

    /// How many came perhaps and not surely.
    fn unsure(&self) -> u32 {
        self.open.iter().map(|ask| ask.most).sum::<u32>()
            - self.open.iter().map(|ask| ask.least).sum::<u32>()
    }

    /// If more are unsure than before, all are until then.
    fn doubt(&mut self, before: u32, until: Moment) {
        if self.unsure() > before {
            self.sure_at = if before == 0 { until } else { self.sure_at.max(until) };
        }
    }

    /// Nothing that was accepted and has not come by now comes any more.
    pub(super) fn given_up(&mut self, id: AskId) {
        if let Some(place) = self.open.iter().position(|ask| ask.id == id) {
            self.remove(place);
            self.close();
        }
    }

    /// Nothing more comes of that ask. At worst all that may come of it were its, the first
    /// that were seen since it was sent, and those of others are still to come. Whether it
    /// was so is not known of one without an answer: nothing is waited for by that.
    fn remove(&mut self, place: usize) {
        let cap = self.open[place].cap;
        let (mut least, mut most) = (cap, if self.open[place].is_unknown() { 0 } else { cap });
        for ask in &mut self.open[place..] {
            take(&mut ask.least, &mut least);
            take(&mut ask.most, &mut most);
        }
        let gone = self.open.remove(place);
        // What else was seen while it was the newest came of those before it.
        if let Some(before) = place.checked_sub(1).and_then(|place| self.open.get_mut(place)) {
            before.least += gone.least;
            before.most += gone.most;
        }
        self.clamp();
    }

    /// No more came of the oldest asks, however many, than may come of them.
    fn clamp(&mut self) {
        let (mut caps, mut least, mut most) = (0, 0, 0);
        for ask in &mut self.open {
            caps += ask.cap;
            let up_to = caps.min(most + ask.most);
            ask.most = up_to - most;
            most = up_to;
            let up_to = most.min(least + ask.least);
            ask.least = up_to - least;
            least = up_to;
        }
    }

    /// Asks of which all has come are open no longer.
    fn close(&mut self) {
        self.clamp();
        let (mut missing, mut whole) = (0, 0);
        for (place, ask) in self.open.iter().enumerate() {
            if ask.answer == Answer::Pending {
                break;
            }
            missing = missing + ask.cap - ask.least;
            if missing == 0 {
                whole = place + 1;
            }
        }
        self.open.drain(..whole);
        while let Some(place) = self.served() {
            let until = self.open[place].at;
            self.remove(place);
            // Its own may be among those that are still to come of the others.
            for ask in self.open.iter_mut().filter(|ask| ask.answer == Answer::Accepted) {
                ask.at = ask.at.max(until);
            }
        }
    }

    /// Where the oldest accepted ask is, if so many came as it made: beside all that may have
    /// come of asks that were not accepted.
    fn served(&self) -> Option<usize> {
        let is_accepted = |ask: &Ask| ask.answer == Answer::Accepted;
        let oldest = self.open.iter().position(is_accepted)?;
        let (mut came, mut needed) = (0, self.open[oldest].cap);
        let mut seen_while_newest = self.open.iter().enumerate().map(|(place, ask)| {
            came += ask.least;
            needed += if is_accepted(ask) { 0 } else { ask.cap };
            place >= oldest && came >= needed
        });
        seen_while_newest.any(|is_served| is_served).then_some(oldest)
    }
}

fn take(from: &mut u32, wanted: &mut u32) {
    let taken = (*from).min(*wanted);
    *from -= taken;
    *wanted -= taken;
}
