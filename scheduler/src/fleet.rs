//! Our picture of one instance group: its instances, what was asked of the provider, and
//! the jobs on the slots.
//!
//! Every change comes through a method named after what happened. Invariants, checked at
//! the end of each in debug builds: an instance that is being deleted holds no job; a
//! slot holds at most one; every instance that may cost money is counted.

mod ask;
mod asks;
mod id;
mod instance;
mod lists;
mod phase;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use crate::boot::BootTimes;
use crate::limits::{Creation, Existing, Limits};
use crate::plan::Reason;
use crate::time::{Moment, Now};

use asks::Asks;

pub use ask::{Answer, Ask, AskFailure, AskId};
pub use id::InstanceId;
pub use instance::{Instance, Vacant};
pub use phase::{Origin, Phase, Seen};
pub use slots::NoSlot;

/// An instance that left the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which one.
    pub id: InstanceId,
    /// Slots whose jobs lost it.
    pub lost_slots: Vec<u32>,
    /// Whether we wanted it to go.
    pub wanted: bool,
    /// When it was first known.
    pub since: Moment,
}

/// What is known of an instance from before this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Jobs that began on it.
    pub uses: u32,
    /// Whether it was ready for jobs.
    pub was_ready: bool,
    /// Slots whose jobs may still run.
    pub slots: Vec<u32>,
    /// Why it was not to get more jobs.
    pub doomed: Option<Reason>,
}

/// One instance group as we know it.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    instances: BTreeMap<InstanceId, Instance>,
    asks: Asks,
    next_ask: u64,
    /// Jobs that wait for a slot.
    waiting: u32,
    /// Promises of a slot to jobs that are being asked for.
    reserved: u32,
    /// Ids of what is over: some providers go on listing them.
    over: BTreeSet<InstanceId>,
    /// When the provider was first listed, and when the call for the last list began.
    lists: Option<(Moment, Moment)>,
    /// What bounds creation.
    pub creation: Creation,
    /// How long instances take to come up.
    pub boots: BootTimes,
}

impl Fleet {
    /// All instances, by id.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// Asks whose instances have not all been seen, the oldest first.
    pub fn asks(&self) -> &[Ask] {
        self.asks.open()
    }

    /// Instances that were asked for and not seen, at worst.
    pub fn outstanding(&self) -> u32 {
        self.asks.outstanding()
    }

    /// Instances that were asked for and are waited for.
    pub fn expected(&self) -> u32 {
        self.asks.expected().map(|(_, expected)| expected).sum()
    }

    /// Those of them that are likely to be of this ask.
    pub fn expected_of(&self, id: AskId) -> u32 {
        self.asks.expected_of(id)
    }

    /// Jobs that wait for a slot.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Promised slots.
    pub fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Whether the provider was listed at least once: before that nothing is decided.
    pub fn is_known(&self) -> bool {
        self.lists.is_some()
    }

    /// Whether a list that began at that moment or later was heard: it shows what was so.
    pub fn listed_since(&self, moment: Moment) -> bool {
        self.lists.is_some_and(|(_, begun)| begun >= moment)
    }

    /// Slots that run jobs.
    pub fn acquired(&self) -> u32 {
        self.instances.values().map(Instance::acquired).sum()
    }

    /// Instances that may cost money: listed ones in any phase, and those asked for.
    pub fn costing(&self) -> u32 {
        count(self.instances.len()).saturating_add(self.outstanding())
    }

    /// Free slots of ready instances.
    pub fn free(&self, limits: &Limits) -> u32 {
        self.instances.values().map(|instance| instance.free(limits)).sum()
    }

    /// Slots of instances that are asked for, creating or being prepared.
    pub fn coming(&self, limits: &Limits) -> u32 {
        let asked: u32 = self.promising().map(|(_, expected)| expected).sum();
        let fresh = asked.saturating_mul(limits.fresh_slots());
        self.instances.values().map(|i| i.coming(limits)).sum::<u32>().saturating_add(fresh)
    }

