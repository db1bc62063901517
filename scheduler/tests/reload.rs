//! Limits and policies that change at any time, between jobs that come and go and
//! instances that appear and vanish: sequences that shrink to the few steps that matter.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use scheduler::fleet::{Answer, AskFailure, AskId, InstanceId, Phase, Seen, Vacant};
use scheduler::limits::Throttle;
use scheduler::plan::{Plan, Reason, Step};
use scheduler::policy::Policy;
use scheduler::time::Moment;
use scheduler::{Fleet, Limits, Now, decide};

/// Short enough to pass within a few steps.
const BOOT_DEADLINE: Duration = Duration::from_secs(150);

/// A call without an answer by then has failed.
const LONGEST_CALL_S: u64 = 120;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Resize(u32),
    Capacity(u32),
    UseCount(u32),
    Idle(u32, u64),
    JobComes,
    JobEnds,
    Accept(u32),
    Fail(bool, u32),
    Early(usize),
    Appear(usize),
    Boot,
    LoseConnection,
    Vanish,
    Disappear,
    Pass(u64),
}

/// What the configuration says, and how many jobs are open: all that a user knows.
#[derive(Clone, Debug)]
struct Expected {
    limits: Limits,
    policy: Policy,
    jobs: u32,
}

impl ReferenceStateMachine for Expected {
    type State = Self;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Self> {
        let limits = Limits {
            max_instances: 4,
            provider_max_size: 100,
            throttle: Throttle::Unlimited,
            boot_deadline: BOOT_DEADLINE,
            ..Limits::default()
        };
        Just(Self { limits, policy: Policy::default(), jobs: 0 }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Event> {
        prop_oneof![
            2 => (1..6u32).prop_map(Event::Resize),
            1 => (1..4u32).prop_map(Event::Capacity),
            1 => (0..4u32).prop_map(Event::UseCount),
            2 => (0..5u32, 0..200u64).prop_map(|(count, time_s)| Event::Idle(count, time_s)),
            4 => Just(Event::JobComes),
            4 => Just(Event::JobEnds),
            4 => (0..5u32).prop_map(Event::Accept),
            2 => (any::<bool>(), 0..5u32).prop_map(|(heard, most)| Event::Fail(heard, most)),
            1 => any::<usize>().prop_map(Event::Early),
            4 => any::<usize>().prop_map(Event::Appear),
            4 => Just(Event::Boot),
            1 => Just(Event::LoseConnection),
            2 => Just(Event::Vanish),
            1 => Just(Event::Disappear),
            4 => (1..120u64).prop_map(Event::Pass),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, event: &Event) -> bool {
        !matches!(event, Event::JobEnds) || state.jobs > 0
    }

    fn apply(mut state: Self, event: &Event) -> Self {
        match event {
            Event::Resize(most) => state.limits.max_instances = *most,
            Event::Capacity(slots) => state.limits.capacity = *slots,
            Event::UseCount(most) => state.limits.max_use_count = *most,
            Event::Idle(count, time_s) => {
                state.policy.idle_count = *count;
                state.policy.idle_time = Duration::from_secs(*time_s);
            }
            Event::JobComes => state.jobs += 1,
            Event::JobEnds => state.jobs -= 1,
            _ => {}
        }
        state
    }
}

/// A call that was not answered yet.
struct Call {
    ask: AskId,
    sent_s: u64,
    n: u32,
    /// So many of it are listed already.
    shown: u32,
}

/// The fleet, and a provider that does what it is asked, late, in part or not.
struct World {
    fleet: Fleet,
    listed: Vec<(InstanceId, Seen)>,
    /// Made and not listed yet, each with the last second at which it may appear.
    promised: Vec<u64>,
    /// Something that was promised did not appear.
    broken_promises: bool,
    /// From then on a call that failed and made instances is taken to have made none, if
    /// nothing has given it away.
    forgiven_from: Option<u64>,
    calls: Vec<Call>,
    running: Vec<(InstanceId, u32)>,
    /// Jobs whose instance disappeared: over for the server, open for nobody.
    lost: u32,
    born: u32,
    clock_s: u64,
}

impl World {
    fn now(&self) -> Now {
        let moment = Moment(Duration::from_secs(self.clock_s));
        Now { moment, wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn happen(&mut self, event: &Event, expected: &Expected) {
        let now = self.now().moment;
        match event {
            Event::JobComes => self.fleet.wait(),
            Event::JobEnds => self.job_ends(),
            Event::Accept(most) => self.accept(*most, &expected.limits),
            Event::Fail(heard, most) => self.fail(*heard, *most),
            Event::Early(which) => self.appear_early(*which),
            Event::Appear(which) => {
                if !self.promised.is_empty() {
                    self.promised.swap_remove(which % self.promised.len());
                    self.appear();
                }
            }
            Event::Boot => {
                for (_, seen) in self.listed.iter_mut().filter(|(_, seen)| *seen == Seen::Coming) {
                    *seen = Seen::Running;
                }
            }
            Event::LoseConnection => {
                let ready = self.fleet.instances().find(|it| it.phase() == Phase::Ready);
                if let Some(id) = ready.map(|instance| instance.id().clone()) {
                    self.fleet.preparing(&id, now);
                    self.fleet.prepared(&id, BTreeSet::new(), now);
                }
            }
            Event::Vanish => self.listed.retain(|(_, seen)| *seen != Seen::Leaving),
            Event::Disappear => drop(self.listed.pop()),
            Event::Pass(seconds) => {
                self.clock_s += seconds;
                while self.calls.iter().any(|call| call.sent_s + LONGEST_CALL_S <= self.clock_s) {
                    self.calls.sort_by_key(|call| std::cmp::Reverse(call.sent_s));
                    self.fail(false, 0);
                }
            }
            Event::Resize(_) | Event::Capacity(_) | Event::UseCount(_) | Event::Idle(..) => {}
        }
        let (clock_s, promised) = (self.clock_s, self.promised.len());
        self.promised.retain(|until| clock_s < *until);
        self.broken_promises |= self.promised.len() < promised;
    }

    /// A call succeeds: what it accepted, and was not listed before, is listed some time.
    fn accept(&mut self, most: u32, limits: &Limits) {
        let Some(call) = self.calls.pop() else { return };
        let accepted = call.n.min(most).max(call.shown);
        self.promise(accepted - call.shown, limits.boot_deadline.as_secs());
        self.fleet.ask_accepted(call.ask, accepted, self.now().moment);
    }

    /// A call fails, and makes some all the same, which are listed late.
    fn fail(&mut self, heard: bool, most: u32) {
        let Some(call) = self.calls.pop() else { return };
        let made = call.n.min(most).max(call.shown);
        let (failure, late_s) =
            if heard { (AskFailure::Heard, 5) } else { (AskFailure::Silent, 60) };
        self.promise(made - call.shown, late_s);
        if made > 0 {
            let from = self.clock_s + late_s + LONGEST_CALL_S + BOOT_DEADLINE.as_secs();
            self.forgiven_from.get_or_insert(from);
        }
        self.fleet.ask_failed(call.ask, failure, self.now().moment);
    }

    fn promise(&mut self, n: u32, within_s: u64) {
        let until = self.clock_s + within_s;
        self.promised.extend(std::iter::repeat_n(until, n as usize));
    }

    /// An instance is listed before its call is answered.
    fn appear_early(&mut self, which: usize) {
        if self.calls.is_empty() {
            return;
        }
        let call = which % self.calls.len();
        if self.calls[call].shown < self.calls[call].n {
            self.calls[call].shown += 1;
            self.appear();
        }
    }

    fn appear(&mut self) {
        self.born += 1;
        self.listed.push((InstanceId(format!("n{:03}", self.born)), Seen::Coming));
    }

    /// A running job if there is one, else one that was lost, else one that waits.
    fn job_ends(&mut self) {
        let now = self.now().moment;
        if let Some((id, slot)) = self.running.pop() {
            self.fleet.release(&id, slot, true, now);
        } else if self.lost > 0 {
            self.lost -= 1;
        } else {
            self.fleet.stop_waiting();
        }
    }

    /// Instances that are made and not listed, or that calls under way may make.
    fn coming(&self) -> usize {
        let under_way: u32 = self.calls.iter().map(|call| call.n - call.shown).sum();
        self.promised.len() + under_way as usize
    }

    fn is_forgiven(&self) -> bool {
        self.forgiven_from.is_some_and(|from| self.clock_s >= from)
    }

    /// Lists and gives slots to jobs.
    fn observe(&mut self, limits: &Limits) {
        let now = self.now().moment;
        let gone = self.fleet.listed(&self.listed, now, now);
        self.forgiven_from = self.forgiven_from.filter(|_| !self.fleet.asks().is_empty());
        let before = self.running.len();
        self.running.retain(|(id, _)| gone.iter().all(|gone| gone.id != *id));
        self.lost += u32::try_from(before - self.running.len()).expect("few");
        while self.fleet.waiting() > 0 {
            let Some((id, slot)) = self.fleet.acquire(limits, &[]) else { break };
            self.fleet.stop_waiting();
            let instance = self.fleet.instance(&id).expect("it was acquired");
            assert!(instance.acquired() <= limits.capacity, "{id} runs more than it may");
            let most = limits.max_use_count;
            assert!(most == 0 || instance.uses() <= most, "{id} is used too often");
            self.running.push((id, slot));
        }
    }

    fn act(&mut self, plan: &Plan, limits: &Limits) {
        let now = self.now().moment;
        for step in &plan.steps {
            match step {
                Step::Create { n, .. } => {
                    let all = self.listed.len() + self.coming() + *n as usize;
                    let is_within = all <= limits.max_instances as usize;
                    assert!(is_within || self.is_forgiven(), "{all} instances at worst");
                    let ask = self.fleet.asked(*n, limits, now);
                    self.calls.push(Call { ask, sent_s: self.clock_s, n: *n, shown: 0 });
                }
                Step::Prepare { id } => {
                    self.fleet.preparing(id, now);
                    self.fleet.prepared(id, BTreeSet::new(), now);
                }
                Step::Drain { id, reason } => self.fleet.drain(id, *reason, now),
                Step::GiveUp { ask } => self.fleet.ask_given_up(*ask, now),
                Step::Delete { instances } => self.delete(instances),
            }
        }
    }

    fn delete(&mut self, instances: &[(Vacant, Reason)]) {
        let now = self.now().moment;
        let vacant: Vec<Vacant> = instances.iter().map(|(vacant, _)| vacant.clone()).collect();
        let ids: Vec<InstanceId> = vacant.iter().map(|vacant| vacant.id().clone()).collect();
        let busy = self.running.iter().find(|(id, _)| ids.contains(id));
        assert_eq!(busy, None, "deleted under a job");
        self.fleet.deleting(&vacant, now);
        for (_, seen) in self.listed.iter_mut().filter(|(id, _)| ids.contains(id)) {
            *seen = Seen::Leaving;
        }
        self.fleet.deletion_answered(&vacant, &ids, now);
    }
}

impl StateMachineTest for World {
    type SystemUnderTest = Self;
    type Reference = Expected;

    fn init_test(_: &Expected) -> Self {
        let mut fleet = Fleet::default();
        fleet.listed(&[], Moment::default(), Moment::default());
        Self {
            fleet,
            listed: Vec::new(),
            promised: Vec::new(),
            broken_promises: false,
            forgiven_from: None,
            calls: Vec::new(),
            running: Vec::new(),
            lost: 0,
            born: 0,
            // What shows up early was there before.
            clock_s: 1_000,
        }
    }

    fn apply(mut world: Self, expected: &Expected, event: Event) -> Self {
        world.happen(&event, expected);
        // Plans come to rest: the last one has nothing more to do at this moment.
        for round in 0.. {
            world.observe(&expected.limits);
            let plan = decide(&world.fleet, &expected.policy, &expected.limits, world.now());
            world.act(&plan, &expected.limits);
            if plan.steps.is_empty() {
                assert!(plan.wake.is_none_or(|wake| wake > world.now().moment), "{plan:?}");
                break;
            }
            assert!(round < 8, "one plan after the other: {plan:?}");
        }
        world
    }

    fn check_invariants(world: &Self, expected: &Expected) {
        let open = world.fleet.waiting() + world.fleet.acquired() + world.lost;
        assert_eq!(open, expected.jobs, "jobs that are open");
        assert_eq!(world.fleet.acquired() as usize, world.running.len());
        let (max, _) = expected.limits.most_instances();
        let is_staying = |phase| phase < Phase::Draining;
        let staying = world.fleet.instances().filter(|it| is_staying(it.phase())).count();
        let idle =
            world.fleet.instances().any(|it| it.phase() == Phase::Ready && it.acquired() == 0);
        assert!(staying <= max as usize || !idle, "{staying} stay, {max} may, one is idle");
        let no_one_waits_for_a_free_slot =
            world.fleet.waiting() == 0 || world.fleet.free(&expected.limits) == 0;
        assert!(no_one_waits_for_a_free_slot);
        let (counted, waited_for) = (world.fleet.outstanding(), world.fleet.expected());
        let coming = world.coming();
        let is_counted = counted as usize >= coming || world.is_forgiven();
        assert!(is_counted, "{counted} are counted, {coming} may come");
        // What is not known yet is hoped for.
        let is_known = world.fleet.asks().iter().all(|ask| ask.answer == Answer::Accepted);
        let is_vain = is_known && !world.broken_promises && waited_for as usize > coming;
        assert!(!is_vain, "{waited_for} are waited for, {coming} come");
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

    /// Whatever is reloaded when.
    #[test]
    fn reloads_and_resizes_keep_all_promises(sequential 1..80 => World);
}
