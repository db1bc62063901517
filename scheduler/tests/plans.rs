//! Telling situations and the plans that are made in them, as text that people can check.
//!
//! `INSTA_UPDATE=always cargo test -p scheduler --test plans` writes the files in
//! `snapshots/` anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use scheduler::fleet::{AskFailure, AskId, InstanceId, Known, Seen};
use scheduler::limits::Throttle;
use scheduler::period::Period;
use scheduler::plan::{Plan, Reason, Step};
use scheduler::policy::Policy;
use scheduler::time::Moment;
use scheduler::{Fleet, Limits, Now, Schedule, decide, decide_end};

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
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

fn idle(idle_count: u32, idle_s: u64) -> Policy {
    Policy { idle_count, idle_time: Duration::from_secs(idle_s), ..Policy::default() }
}

/// A fleet of ready instances `a`, `b`, …, one more each second.
fn ready(names: &[&str], limits: &Limits) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let ask = fleet.asked(u32::try_from(names.len()).expect("few"), limits, at(0));
    fleet.ask_accepted(ask, u32::MAX, at(0));
    see(&mut fleet, names, 0);
    for (second, name) in (0..).zip(names) {
        fleet.preparing(&id(name), at(0));
        fleet.prepared(&id(name), BTreeSet::new(), at(second));
    }
    fleet
}

/// All of these run, says the provider.
fn see(fleet: &mut Fleet, names: &[&str], second: u64) {
    let list: Vec<_> = names.iter().map(|name| (id(name), Seen::Running)).collect();
    fleet.listed(&list, at(second), at(second));
}

fn wait(fleet: &mut Fleet, jobs: u32) {
    (0..jobs).for_each(|_| fleet.wait());
}

/// What is planned at that second, and from what.
fn planned(fleet: &Fleet, policy: &Policy, limits: &Limits, second: u64) -> String {
    let now = Now { moment: at(second), wall: jiff::Timestamp::UNIX_EPOCH };
    show(&decide(fleet, policy, limits, now), fleet, second)
}

fn show(plan: &Plan, fleet: &Fleet, second: u64) -> String {
    let mut text = format!("at {second} s\n");
    for instance in fleet.instances() {
        let (name, phase) = (instance.id(), instance.phase().as_str());
        let slots: Vec<u32> = instance.slots().collect();
        let _ = writeln!(text, "  {name} {phase}, jobs on {slots:?}, {} uses", instance.uses());
    }
    for ask in fleet.asks() {
        let _ = writeln!(text, "  ask {} for {}: {:?}", ask.id.0, ask.cap, ask.answer);
    }
    let d = &plan.demand;
    let _ = writeln!(
        text,
        "wanted: {} for jobs, {} idle; there: {} free, {} coming, {} in use, {} instances",
        d.waiting, d.idle_target, d.free, d.coming, d.acquired, d.instances
    );
    for step in &plan.steps {
        let line = match step {
            Step::Create { n, reason } => format!("create {n}: {}", reason.sentence()),
            Step::Prepare { id } => format!("prepare {id}"),
            Step::Drain { id, reason } => format!("drain {id}: {}", reason.sentence()),
            Step::Delete { instances } => {
                let each = |(vacant, reason): &(scheduler::fleet::Vacant, Reason)| {
                    format!("{} ({})", vacant.id(), reason.as_str())
                };
                let all: Vec<String> = instances.iter().map(each).collect();
                format!("delete {}", all.join(", "))
            }
            Step::GiveUp { ask } => format!("give ask {} up", ask.0),
        };
        let _ = writeln!(text, "{line}");
    }
    if let Some((n, reason)) = plan.held_back {
        let _ = writeln!(text, "held back {n}: {}", reason.sentence());
    }
    match plan.wake {
        Some(wake) => writeln!(text, "wakes at {:?}", wake.0),
        None => writeln!(text, "wakes when something happens"),
    }
    .expect("text");
    text
}

#[test]
fn a_burst_at_zero_is_served_up_to_the_maximum() {
    let mut fleet = ready(&[], &limits());
    wait(&mut fleet, 27);
    let two = Limits { capacity: 2, ..limits() };
    insta::assert_snapshot!(planned(&fleet, &idle(0, 60), &two, 5));
}

#[test]
fn the_idle_target_grows_with_what_is_used() {
    let mut fleet = ready(&["a", "b", "c", "d"], &limits());
    for _ in 0..4 {
        fleet.acquire(&limits(), &[]).expect("a free slot");
    }
    let policy = Policy { scale_factor: 1.5, scale_factor_limit: 5, ..idle(1, 60) };
    insta::assert_snapshot!(planned(&fleet, &policy, &limits(), 5));
}

#[test]
fn the_longest_idle_go_and_the_next_one_has_its_time() {
    let fleet = ready(&["a", "b", "c", "d"], &limits());
    insta::assert_snapshot!(planned(&fleet, &idle(1, 60), &limits(), 61));
}

#[test]
fn a_lowered_maximum_goes_before_the_idle_target() {
    let mut fleet = ready(&["a", "b", "c", "d", "e"], &limits());
    fleet.acquire(&limits(), &[]).expect("a free slot");
    let lowered = Limits { max_instances: 3, ..limits() };
    insta::assert_snapshot!(planned(&fleet, &idle(8, 600), &lowered, 30));
}

#[test]
fn an_instance_that_is_used_up_is_replaced_while_its_last_job_runs() {
    let once = Limits { capacity: 2, max_use_count: 2, ..limits() };
    let mut fleet = ready(&["a"], &once);
    for _ in 0..2 {
        fleet.acquire(&once, &[]).expect("a free slot");
    }
    insta::assert_snapshot!(planned(&fleet, &idle(2, 60), &once, 10));
}

