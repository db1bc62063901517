use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fleet::{AskFailure, InstanceId, Known, Seen, Vacant};
use crate::limits::Throttle;

fn now(seconds: u64) -> Now {
    Now { moment: Moment(Duration::from_secs(seconds)), wall: jiff::Timestamp::UNIX_EPOCH }
}

fn id(name: &str) -> InstanceId {
    InstanceId(name.into())
}

fn limits() -> Limits {
    Limits {
        max_instances: 10,
        provider_max_size: 100,
        throttle: Throttle::Unlimited,
        ..Limits::default()
    }
}

fn idle(idle_count: u32, idle_seconds: u64) -> Policy {
    Policy { idle_count, idle_time: Duration::from_secs(idle_seconds), ..Policy::default() }
}

fn known() -> Fleet {
    let mut fleet = Fleet::default();
    fleet.listed(&[], now(0).moment, now(0).moment);
    fleet
}

/// A fleet of ready instances `i0`, `i1`, …, each ready at its number in seconds.
fn ready(count: usize) -> Fleet {
    let mut fleet = known();
    let ask = fleet.asked(u32::try_from(count).expect("few"), &limits(), now(0).moment);
    fleet.ask_accepted(ask, u32::MAX, now(0).moment);
    let list: Vec<_> = (0..count).map(|n| (id(&format!("i{n}")), Seen::Running)).collect();
    fleet.listed(&list, now(0).moment, now(0).moment);
    for (n, (id, _)) in list.iter().enumerate() {
        fleet.preparing(id, now(0).moment);
        fleet.prepared(id, BTreeSet::new(), now(n as u64).moment);
    }
    fleet
}

/// A plan in one line.
fn show(plan: &Plan) -> String {
    let mut words: Vec<String> = plan.steps.iter().map(show_step).collect();
    if let Some((n, reason)) = plan.held_back {
        words.push(format!("[{n} held back: {}]", reason.as_str()));
    }
    words.join("; ")
}

fn show_step(step: &Step) -> String {
    match step {
        Step::Create { n, reason } => format!("create {n} {}", reason.as_str()),
        Step::Prepare { id } => format!("prepare {id}"),
        Step::Drain { id, reason } => format!("drain {id} {}", reason.as_str()),
        Step::Delete { instances } => {
            let ids: Vec<_> = instances.iter().map(|(vacant, _)| vacant.id().0.clone()).collect();
            format!("delete {}", ids.join(","))
        }
        Step::GiveUp { ask } => format!("give up {}", ask.0),
    }
}

#[test]
fn nothing_is_decided_before_the_provider_was_listed() {
    let mut fleet = Fleet::default();
    fleet.wait();
    assert_eq!(show(&decide(&fleet, &idle(5, 60), &limits(), now(0))), "");
}

#[test]
fn idle_capacity_is_made_in_slots_in_one_call() {
    let cases = [
        (1, idle(5, 60), "create 5 idle_target"),
        (4, idle(5, 60), "create 2 idle_target"),
        (1, idle(0, 60), ""),
        (1, idle(25, 60), "create 10 idle_target; [15 held back: max_instances]"),
    ];
    for (capacity, policy, expected) in cases {
        let limits = Limits { capacity, ..limits() };
        assert_eq!(show(&decide(&known(), &policy, &limits, now(0))), expected);
    }
}

#[test]
fn waiting_jobs_are_served_from_zero_and_beside_the_idle_target() {
    let mut fleet = known();
    for _ in 0..3 {
        fleet.wait();
    }
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(0))), "create 3 jobs_waiting");
    assert_eq!(show(&decide(&fleet, &idle(2, 60), &limits(), now(0))), "create 5 jobs_waiting");
    let one_use = Limits { capacity: 4, max_use_count: 1, ..limits() };
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &one_use, now(0))), "create 3 jobs_waiting");
}

