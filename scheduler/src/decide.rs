//! Fleet, policy and limits become a plan. Pure, total, deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::fleet::{Fleet, Instance, InstanceId, Phase};
use crate::limits::Limits;
use crate::plan::{Demand, Plan, Reason, Step};
use crate::policy::Policy;
use crate::time::{Moment, Now};

/// How long an instance is asked for jobs that we do not know when its provider has given
/// up on it: one that runs some answers at once.
const GIVEN_UP_LIMIT: Duration = Duration::from_secs(20);

/// What is to be done now. Before the provider was listed for the first time, nothing.
pub fn decide(fleet: &Fleet, policy: &Policy, limits: &Limits, now: Now) -> Plan {
    let mut plan = Plan { demand: demand(fleet, policy, limits), ..Plan::default() };
    if !fleet.is_known() {
        return plan;
    }
    let expired = expire(fleet, limits, now.moment, &mut plan);
    prepare(fleet, |_| true, &mut plan);
    for instance in fleet.instances().filter(|instance| !expired.contains(instance.id())) {
        if let Some(reason) = instance.due_to_drain() {
            plan.drain(instance, reason);
        } else if instance.phase() == Phase::Ready && instance.uses_left(limits) == 0 {
            plan.drain(instance, Reason::MaxUseCount);
        }
    }
    let wanted = plan.demand.waiting + plan.demand.idle_target;
    let supply = plan.demand.free + plan.demand.coming;
    if wanted > supply {
        create(fleet, limits, wanted - supply, now, &mut plan);
    }
    // Nothing is given up for what may never have been made.
    let surplus = supply.saturating_sub(wanted).saturating_sub(fleet.doubtful(limits));
    shrink(fleet, policy, limits, (surplus, now.moment), &mut plan);
    delete(fleet, limits, now.moment, &mut plan);
    plan
}

/// What is to be done when the group ends and its instances shall go, for this reason: all
/// of them, as soon as they hold no job. Nothing is created any more.
pub fn decide_end(fleet: &Fleet, limits: &Limits, reason: Reason, now: Now) -> Plan {
    let mut plan = Plan::default();
    let expired = expire(fleet, limits, now.moment, &mut plan);
    // Of one that nothing is known of, its preparation tells first whether it runs jobs.
    prepare(fleet, |instance| instance.may_be_busy() || instance.acquired() > 0, &mut plan);
    for instance in fleet.instances().filter(|instance| !expired.contains(instance.id())) {
        if instance.phase() < Phase::Draining && !instance.may_be_busy() {
            plan.drain(instance, reason);
        }
    }
    delete(fleet, limits, now.moment, &mut plan);
    plan
}

fn demand(fleet: &Fleet, policy: &Policy, limits: &Limits) -> Demand {
    let acquired = fleet.acquired();
    Demand {
        acquired,
        waiting: fleet.waiting(),
        idle_target: policy.idle_target(acquired),
        free: fleet.free(limits),
        coming: fleet.coming(limits),
        instances: fleet.costing(),
    }
}

/// Connects to what runs, and to what is draining while jobs of before wait for it.
fn prepare(fleet: &Fleet, which: impl Fn(&Instance) -> bool, plan: &mut Plan) {
    for instance in fleet.instances().filter(|instance| which(instance)) {
        let is_wanted = match instance.phase() {
            Phase::Running => true,
            Phase::Draining => instance.is_cut_off(),
            _ => false,
        };
        if is_wanted {
            plan.steps.push(Step::Prepare { id: instance.id().clone() });
        }
    }
}

/// What took too long: asks that never showed up, instances that do not come up. While the
/// provider cannot be listed, neither is known. Returns those that are drained for it.
fn expire<'a>(
    fleet: &'a Fleet,
    limits: &Limits,
    now: Moment,
    plan: &mut Plan,
) -> BTreeSet<&'a InstanceId> {
    let mut expired = BTreeSet::new();
    let learned = fleet.boots.deadline(limits.boot_deadline);
    // Each that is given up early says that the others may take longer.
    let mut early = 1;
    for ask in fleet.asks() {
        let Some(deadline) = ask.deadline(limits.boot_deadline) else { continue };
        if now < deadline {
            plan.wake_at(deadline);
        } else if fleet.listed_since(deadline) {
            plan.steps.push(Step::GiveUp { ask: ask.id });
        }
    }
    for instance in fleet.instances() {
        let since = instance.phase_since();
        let (since, limit, reason) = match instance.phase() {
            _ if let Some(since) = instance.given_up_since() => {
                (since, GIVEN_UP_LIMIT, Reason::ReportedTimeout)
            }
            Phase::Creating if instance.was_ready() => {
                (since, limits.boot_deadline, Reason::Unreachable)
            }
            Phase::Creating => (since, limits.boot_deadline, Reason::BootDeadline),
            Phase::Running | Phase::Preparing if instance.was_ready() => {
                (since, limits.reconnect_deadline, Reason::Unreachable)
            }
            Phase::Running | Phase::Preparing => {
                (since, limits.prepare_deadline, Reason::BootDeadline)
            }
            // Its jobs would wait for ever for a connection that does not come back.
            Phase::Draining => match instance.lost_since() {
                Some(since) => (since, limits.reconnect_deadline, Reason::Unreachable),
                None => continue,
            },
            Phase::Ready | Phase::Deleting => continue,
        };
        let deadline = since.after(limit);
        let is_boot = reason == Reason::BootDeadline;
        let sooner = if is_boot { since.after(limit.min(learned)) } else { deadline };
        if now < sooner {
            plan.wake_at(sooner);
        } else if now < deadline && early == 0 {
            plan.wake_at(deadline);
        } else if instance.phase() != Phase::Creating || fleet.listed_since(sooner) {
            early -= u32::from(now < deadline);
            expired.insert(instance.id());
            plan.drain(instance, reason);
        }
    }
    expired
}