#[test]
fn a_call_without_an_answer_counts_in_full() {
    let mut fleet = ready(&["a"], &limits());
    let ask = fleet.asked(8, &limits(), at(10));
    fleet.ask_failed(ask, AskFailure::Silent, at(130));
    wait(&mut fleet, 12);
    see(&mut fleet, &["a"], 140);
    insta::assert_snapshot!(planned(&fleet, &idle(0, 600), &limits(), 140));
}

#[test]
fn after_boot_failures_nothing_is_made_for_a_while_and_then_one() {
    let mut fleet = ready(&[], &limits());
    for _ in 0..4 {
        fleet.creation.boot_failed(at(10));
    }
    wait(&mut fleet, 3);
    let paused = planned(&fleet, &idle(0, 60), &limits(), 49);
    let tried = planned(&fleet, &idle(0, 60), &limits(), 50);
    insta::assert_snapshot!(paused + "\n" + &tried);
}

#[test]
fn the_throttle_and_failing_calls_say_until_when() {
    let slow = Limits { throttle: Throttle::PerSecond { limit: 2, burst: 3 }, ..limits() };
    let mut fleet = ready(&[], &slow);
    wait(&mut fleet, 9);
    let throttled = planned(&fleet, &idle(0, 60), &slow, 10);
    let ask = fleet.asked(3, &slow, at(10));
    fleet.ask_failed(ask, AskFailure::NotSent, at(11));
    see(&mut fleet, &[], 11);
    let failing = planned(&fleet, &idle(0, 60), &slow, 11);
    insta::assert_snapshot!(throttled + "\n" + &failing);
}

#[test]
fn lost_connections_are_waited_for_and_then_given_up() {
    let two = Limits { capacity: 2, ..limits() };
    let mut fleet = ready(&["a", "b"], &two);
    fleet.acquire(&two, &[]).expect("a free slot");
    fleet.preparing(&id("a"), at(100));
    fleet.preparing(&id("b"), at(110));
    let waits = planned(&fleet, &idle(1, 600), &two, 159);
    let given_up = planned(&fleet, &idle(1, 600), &two, 160);
    insta::assert_snapshot!(waits + "\n" + &given_up);
}

#[test]
fn a_deletion_that_had_no_effect_is_tried_again() {
    let mut fleet = ready(&["a", "b"], &limits());
    for name in ["a", "b"] {
        fleet.drain(&id(name), Reason::SlotFailed, at(10));
    }
    let vacant = fleet.vacant(&id("a")).expect("no job");
    fleet.deleting(std::slice::from_ref(&vacant), at(10));
    fleet.deletion_answered(&[vacant], &[], at(12));
    let first = planned(&fleet, &idle(0, 60), &limits(), 20);
    let again = planned(&fleet, &idle(0, 60), &limits(), 72);
    insta::assert_snapshot!(first + "\n" + &again);
}

/// What a new process finds: a job that runs, an instance that is free, one that nothing
/// is known of, and an ask of which nobody heard the answer.
fn restarted() -> Fleet {
    let mut fleet = Fleet::default();
    let known =
        |slots: &[u32]| Known { uses: 3, was_ready: true, slots: slots.to_vec(), doomed: None };
    fleet.recorded(id("busy"), known(&[1]), at(0));
    fleet.recorded(id("free"), known(&[]), at(0));
    fleet.recorded_ask(AskId(7), 2, None, at(0));
    fleet
}

#[test]
fn a_new_process_waits_for_the_first_list_and_counts_what_was_asked_for() {
    let mut fleet = restarted();
    wait(&mut fleet, 9);
    let unknown = planned(&fleet, &idle(0, 60), &limits(), 0);
    see(&mut fleet, &["busy", "free", "new", "other", "unknown"], 1);
    let listed = planned(&fleet, &idle(0, 60), &limits(), 1);
    insta::assert_snapshot!(unknown + "\n" + &listed);
}

#[test]
fn at_the_end_all_go_but_what_runs_jobs_or_may_run_some() {
    let mut fleet = restarted();
    see(&mut fleet, &["busy", "free", "new", "other", "unknown"], 1);
    for name in ["busy", "free"] {
        fleet.preparing(&id(name), at(1));
        fleet.prepared(&id(name), BTreeSet::new(), at(2));
    }
    let now = Now { moment: at(3), wall: jiff::Timestamp::UNIX_EPOCH };
    insta::assert_snapshot!(show(
        &decide_end(&fleet, &limits(), Reason::ShuttingDown, now),
        &fleet,
        3
    ));
}

#[test]
fn the_policy_of_the_hour_decides() {
    let fleet = ready(&["a", "b"], &limits());
    let office = Policy {
        periods: vec![Period::parse("* 8-17 * * mon-fri").expect("a period")],
        ..idle(4, 1800)
    };
    let schedule = Schedule::new(vec![idle(1, 60), office]);
    let mut text = String::new();
    for wall in ["2026-11-25T07:59:00Z", "2026-11-25T08:00:00Z", "2026-11-25T18:00:00Z"] {
        let now = Now { moment: at(600), wall: wall.parse().expect("a time") };
        let plan = decide(&fleet, schedule.at(now.wall), &limits(), now);
        let _ = writeln!(text, "{wall}, {}", show(&plan, &fleet, 600));
    }
    insta::assert_snapshot!(text);
}