#[test]
fn what_is_coming_is_not_made_twice() {
    let mut fleet = known();
    for _ in 0..3 {
        fleet.wait();
    }
    let ask = fleet.asked(3, &limits(), now(0).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(0))), "");
    fleet.ask_failed(ask, AskFailure::Silent, now(1).moment);
    assert_eq!(
        show(&decide(&fleet, &idle(0, 60), &limits(), now(5))),
        "",
        "the outcome is unknown"
    );
    // A list that could have shown them does not: they still count, and are not waited for.
    fleet.listed(&[], now(6).moment, now(6).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(6));
    assert_eq!((show(&plan).as_str(), fleet.costing()), ("create 3 jobs_waiting", 3));
    let at_most_4 = Limits { max_instances: 4, ..limits() };
    let plan = decide(&fleet, &idle(0, 60), &at_most_4, now(6));
    assert_eq!(show(&plan), "create 1 jobs_waiting; [2 held back: max_instances]");
}

#[test]
fn a_reservation_alone_makes_nothing_and_holds_nothing() {
    let mut fleet = ready(1);
    fleet.reserve();
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(30))), "");
    assert_eq!(
        show(&decide(&fleet, &idle(0, 60), &limits(), now(90))),
        "drain i0 idle_too_long; delete i0"
    );
}

#[test]
fn the_longest_idle_go_first_and_the_idle_count_stays() {
    let fleet = ready(4);
    let plan = decide(&fleet, &idle(2, 60), &limits(), now(61));
    assert_eq!(show(&plan), "drain i0 idle_too_long; drain i1 idle_too_long; delete i0,i1");
    // i1 is idle for less than its time: the plan wakes when it is not.
    let plan = decide(&fleet, &idle(2, 60), &limits(), now(60));
    assert_eq!(show(&plan), "drain i0 idle_too_long; delete i0");
    assert_eq!(plan.wake, Some(now(61).moment));
}

#[test]
fn an_instance_with_a_free_slot_that_is_needed_stays() {
    let mut fleet = ready(2);
    let limits = Limits { capacity: 3, ..limits() };
    fleet.acquire(&limits, &[]);
    // 5 slots are free. One instance of 3 may go while 2 are wanted, not while 3 are.
    let plan = decide(&fleet, &idle(2, 60), &limits, now(90));
    assert_eq!(show(&plan), "drain i1 idle_too_long; delete i1");
    assert_eq!(show(&decide(&fleet, &idle(3, 60), &limits, now(90))), "");
}

#[test]
fn a_busy_instance_is_drained_and_deleted_only_when_it_is_free() {
    let mut fleet = ready(1);
    let limits = Limits { max_use_count: 1, ..limits() };
    let (instance, slot) = fleet.acquire(&limits, &[]).expect("free");
    let plan = decide(&fleet, &idle(0, 60), &limits, now(5));
    assert_eq!(show(&plan), "drain i0 max_use_count");
    fleet.drain(&instance, Reason::MaxUseCount, now(5).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits, now(6))), "");
    fleet.release(&instance, slot, true, now(9).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits, now(9))), "delete i0");
}

#[test]
fn a_busy_instance_that_is_draining_is_given_up_when_its_connection_does_not_come_back() {
    let mut fleet = ready(1);
    fleet.acquire(&limits(), &[]).expect("free");
    fleet.drain(&id("i0"), Reason::MaxUseCount, now(5).moment);
    fleet.preparing(&id("i0"), now(10).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(69));
    assert_eq!((show(&plan).as_str(), plan.wake), ("", Some(now(70).moment)));
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(70))), "drain i0 unreachable");
    // Back in time: nothing happens.
    let mut back = fleet.clone();
    back.prepared(&id("i0"), BTreeSet::new(), now(69).moment);
    assert_eq!(show(&decide(&back, &idle(0, 60), &limits(), now(70))), "");
    // Given up, it is not given up again.
    fleet.drain(&id("i0"), Reason::Unreachable, now(70).moment);
    fleet.preparing(&id("i0"), now(71).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(500))), "");
    fleet.release(&id("i0"), 0, true, now(501).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(501))), "delete i0");
}

#[test]
fn an_instance_that_drains_after_its_connection_was_lost_is_given_up_all_the_same() {
    let mut fleet = ready(1);
    fleet.acquire(&limits(), &[]).expect("free");
    fleet.preparing(&id("i0"), now(10).moment);
    fleet.drain(&id("i0"), Reason::Operator, now(30).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(69))), "");
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(70))), "drain i0 unreachable");
}

