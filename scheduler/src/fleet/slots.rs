//! Slots for jobs: promised, waited for, bound, given back.

use std::time::Duration;

use super::{Fleet, InstanceId};
use crate::limits::Limits;
use crate::plan::Reason;
use crate::policy::Policy;
use crate::time::{Moment, Now};

/// Why no slot can be promised to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// None is free, and jobs are taken against free slots only.
    NothingIdle,
    /// None is free, and none may be made.
    Bound(Reason),
}

impl Fleet {
    /// Whether a slot can be promised: a free one, one that is coming, or one that may be
    /// made now. `patience` is how long a job may wait for it.
    pub fn may_promise(
        &self,
        policy: &Policy,
        limits: &Limits,
        patience: Duration,
        now: Now,
    ) -> Result<(), NoSlot> {
        let claims = self.reserved + self.waiting;
        let free = self.free(limits);
        if free > claims {
            return Ok(());
        }
        // A group at zero must be able to begin.
        if policy.is_preemptive() && self.costing() > 0 {
            return Err(NoSlot::NothingIdle);
        }
        // A job that will wait in vain is better taken by another runner; a single one shows
        // whether instances come up faster by now.
        let missing = claims + 1 - free;
        let is_too_slow = self.boots.quantile(TYPICAL).is_some_and(|boot| boot > patience);
        if is_too_slow && missing > 1 {
            return Err(NoSlot::Bound(Reason::BootsTooSlow));
        }
        let coming = self.coming(limits);
        if coming < missing {
            let wanted = (missing - coming).div_ceil(limits.fresh_slots().max(1));
            let (allowed, bound) = self.may_create(wanted, limits, now);
            if allowed < wanted {
                let reason = bound.map_or(Reason::MaxInstances, |(reason, _)| reason);
                return Err(NoSlot::Bound(reason));
            }
        }
        Ok(())
    }

    /// When the next slot that is coming is likely to be there; nothing where none is coming
    /// or nothing is known.
    pub fn next_slot_in(&self, limits: &Limits, now: Moment) -> Option<Duration> {
        let boot = self.boots.quantile(TYPICAL)?;
        let asked = self.promising().map(|(ask, _)| ask.sent.unwrap_or(ask.at));
        let coming = self.instances.values().filter(|instance| instance.coming(limits) > 0);
        let since = coming.map(|instance| instance.asked_at().unwrap_or(instance.known_since()));
        let begun = asked.chain(since).min()?;
        Some(boot.saturating_sub(now.since(begun)))
    }

    /// Promises a slot.
    pub fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// Takes a promise back.
    pub fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// A promise becomes a job that waits for its slot.
    pub fn wait(&mut self) {
        self.unreserve();
        self.waiting += 1;
    }

    /// A job waits no longer, with or without a slot.
    pub fn stop_waiting(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Binds a slot to a job, if one is free: on the instance that has been ready
    /// longest, so that others can go. `except` are instances that just failed the job.
    pub fn acquire(&mut self, limits: &Limits, except: &[InstanceId]) -> Option<(InstanceId, u32)> {
        let free =
            self.instances.values().filter(|i| i.free(limits) > 0 && !except.contains(i.id()));
        let oldest = free.min_by_key(|instance| (instance.ready_at(), instance.id().clone()))?;
        let id = oldest.id().clone();
        let instance = self.instances.get_mut(&id)?;
        let slot = instance.acquire();
        self.check();
        Some((id, slot))
    }

    /// A job has left its slot. `used` is false if it never began there.
    pub fn release(&mut self, id: &InstanceId, slot: u32, used: bool, now: Moment) {
        self.with(id, |instance| instance.release(slot, used, now));
    }
}

/// The share of instances that come up within the time that is reckoned with.
const TYPICAL: f64 = 0.5;
