//! What every plan must be: fitting, counted right, bound by what it names, and awake in
//! time.

use std::time::Duration;

use scheduler::fleet::{Instance, InstanceId, Origin, Phase};
use scheduler::limits::Throttle;
use scheduler::plan::{Plan, Reason, Step};
use scheduler::policy::Policy;
use scheduler::time::Moment;
use scheduler::{Now, decide, decide_end};

use crate::run::Sim;

const BOUNDS: [Reason; 5] = [
    Reason::MaxInstances,
    Reason::ProviderMaxSize,
    Reason::ScaleThrottle,
    Reason::BootFailures,
    Reason::CallsFailing,
];

impl Sim {
    /// A plan, before it is carried out.
    pub(crate) fn check_plan(&mut self, plan: &Plan, policy: &Policy, now: Now) {
        for step in &plan.steps {
            if let Err(what) = self.is_fitting(step, plan, policy, now.moment) {
                self.broken("every step has a fitting reason", what);
            }
        }
        self.check_demand(plan, policy);
        if let Some((n, reason)) = plan.held_back
            && let Err(what) = self.is_binding(reason, plan)
        {
            let what = format!("{n} held back by {}: {what}", reason.as_str());
            self.broken("what is held back names a bound that binds", what);
        }
        if plan.steps.is_empty() {
            self.check_wake(plan, policy, now);
        }
    }

    /// Without anything happening, nothing is to be done before the plan wakes.
    fn check_wake(&mut self, plan: &Plan, policy: &Policy, now: Now) {
        if plan.wake.is_some_and(|wake| wake <= now.moment) {
            let what = format!("wakes at {:?}, it is {:?}", plan.wake, now.moment);
            return self.broken("I10 no busy loop: a plan wakes in the future", what);
        }
        let day = now.moment.after(Duration::from_secs(86_400));
        let before =
            plan.wake.map_or(day, |wake| Moment(wake.0.saturating_sub(Duration::from_millis(1))));
        let later = Now { moment: before, wall: now.wall };
        let shell = self.shell.as_ref().expect("the process runs");
        let limits = &self.setup.limits;
        let then = match shell.deleting_all {
            true => decide_end(&shell.fleet, limits, Reason::ShuttingDown, later),
            false => decide(&shell.fleet, policy, limits, later),
        };
        let throttled = plan.held_back.is_some_and(|(_, why)| why == Reason::ScaleThrottle);
        let is_missed = |step: &&Step| !(throttled && matches!(step, Step::Create { .. }));
        if let Some(step) = then.steps.iter().find(is_missed) {
            let what = format!("{step:?} by {before:?}, the plan wakes at {:?}", plan.wake);
            self.broken("I8 nothing stalls: a plan wakes when there is something to do", what);
        }
    }

    fn is_fitting(
        &self,
        step: &Step,
        plan: &Plan,
        policy: &Policy,
        now: Moment,
    ) -> Result<(), String> {
        let shell = self.shell.as_ref().expect("the process runs");
        let (fleet, limits) = (&shell.fleet, &self.setup.limits);
        let demand = &plan.demand;
        let fail = |why: &str| Err(format!("{step:?}: {why}"));
        match step {
            Step::Create { n, reason } => {
                let missing = i64::from(demand.waiting) + i64::from(demand.idle_target)
                    - i64::from(demand.free)
                    - i64::from(demand.coming);
                let slots = i64::from(limits.fresh_slots().max(1));
                let expected =
                    if demand.is_short() { Reason::JobsWaiting } else { Reason::IdleTarget };
                match () {
                    () if *reason != expected => fail("not what it is for"),
                    () if i64::from(*n) * slots >= missing + slots => fail("more than is missing"),
                    () => Ok(()),
                }
            }
            Step::Prepare { id } => match fleet.instance(id).map(Instance::phase) {
                Some(Phase::Running) => Ok(()),
                Some(Phase::Draining) if fleet.instance(id).is_some_and(Instance::is_cut_off) => {
                    Ok(())
                }
                _ => fail("it does not run"),
            },
            Step::GiveUp { ask } => {
                let ask = fleet.asks().iter().find(|it| it.id == *ask);
                match ask.is_some_and(|ask| now.since(ask.at) >= limits.boot_deadline) {
                    true => Ok(()),
                    false => fail("its time is not over"),
                }
            }
            Step::Drain { id, reason } => {
                let Some(instance) = fleet.instance(id) else { return fail("not there") };
                match self.drain_fits(instance, *reason, plan, (policy, now)) {
                    true => Ok(()),
                    false => fail("it is not so"),
                }
            }
            Step::Delete { instances } => {
                let drains = |id: &InstanceId| {
                    let is_it =
                        |step: &Step| matches!(step, Step::Drain { id: it, .. } if it == id);
                    plan.steps.iter().any(is_it)
                        || fleet.instance(id).is_some_and(|it| it.phase() >= Phase::Draining)
                };
                let all = instances.iter().all(|(vacant, _)| drains(vacant.id()));
                if all { Ok(()) } else { fail("one of them is not draining") }
            }
        }
    }