    /// Those of the coming slots of which it is not known whether they were made.
    pub fn doubtful(&self, limits: &Limits) -> u32 {
        let doubtful = self.promising().filter(|(ask, _)| ask.is_unknown());
        let asked: u32 = doubtful.map(|(_, expected)| expected).sum();
        asked.saturating_mul(limits.fresh_slots())
    }

    /// Asks of which instances of use are waited for, and how many.
    fn promising(&self) -> impl Iterator<Item = (&Ask, u32)> {
        self.asks.expected().filter(|(ask, expected)| ask.doomed.is_none() && *expected > 0)
    }

    /// How many of `wanted` instances may be created now; and, if fewer, what is in the
    /// way and until when.
    pub fn may_create(
        &self,
        wanted: u32,
        limits: &Limits,
        now: Now,
    ) -> (u32, Option<(Reason, Option<Moment>)>) {
        let is_untried = |i: &Instance| !i.was_ready() && i.phase() < Phase::Draining;
        let untried = !self.asks().is_empty() || self.instances.values().any(is_untried);
        self.creation.allow(wanted, Existing { costing: self.costing(), untried }, limits, now)
    }

    /// An instance that was known before this process. Must come before the first list.
    pub fn recorded(&mut self, id: InstanceId, known: Known, now: Moment) {
        let mut instance = Instance::new(id.clone(), Origin::Recorded, now);
        instance.restore(known);
        self.instances.insert(id, instance);
    }

    /// An instance of which it is known from before this process that it may run jobs of
    /// others: it comes of no ask. Must come before the first list.
    pub fn unrecorded(&mut self, id: InstanceId, now: Moment) {
        let instance = Instance::new(id.clone(), Origin::Unrecorded, now);
        self.instances.insert(id, instance);
    }

    /// An ask of before this process, whose answer nobody heard: its effect shows in a
    /// later list. Must come before the first list.
    pub fn recorded_ask(&mut self, id: AskId, n: u32, doomed: Option<Reason>, now: Moment) {
        self.next_ask = self.next_ask.max(id.0 + 1);
        let mut ask = Ask { id, asked: n, cap: n, at: now, doomed, ..Ask::default() };
        ask.failed(AskFailure::Silent, now);
        self.asks.restored(ask);
    }

    /// The provider was asked for `n` instances. Counts in full from now on.
    pub fn asked(&mut self, n: u32, limits: &Limits, now: Moment) -> AskId {
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        self.creation.asked(n, limits, now);
        let ask = Ask { id, asked: n, cap: n, sent: Some(now), at: now, ..Ask::default() };
        self.asks.sent(ask, limits.boot_deadline);
        id
    }

    /// The provider accepted `accepted` of an ask. One that accepts fewer than it was asked
    /// for is out of something: it is asked for the rest after a pause, as after a failure.
    pub fn ask_accepted(&mut self, id: AskId, accepted: u32, now: Moment) {
        let asked = self.asks.accepted(id, accepted, now);
        let is_short = asked.is_some_and(|asked| accepted < asked);
        if accepted > 0 || !is_short {
            self.creation.call_succeeded();
        }
        if is_short {
            self.creation.call_failed(now);
        }
    }

    /// The call failed. What it did all the same shows later.
    pub fn ask_failed(&mut self, id: AskId, failure: AskFailure, now: Moment) {
        self.creation.call_failed(now);
        self.asks.failed(id, failure, now);
    }

    /// An accepted ask is counted no longer: what never showed up does not come any more.
    pub fn ask_given_up(&mut self, id: AskId, now: Moment) {
        if self.expected_of(id) > 0 {
            self.creation.boot_failed(now);
        }
        self.asks.given_up(id);
    }