fn create(fleet: &Fleet, limits: &Limits, missing: u32, now: Now, plan: &mut Plan) {
    let wanted = missing.div_ceil(limits.fresh_slots().max(1));
    if wanted == 0 {
        return;
    }
    let (n, bound) = fleet.may_create(wanted, limits, now);
    if n > 0 {
        let reason = if plan.demand.is_short() { Reason::JobsWaiting } else { Reason::IdleTarget };
        plan.steps.push(Step::Create { n, reason });
    }
    if let Some((reason, until)) = bound {
        plan.held_back = Some((wanted - n, reason));
        if let Some(until) = until {
            plan.wake_at(until);
        }
    }
}

/// Drains idle instances beyond the limit, whatever is wanted; then those that are idle for
/// too long, the longest idle first, as long as the others hold what is wanted.
fn shrink(
    fleet: &Fleet,
    policy: &Policy,
    limits: &Limits,
    (mut surplus, now): (u32, Moment),
    plan: &mut Plan,
) {
    let (max, _) = limits.most_instances();
    let is_leaving = |instance: &&Instance| instance.phase() >= Phase::Draining;
    let leaving = u32::try_from(fleet.instances().filter(is_leaving).count()).unwrap_or(u32::MAX);
    let mut over = fleet.costing().saturating_sub(leaving).saturating_sub(max);
    let mut idle: Vec<&Instance> = fleet
        .instances()
        .filter(|instance| instance.phase() == Phase::Ready && instance.acquired() == 0)
        .filter(|instance| instance.uses_left(limits) > 0)
        .collect();
    idle.sort_by_key(|instance| (instance.idle_since(), instance.id().clone()));
    for instance in idle {
        let slots = instance.free(limits);
        if over > 0 {
            over -= 1;
            surplus = surplus.saturating_sub(slots);
            plan.drain(instance, Reason::OverLimit);
            continue;
        }
        if slots > surplus {
            continue;
        }
        let due = instance.idle_since().after(policy.idle_time);
        if now < due {
            plan.wake_at(due);
            break;
        }
        surplus -= slots;
        plan.drain(instance, Reason::IdleTooLong);
    }
}

/// Deletes what is draining without a job, in one call: also what is drained by this very
/// plan, and what was asked for before and is still there.
fn delete(fleet: &Fleet, limits: &Limits, now: Moment, plan: &mut Plan) {
    let drained_now = drained(plan);
    let mut instances = Vec::new();
    for instance in fleet.instances() {
        let reason = drained_now.get(instance.id()).copied().or(instance.drain_reason());
        let Some(reason) = reason else {
            continue;
        };
        if let Some((at, _)) = instance.delete_call() {
            let again = at.after(limits.deletion_retry);
            if now < again {
                plan.wake_at(again);
                continue;
            }
        }
        if let Some(vacant) = fleet.vacant(instance.id()) {
            instances.push((vacant, reason));
        }
    }
    if !instances.is_empty() {
        plan.steps.push(Step::Delete { instances });
    }
}

/// What this very plan drains, and why.
fn drained(plan: &Plan) -> BTreeMap<InstanceId, Reason> {
    let drains = plan.steps.iter().filter_map(|step| match step {
        Step::Drain { id, reason } => Some((id.clone(), *reason)),
        _ => None,
    });
    drains.collect()
}

impl Plan {
    fn wake_at(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn drain(&mut self, instance: &Instance, reason: Reason) {
        self.steps.push(Step::Drain { id: instance.id().clone(), reason });
    }
}

#[cfg(test)]
mod tests;