#[test]
fn deletion_is_tried_again_until_it_is_true() {
    let mut fleet = ready(1);
    fleet.drain(&id("i0"), Reason::Unreachable, now(10).moment);
    let vacant = fleet.vacant(&id("i0")).expect("no job");
    fleet.deleting(std::slice::from_ref(&vacant), now(10).moment);
    fleet.deletion_answered(&[vacant], &[], now(10).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(20));
    assert_eq!((show(&plan).as_str(), plan.wake), ("", Some(now(70).moment)));
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(70))), "delete i0");
}

#[test]
fn what_does_not_come_up_is_deleted_and_counted() {
    let mut fleet = known();
    let ask = fleet.asked(1, &limits(), now(0).moment);
    fleet.ask_accepted(ask, 1, now(0).moment);
    // While the provider cannot be listed, nobody knows.
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(900))), "");
    let mut without = fleet.clone();
    without.listed(&[], now(900).moment, now(901).moment);
    assert_eq!(show(&decide(&without, &idle(0, 60), &limits(), now(901))), "give up 0");
    fleet.listed(&[(id("a"), Seen::Coming)], now(10).moment, now(10).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(909))), "");
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(910))), "");
    fleet.listed(&[(id("a"), Seen::Coming)], now(910).moment, now(910).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(910));
    assert_eq!(show(&plan), "drain a boot_deadline; delete a");
}

#[test]
fn at_the_end_everything_goes_but_what_runs_a_job() {
    let mut fleet = ready(2);
    fleet.listed(
        &[(id("i0"), Seen::Running), (id("i1"), Seen::Running), (id("new"), Seen::Coming)],
        now(200).moment,
        now(200).moment,
    );
    fleet.acquire(&limits(), &[]);
    let plan = decide_end(&fleet, &limits(), Reason::ShuttingDown, now(201));
    // The new one is of somebody else, who may run jobs on it.
    assert_eq!(show(&plan), "drain i0 shutting_down; drain i1 shutting_down; delete i1");
}

#[test]
fn an_instance_credited_to_a_failed_ask_does_not_hold_jobs_up() {
    let mut fleet = known();
    let failed = fleet.asked(2, &limits(), now(0).moment);
    fleet.ask_failed(failed, AskFailure::Heard, now(1).moment);
    let accepted = fleet.asked(1, &limits(), now(2).moment);
    fleet.ask_accepted(accepted, 1, now(2).moment);
    fleet.wait();
    fleet.wait();
    let list = [(id("x"), Seen::Running)];
    fleet.listed(&list, now(3).moment, now(3).moment);
    assert_eq!(fleet.costing(), 3, "whose it is nobody knows");
    fleet.listed(&list, now(7).moment, now(7).moment);
    assert_eq!(fleet.costing(), 2, "one may still come");
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(7));
    assert_eq!(show(&plan), "prepare x; create 1 jobs_waiting", "and is not waited for");
    let two = Limits { max_instances: 2, ..limits() };
    let plan = decide(&fleet, &idle(0, 60), &two, now(7));
    assert_eq!(show(&plan), "prepare x; [1 held back: max_instances]");
}

#[test]
fn what_is_of_no_use_any_more_is_drained_and_replaced() {
    let mut fleet = ready(2);
    fleet.acquire(&limits(), &[]);
    fleet.asked(1, &limits(), now(2).moment);
    fleet.doom_all(Reason::Outdated);
    assert_eq!(fleet.acquire(&limits(), &[]), None, "no more jobs for them");
    let plan = decide(&fleet, &idle(1, 60), &limits(), now(3));
    let drains = "drain i0 outdated; drain i1 outdated";
    assert_eq!(show(&plan), format!("{drains}; create 1 idle_target; delete i1"));
    let list = [(id("i0"), Seen::Running), (id("i1"), Seen::Running), (id("late"), Seen::Coming)];
    fleet.listed(&list, now(4).moment, now(4).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(5));
    assert!(show(&plan).contains("drain late outdated"), "{}", show(&plan));
}

