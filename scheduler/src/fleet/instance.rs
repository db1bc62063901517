//! One instance: its phase, what the provider says of it, and the jobs on its slots.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Ask, Gone, InstanceId, Known, Origin, Phase, Seen};
use crate::limits::Limits;
use crate::plan::Reason;
use crate::time::Moment;

/// Proof that an instance holds no job. Only the fleet makes it, and only such an
/// instance can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacant(InstanceId);

impl Vacant {
    /// Which instance.
    pub fn id(&self) -> &InstanceId {
        &self.0
    }
}

/// One instance.
#[derive(Clone, Debug)]
pub struct Instance {
    id: InstanceId,
    origin: Origin,
    phase: Phase,
    phase_since: Moment,
    known_since: Moment,
    /// When it was asked for, if this process did.
    asked_at: Option<Moment>,
    was_ready: bool,
    /// Its jobs are of before this process, which has not tried to connect to it yet.
    is_cut_off: bool,
    ready_at: Moment,
    idle_since: Moment,
    slots: BTreeSet<u32>,
    uses: u32,
    drain_reason: Option<Reason>,
    /// Since when the provider says that it gave up on it, while it may run jobs that we do
    /// not know.
    given_up_since: Option<Moment>,
    /// It is to be drained for this as soon as its jobs can be followed.
    doomed: Option<Reason>,
    /// Since when the connection of a draining one is lost; `None` while it is up, and once
    /// it was given up.
    lost_since: Option<Moment>,
    /// When the delete call was sent last, and whether it was accepted.
    delete: Option<(Moment, bool)>,
    misses: u32,
    missing_since: Option<Moment>,
}

impl Instance {
    pub(super) fn new(id: InstanceId, origin: Origin, now: Moment) -> Self {
        Self {
            id,
            origin,
            phase: Phase::Creating,
            phase_since: now,
            known_since: now,
            asked_at: None,
            was_ready: false,
            is_cut_off: false,
            ready_at: now,
            idle_since: now,
            slots: BTreeSet::new(),
            uses: 0,
            drain_reason: None,
            given_up_since: None,
            doomed: None,
            lost_since: None,
            delete: None,
            misses: 0,
            missing_since: None,
        }
    }

    /// The provider's id.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when it stands there.
    pub fn phase_since(&self) -> Moment {
        self.phase_since
    }

    /// When it was first seen.
    pub fn known_since(&self) -> Moment {
        self.known_since
    }

    /// When it was asked for, if we did.
    pub fn asked_at(&self) -> Option<Moment> {
        self.asked_at
    }

    /// Whether it was ready before.
    pub fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// Whether jobs of before this process wait for its first connection.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Whether jobs that nothing is known of may run on it: its preparation will tell.
    pub fn may_be_busy(&self) -> bool {
        let is_strange = matches!(self.origin, Origin::Unrecorded | Origin::Unexpected);
        is_strange && !self.was_ready && self.phase < Phase::Draining
    }

    /// Since when the provider says that it gave up on it, of one that may be busy.
    pub fn given_up_since(&self) -> Option<Moment> {
        self.given_up_since.filter(|_| self.may_be_busy())
    }

    /// When it first became ready.
    pub fn ready_at(&self) -> Moment {
        self.ready_at
    }

    /// Since when it runs no job.
    pub fn idle_since(&self) -> Moment {
        self.idle_since
    }

    /// Jobs that began on it.
    pub fn uses(&self) -> u32 {
        self.uses
    }

    /// Jobs on it now.
    pub fn acquired(&self) -> u32 {
        super::count(self.slots.len())
    }