    /// A preparation began: of a new instance, or of one whose connection is lost.
    pub fn preparing(&mut self, id: &InstanceId, now: Moment) {
        self.with(id, |instance| instance.preparing(now));
    }

    /// An instance is ready for jobs. `busy` are slots on which jobs of someone run that
    /// we do not know.
    pub fn prepared(&mut self, id: &InstanceId, busy: BTreeSet<u32>, now: Moment) {
        if let Some(instance) = self.instances.get(id).filter(|instance| !instance.was_ready()) {
            self.creation.boot_succeeded();
            if let Some(asked) = instance.asked_at() {
                self.boots.came(now.since(asked));
            }
        }
        self.with(id, |instance| {
            let has_strangers = !busy.is_empty();
            if has_strangers {
                instance.occupied(busy, now);
            }
            instance.prepared(now);
            if has_strangers {
                instance.drain(Reason::Unrecorded, now);
            }
        });
    }

    /// The jobs of someone that we do not know have ended, but for those on these slots.
    pub fn occupied(&mut self, id: &InstanceId, busy: BTreeSet<u32>, now: Moment) {
        self.with(id, |instance| instance.occupied(busy, now));
    }

    /// An instance could not be prepared.
    pub fn preparation_failed(&mut self, id: &InstanceId, now: Moment) {
        let fresh = self.instances.get(id).is_some_and(|instance| !instance.was_ready());
        if fresh {
            self.creation.boot_failed(now);
        }
        let reason = if fresh { Reason::PreparationFailed } else { Reason::Unreachable };
        self.drain(id, reason, now);
    }

    /// An instance shall get no more jobs.
    pub fn drain(&mut self, id: &InstanceId, reason: Reason, now: Moment) {
        if reason == Reason::BootDeadline
            && let Some(instance) = self.instances.get(id)
        {
            // Whoever asked for it, that it took longer says something of the others.
            let asked = instance.asked_at().unwrap_or(instance.known_since());
            self.boots.gave_up(now.since(asked));
            if instance.origin() == Origin::Asked {
                self.creation.boot_failed(now);
            }
        }
        self.with(id, |instance| instance.drain(reason, now));
    }

    /// An operator wants an instance back that drains by an operator's wish. `false` if that
    /// cannot be: it is being deleted, drains for something else, or its connection is lost.
    pub fn keep(&mut self, id: &InstanceId, now: Moment) -> bool {
        self.instances.get_mut(id).is_some_and(|instance| instance.keep(now))
    }

    /// All that is there or was asked for is of no use any more: it is drained, as soon as
    /// its jobs can be followed.
    pub fn doom_all(&mut self, reason: Reason) {
        self.instances.values_mut().for_each(|instance| instance.doom(reason));
        self.asks.doom(reason);
    }

    /// A delete call for these instances is about to be sent.
    pub fn deleting(&mut self, instances: &[Vacant], now: Moment) {
        for vacant in instances {
            self.with(vacant.id(), |instance| instance.delete_sent(now));
        }
        self.check();
    }

    /// The delete call ended: these ids were accepted, the others are tried again.
    pub fn deletion_answered(&mut self, asked: &[Vacant], accepted: &[InstanceId], now: Moment) {
        for vacant in asked {
            let accepted = accepted.contains(vacant.id());
            self.with(vacant.id(), |instance| instance.delete_answered(accepted, now));
        }
    }

    /// The proof that an instance holds no job, if it is so.
    pub fn vacant(&self, id: &InstanceId) -> Option<Vacant> {
        self.instances.get(id).and_then(Instance::vacant)
    }

    fn with(&mut self, id: &InstanceId, change: impl FnOnce(&mut Instance)) {
        if let Some(instance) = self.instances.get_mut(id) {
            change(instance);
        }
    }

    fn check(&self) {
        for instance in self.instances.values() {
            debug_assert!(
                instance.phase() != Phase::Deleting || instance.acquired() == 0,
                "{} is deleted under a job",
                instance.id()
            );
        }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