#[test]
fn jobs_of_before_are_followed_before_their_instance_is_drained() {
    let mut fleet = Fleet::default();
    let doomed = Some(Reason::Outdated);
    let known = Known { uses: 1, was_ready: true, slots: vec![0], doomed };
    fleet.recorded(id("a"), known, now(0).moment);
    fleet.listed(&[(id("a"), Seen::Running)], now(0).moment, now(0).moment);
    for plan in [
        decide(&fleet, &idle(0, 60), &limits(), now(1)),
        decide_end(&fleet, &limits(), Reason::Outdated, now(1)),
    ] {
        assert_eq!(show(&plan), "prepare a; drain a outdated");
    }
    fleet.preparing(&id("a"), now(1).moment);
    fleet.drain(&id("a"), Reason::Outdated, now(1).moment);
    fleet.prepared(&id("a"), BTreeSet::new(), now(2).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(600));
    assert_eq!((show(&plan).as_str(), fleet.acquired()), ("", 1));
}

#[test]
fn an_instance_that_was_ready_is_given_a_minute_to_come_back() {
    let mut fleet = ready(1);
    fleet.preparing(&id("i0"), now(10).moment);
    let plan = decide(&fleet, &idle(1, 60), &limits(), now(69));
    assert_eq!((show(&plan).as_str(), plan.wake), ("", Some(now(70).moment)));
    let plan = decide(&fleet, &idle(1, 60), &limits(), now(70));
    assert_eq!(show(&plan), "drain i0 unreachable; delete i0");
}

#[test]
fn running_instances_are_prepared_and_unrecorded_ones_go_when_they_are_known_to_be_free() {
    let mut fleet = Fleet::default();
    fleet.listed(&[(id("a"), Seen::Running)], now(0).moment, now(0).moment);
    // It will serve nobody, so nothing is hoped for from it.
    let plan = decide(&fleet, &idle(1, 60), &limits(), now(0));
    assert_eq!(show(&plan), "prepare a; create 1 idle_target");
    fleet.preparing(&id("a"), now(0).moment);
    fleet.prepared(&id("a"), BTreeSet::new(), now(1).moment);
    let plan = decide(&fleet, &idle(1, 60), &limits(), now(1));
    assert_eq!(show(&plan), "create 1 idle_target; delete a");
}

#[test]
fn a_lowered_maximum_drains_idle_instances_at_once() {
    let fleet = ready(5);
    let lowered = Limits { max_instances: 3, ..limits() };
    let plan = decide(&fleet, &idle(3, 600), &lowered, now(10));
    assert_eq!(show(&plan), "drain i0 over_limit; drain i1 over_limit; delete i0,i1");
    // Those that go are counted once, however long the provider lists them.
    let mut fleet = fleet;
    for name in ["i0", "i1"] {
        fleet.drain(&id(name), Reason::OverLimit, now(10).moment);
        let vacant = fleet.vacant(&id(name)).expect("no job");
        fleet.deleting(&[vacant], now(10).moment);
    }
    assert_eq!(show(&decide(&fleet, &idle(3, 600), &lowered, now(11))), "");
}

#[test]
fn a_lowered_maximum_holds_also_where_more_is_wanted() {
    let lowered = Limits { max_instances: 3, ..limits() };
    let plan = decide(&ready(5), &idle(9, 600), &lowered, now(10));
    let drains = "drain i0 over_limit; drain i1 over_limit; delete i0,i1";
    assert_eq!(show(&plan), format!("{drains}; [4 held back: max_instances]"));
}

#[test]
fn jobs_of_before_get_their_connection_back_although_their_instance_drains() {
    let known = crate::fleet::Known { uses: 1, was_ready: true, slots: vec![0], doomed: None };
    let mut fleet = Fleet::default();
    fleet.recorded(id("a"), known, now(0).moment);
    fleet.drain(&id("a"), Reason::Operator, now(1).moment);
    // The provider could not be listed for longer than a connection may be lost.
    fleet.listed(&[(id("a"), Seen::Running)], now(100).moment, now(100).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(100))), "prepare a");
    assert_eq!(show(&decide_end(&fleet, &limits(), Reason::ShuttingDown, now(100))), "prepare a");
    fleet.preparing(&id("a"), now(100).moment);
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(159));
    assert_eq!((show(&plan).as_str(), plan.wake), ("", Some(now(160).moment)));
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(160))), "drain a unreachable");
    fleet.prepared(&id("a"), BTreeSet::new(), now(110).moment);
    assert_eq!(show(&decide(&fleet, &idle(0, 60), &limits(), now(500))), "");
}