    /// Slots that run jobs now.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().copied()
    }

    /// Why it takes no more jobs.
    pub fn drain_reason(&self) -> Option<Reason> {
        self.drain_reason
    }

    /// Why it is of no use any more, whether or not it drains yet.
    pub fn doomed(&self) -> Option<Reason> {
        self.doomed
    }

    /// Why it is to be drained, once that disturbs no job.
    pub fn due_to_drain(&self) -> Option<Reason> {
        self.doomed.filter(|_| self.phase < Phase::Draining && !self.may_be_busy())
    }

    /// Since when the connection of a draining one is lost, unless it was given up.
    pub fn lost_since(&self) -> Option<Moment> {
        self.lost_since
    }

    /// When the delete call was sent last, and whether it was accepted.
    pub fn delete_call(&self) -> Option<(Moment, bool)> {
        self.delete
    }

    /// Jobs that may still begin on it, whatever its phase.
    pub fn uses_left(&self, limits: &Limits) -> u32 {
        match limits.max_use_count {
            0 => u32::MAX,
            max => max.saturating_sub(self.uses),
        }
    }

    /// Free slots for jobs now.
    pub fn free(&self, limits: &Limits) -> u32 {
        if self.phase == Phase::Ready { self.vacancies(limits) } else { 0 }
    }

    /// Slots that it will have once it is ready.
    pub fn coming(&self, limits: &Limits) -> u32 {
        match self.phase {
            Phase::Creating | Phase::Running | Phase::Preparing => self.vacancies(limits),
            Phase::Ready | Phase::Draining | Phase::Deleting => 0,
        }
    }

    fn vacancies(&self, limits: &Limits) -> u32 {
        // What nobody recorded is drained as soon as it is known to run no job.
        let is_of_use = self.doomed.is_none() && self.origin != Origin::Unrecorded;
        let slots = if is_of_use { limits.capacity } else { 0 };
        slots.saturating_sub(self.acquired()).min(self.uses_left(limits))
    }

    pub(super) fn vacant(&self) -> Option<Vacant> {
        self.slots.is_empty().then(|| Vacant(self.id.clone()))
    }

    pub(super) fn restore(&mut self, known: Known) {
        self.uses = known.uses;
        self.was_ready = known.was_ready;
        self.slots.extend(known.slots);
        self.is_cut_off = !self.slots.is_empty();
        self.doomed = known.doomed;
    }

    /// It is one of those that were asked for there.
    pub(super) fn came_of(&mut self, ask: &Ask) {
        self.asked_at = ask.sent;
        self.doomed = ask.doomed;
    }

    pub(super) fn doom(&mut self, reason: Reason) {
        self.doomed.get_or_insert(reason);
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Moment) {
        if self.phase != phase {
            self.phase = phase;
            self.phase_since = now;
        }
    }

    pub(super) fn saw(&mut self, seen: Seen, now: Moment) {
        self.misses = 0;
        self.missing_since = None;
        match seen {
            Seen::Running if self.phase == Phase::Creating => self.enter(Phase::Running, now),
            Seen::Timeout if self.may_be_busy() => {
                self.given_up_since.get_or_insert(now);
                // It is asked for jobs, although it may not answer.
                if self.phase == Phase::Creating {
                    self.enter(Phase::Running, now);
                }
            }
            Seen::Timeout => self.drain(Reason::ReportedTimeout, now),
            Seen::Leaving if self.phase < Phase::Draining => self.drain(Reason::Interrupted, now),
            Seen::Coming | Seen::Running | Seen::Leaving | Seen::Deleted => {}
        }
    }

    /// It is missing from a list. Returns whether it is gone by that.
    pub(super) fn missed(
        &mut self,
        now: Moment,
        misses: u32,
        (missing_for, busy_missing_for): (Duration, Duration),
    ) -> bool {
        self.misses += 1;
        if self.phase == Phase::Deleting {
            return self.misses >= misses;
        }
        let since = *self.missing_since.get_or_insert(now);
        let patience = if self.slots.is_empty() { missing_for } else { busy_missing_for };
        self.misses >= misses && now.since(since) >= patience
    }

    pub(super) fn farewell(&self) -> Gone {
        Gone {
            id: self.id.clone(),
            lost_slots: self.slots.iter().copied().collect(),
            wanted: self.phase >= Phase::Draining,
            since: self.known_since,
        }
    }

    pub(super) fn prepared(&mut self, now: Moment) {
        self.lost_since = None;
        if self.phase >= Phase::Draining {
            return;
        }
        if !std::mem::replace(&mut self.was_ready, true) {
            self.ready_at = now;
            self.idle_since = now;
        }
        self.enter(Phase::Ready, now);
        if self.origin == Origin::Unrecorded {
            self.drain(Reason::Unrecorded, now);
        } else if self.given_up_since.is_some() {
            // It answers, and its provider may end it any time.
            self.drain(Reason::ReportedTimeout, now);
        }
    }

    /// A reason that came first stays, but for that of an instance which cannot be reached
    /// any more: its jobs must be given up.
    pub(super) fn drain(&mut self, reason: Reason, now: Moment) {
        let is_hopeless = matches!(
            reason,
            Reason::BootDeadline
                | Reason::PreparationFailed
                | Reason::Unreachable
                | Reason::ReportedTimeout
        );
        // It takes no jobs as it is, and goes once it is known to run none.
        if self.may_be_busy() && !is_hopeless {
            return;
        }
        if self.phase < Phase::Draining {
            self.drain_reason = Some(reason);
            if self.was_ready && self.phase != Phase::Ready && !self.is_cut_off {
                self.lost_since = Some(self.phase_since);
            }
            self.enter(Phase::Draining, now);
        } else if reason == Reason::Unreachable {
            self.drain_reason = Some(reason);
            self.lost_since = None;
        }
    }

    /// Takes an operator's drain back, of one whose jobs are followed. `false` if it drains
    /// for something else, or not any more.
    pub(super) fn keep(&mut self, now: Moment) -> bool {
        let is_operators = self.drain_reason == Some(Reason::Operator);
        let is_followed = self.was_ready && !self.is_cut_off && self.lost_since.is_none();
        if self.phase != Phase::Draining || !is_operators || !is_followed {
            return false;
        }
        self.drain_reason = None;
        self.doomed = self.doomed.filter(|reason| *reason != Reason::Operator);
        self.enter(Phase::Ready, now);
        true
    }

    pub(super) fn preparing(&mut self, now: Moment) {
        self.is_cut_off = false;
        if self.phase < Phase::Draining {
            self.enter(Phase::Preparing, now);
        } else if self.drain_reason != Some(Reason::Unreachable) {
            self.lost_since.get_or_insert(now);
        }
    }

    /// Whether it was asked for and left without ever having been of use, and not by our
    /// wish. What others asked for, or a process of before, says nothing.
    pub(super) fn never_came_up(&self) -> bool {
        let by_itself =
            matches!(self.drain_reason, None | Some(Reason::ReportedTimeout | Reason::Interrupted));
        self.origin == Origin::Asked && !self.was_ready && by_itself
    }

    /// Jobs of someone that we do not know hold these slots, and no others of theirs.
    pub(super) fn occupied(&mut self, slots: BTreeSet<u32>, now: Moment) {
        if self.slots.is_empty() != slots.is_empty() {
            self.idle_since = now;
        }
        self.slots = slots;
    }

    pub(super) fn delete_sent(&mut self, now: Moment) {
        if self.slots.is_empty() {
            self.delete = Some((now, false));
            self.enter(Phase::Deleting, now);
        }
    }

    pub(super) fn delete_answered(&mut self, accepted: bool, now: Moment) {
        if self.phase == Phase::Deleting {
            self.delete = Some((now, accepted));
        }
    }

    pub(super) fn acquire(&mut self) -> u32 {
        let slot = (0..).find(|slot| !self.slots.contains(slot)).unwrap_or_default();
        self.slots.insert(slot);
        self.uses += 1;
        slot
    }

    pub(super) fn release(&mut self, slot: u32, used: bool, now: Moment) {
        if !self.slots.remove(&slot) {
            return;
        }
        if !used {
            self.uses = self.uses.saturating_sub(1);
        }
        if self.slots.is_empty() {
            self.idle_since = now;
        }
    }
}