    fn drain_fits(
        &self,
        instance: &Instance,
        reason: Reason,
        plan: &Plan,
        (policy, now): (&Policy, Moment),
    ) -> bool {
        let shell = self.shell.as_ref().expect("the process runs");
        let (fleet, limits, demand) = (&shell.fleet, &self.setup.limits, &plan.demand);
        let in_phase = now.since(instance.phase_since());
        let is_idle = instance.phase() == Phase::Ready && instance.acquired() == 0;
        let surplus =
            (demand.free + demand.coming).saturating_sub(demand.waiting + demand.idle_target);
        match reason {
            Reason::IdleTooLong => {
                is_idle
                    && now.since(instance.idle_since()) >= policy.idle_time
                    && instance.free(limits) <= surplus
            }
            Reason::MaxUseCount => instance.uses_left(limits) == 0,
            Reason::BootDeadline => {
                !instance.was_ready()
                    && in_phase
                        >= fleet.boots.deadline(limits.boot_deadline).min(limits.prepare_deadline)
            }
            Reason::Unreachable => instance.was_ready(),
            Reason::ReportedTimeout => instance.given_up_since().is_some(),
            Reason::OverLimit => is_idle && fleet.costing() > limits.most_instances().0,
            Reason::ShuttingDown => shell.deleting_all,
            _ => false,
        }
    }

    /// What is idle beyond the maximum goes, whatever is wanted.
    fn check_over_limit(&mut self, plan: &Plan) {
        let shell = self.shell.as_ref().expect("the process runs");
        let (fleet, limits) = (&shell.fleet, &self.setup.limits);
        let leaving = fleet.instances().filter(|it| it.phase() >= Phase::Draining).count();
        let staying = (fleet.costing() as usize).saturating_sub(leaving);
        let over = staying.saturating_sub(limits.most_instances().0 as usize);
        let is_idle = |it: &&Instance| {
            it.phase() == Phase::Ready && it.acquired() == 0 && it.uses_left(limits) > 0
        };
        let idle = fleet.instances().filter(is_idle).count();
        let is_drain = |step: &&Step| {
            matches!(step, Step::Drain { reason: Reason::OverLimit | Reason::IdleTooLong, .. })
        };
        let drained = plan.steps.iter().filter(is_drain).count();
        if fleet.is_known() && !shell.deleting_all && drained < over.min(idle) {
            let what = format!("{over} too many, {idle} idle, {drained} go");
            self.broken("I5 a lowered max_instances holds at once", what);
        }
    }

    fn check_demand(&mut self, plan: &Plan, policy: &Policy) {
        self.check_over_limit(plan);
        let shell = self.shell.as_ref().expect("the process runs");
        if shell.deleting_all {
            return;
        }
        let limits = &self.setup.limits;
        let (mut free, mut coming, mut acquired, mut count) = (0, 0, 0, 0);
        for instance in shell.fleet.instances() {
            count += 1;
            acquired += instance.acquired();
            let left = limits.capacity.saturating_sub(instance.acquired());
            let left = match limits.max_use_count {
                0 => left,
                most => left.min(most.saturating_sub(instance.uses())),
            };
            // What nobody recorded goes as soon as it is known to run no job.
            let left = if instance.origin() == Origin::Unrecorded { 0 } else { left };
            match instance.phase() {
                Phase::Ready => free += left,
                Phase::Creating | Phase::Running | Phase::Preparing => coming += left,
                Phase::Draining | Phase::Deleting => {}
            }
        }
        let fresh = match limits.max_use_count {
            0 => limits.capacity,
            most => most.min(limits.capacity),
        };
        let asked = shell.fleet.outstanding();
        let hoped = shell.fleet.expected();
        let waiting = u32::try_from(shell.waiters.len()).unwrap_or(u32::MAX);
        let target = policy.idle_target(acquired);
        let expected = (acquired, waiting, target, free, coming + hoped * fresh, count + asked);
        let d = &plan.demand;
        let said = (d.acquired, d.waiting, d.idle_target, d.free, d.coming, d.instances);
        if said != expected {
            let what = format!("the plan says {said:?}, it is {expected:?}");
            self.broken("a plan counts right", what);
        }
    }

    /// Whether a bound is really in the way.
    fn is_binding(&self, reason: Reason, plan: &Plan) -> Result<(), String> {
        let limits = &self.setup.limits;
        let created: u32 = plan
            .steps
            .iter()
            .map(|step| if let Step::Create { n, .. } = step { *n } else { 0 })
            .sum();
        let then = plan.demand.instances + created;
        let binds = match reason {
            Reason::MaxInstances => limits.max_instances > 0 && then >= limits.max_instances,
            Reason::ProviderMaxSize => then >= limits.provider_max_size,
            Reason::ScaleThrottle => limits.throttle != Throttle::Unlimited,
            Reason::BootFailures => self.watch.boot_pause_until().is_some(),
            Reason::CallsFailing => self.watch.call_failures > 0,
            _ => false,
        };
        let known = BOUNDS.contains(&reason);
        if binds && known { Ok(()) } else { Err(format!("{then} instances, it does not bind")) }
    }
}