#[test]
fn at_the_end_an_instance_that_nothing_is_known_of_is_asked_for_jobs_first() {
    let mut fleet = Fleet::default();
    fleet.listed(&[(id("a"), Seen::Running)], now(0).moment, now(0).moment);
    assert_eq!(show(&decide_end(&fleet, &limits(), Reason::ShuttingDown, now(0))), "prepare a");
    fleet.preparing(&id("a"), now(0).moment);
    assert_eq!(show(&decide_end(&fleet, &limits(), Reason::ShuttingDown, now(1))), "");
    fleet.prepared(&id("a"), BTreeSet::from([0]), now(2).moment);
    assert_eq!(show(&decide_end(&fleet, &limits(), Reason::ShuttingDown, now(2))), "");
    fleet.occupied(&id("a"), BTreeSet::new(), now(9).moment);
    assert_eq!(show(&decide_end(&fleet, &limits(), Reason::ShuttingDown, now(9))), "delete a");
}

#[test]
fn an_instance_of_before_that_does_not_show_up_is_unreachable_not_unfit() {
    let mut fleet = Fleet::default();
    let known = crate::fleet::Known { uses: 1, was_ready: true, slots: vec![0], doomed: None };
    fleet.recorded(id("a"), known, now(0).moment);
    for second in [0, 900] {
        fleet.listed(&[(id("a"), Seen::Coming)], now(second).moment, now(second).moment);
    }
    let plan = decide(&fleet, &idle(0, 60), &limits(), now(900));
    assert_eq!(show(&plan), "drain a unreachable");
}

#[test]
fn creation_that_fails_is_held_back_and_says_so() {
    let mut fleet = known();
    for _ in 0..5 {
        fleet.creation.boot_failed(now(0).moment);
    }
    let plan = decide(&fleet, &idle(3, 60), &limits(), now(1));
    assert_eq!(show(&plan), "[3 held back: boot_failures]");
    assert_eq!(plan.wake, Some(now(80).moment));
    let plan = decide(&fleet, &idle(3, 60), &limits(), now(80));
    assert_eq!(show(&plan), "create 1 idle_target; [2 held back: boot_failures]");
    // Until that one has shown that it comes up, there is no other.
    fleet.asked(1, &limits(), now(80).moment);
    let plan = decide(&fleet, &idle(3, 60), &limits(), now(81));
    assert_eq!((show(&plan).as_str(), plan.wake), ("[2 held back: boot_failures]", None));
}

/// One thing that may happen to a fleet.
#[derive(Clone, Debug)]
enum Event {
    Job,
    JobEnds,
    Accept(u32),
    Refuse,
    Silence,
    Appear,
    Boot,
    Vanish,
    Lose,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Job),
        4 => Just(Event::JobEnds),
        3 => (0..4u32).prop_map(Event::Accept),
        1 => Just(Event::Refuse),
        1 => Just(Event::Silence),
        4 => Just(Event::Appear),
        4 => Just(Event::Boot),
        2 => Just(Event::Vanish),
        1 => Just(Event::Lose),
        3 => (1..120u64).prop_map(Event::Pass),
    ]
}

/// A provider that does what it is asked, late or in part, and a fleet that follows it.
struct World {
    fleet: Fleet,
    provider: Vec<(InstanceId, Seen)>,
    /// When instances that did not appear yet were accepted.
    promised: Vec<u64>,
    calls: Vec<(crate::fleet::AskId, u32)>,
    jobs: Vec<(InstanceId, u32)>,
    born: u32,
    clock: u64,
}

impl World {
    fn happen(&mut self, event: Event, limits: &Limits) {
        let moment = now(self.clock).moment;
        match event {
            Event::Job => self.fleet.wait(),
            Event::JobEnds => {
                if let Some((instance, slot)) = self.jobs.pop() {
                    self.fleet.release(&instance, slot, true, moment);
                }
            }
            Event::Accept(n) => {
                if let Some((ask, asked)) = self.calls.pop() {
                    let n = n.min(asked);
                    self.promised.extend(std::iter::repeat_n(self.clock, n as usize));
                    self.fleet.ask_accepted(ask, n, moment);
                }
            }
            Event::Refuse | Event::Silence => {
                if let Some((ask, _)) = self.calls.pop() {
                    let heard = matches!(event, Event::Refuse);
                    let failure = if heard { AskFailure::Heard } else { AskFailure::Silent };
                    self.fleet.ask_failed(ask, failure, moment);
                }
            }
            Event::Appear => {
                if self.promised.pop().is_some() {
                    self.born += 1;
                    self.provider.push((id(&format!("n{}", self.born)), Seen::Coming));
                }
            }
            Event::Boot => {
                for (_, seen) in &mut self.provider {
                    if *seen == Seen::Coming {
                        *seen = Seen::Running;
                    }
                }
            }
            Event::Vanish => self.provider.retain(|(_, seen)| *seen != Seen::Leaving),
            Event::Lose => {
                self.provider.pop();
            }
            Event::Pass(seconds) => self.clock += seconds,
        }
        // What did not appear within the boot deadline never does.
        self.promised.retain(|accepted| self.clock < accepted + limits.boot_deadline.as_secs());
        let moment = now(self.clock).moment;
        let gone = self.fleet.listed(&self.provider, moment, moment);
        self.jobs.retain(|(instance, _)| gone.iter().all(|gone| gone.id != *instance));
        while self.fleet.waiting() > 0 {
            let Some(job) = self.fleet.acquire(limits, &[]) else { break };
            self.fleet.stop_waiting();
            self.jobs.push(job);
        }
    }

    fn act(&mut self, plan: Plan, limits: &Limits) {
        let moment = now(self.clock).moment;
        for step in plan.steps {
            match step {
                Step::Create { n, .. } => {
                    let ask = self.fleet.asked(n, limits, moment);
                    self.calls.push((ask, n));
                }
                Step::Prepare { id } => {
                    self.fleet.preparing(&id, moment);
                    self.fleet.prepared(&id, BTreeSet::new(), moment);
                }
                Step::Drain { id, reason } => self.fleet.drain(&id, reason, moment),
                Step::GiveUp { ask } => self.fleet.ask_given_up(ask, moment),
                Step::Delete { instances } => {
                    let vacant: Vec<Vacant> =
                        instances.into_iter().map(|(vacant, _)| vacant).collect();
                    self.fleet.deleting(&vacant, moment);
                    for vacant in &vacant {
                        let busy = self.jobs.iter().any(|(instance, _)| instance == vacant.id());
                        assert!(!busy, "{} is deleted under a job", vacant.id());
                        for (id, seen) in &mut self.provider {
                            if id == vacant.id() {
                                *seen = Seen::Leaving;
                            }
                        }
                    }
                    let ids: Vec<_> = vacant.iter().map(|vacant| vacant.id().clone()).collect();
                    self.fleet.deletion_answered(&vacant, &ids, moment);
                }
            }
        }
    }
}

proptest! {
    /// The maximum holds at every step, no busy instance is deleted, and the same fleet
    /// gives the same plan.
    #[test]
    fn invariants_hold_whatever_happens(
        events in prop::collection::vec(event(), 1..120),
        capacity in 1..4u32,
        max_use_count in 0..3u32,
        idle_count in 0..4u32,
    ) {
        let limits = Limits { capacity, max_use_count, max_instances: 4, ..limits() };
        let policy = idle(idle_count, 30);
        let mut world = World {
            fleet: known(), provider: Vec::new(), promised: Vec::new(), calls: Vec::new(),
            jobs: Vec::new(), born: 0, clock: 0,
        };
        for event in events {
            world.happen(event, &limits);
            let plan = decide(&world.fleet, &policy, &limits, now(world.clock));
            prop_assert_eq!(&plan, &decide(&world.fleet, &policy, &limits, now(world.clock)));
            world.act(plan, &limits);
            let real = world.provider.len() + world.promised.len();
            prop_assert!(real <= 4, "{real} instances at the provider");
            prop_assert!(world.fleet.costing() <= 4, "{} counted", world.fleet.costing());
            for instance in world.fleet.instances() {
                prop_assert!(instance.acquired() <= capacity);
                prop_assert!(max_use_count == 0 || instance.uses() <= max_use_count);
            }
        }
    }
}
