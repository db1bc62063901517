use std::time::Duration;

use super::*;
use crate::policy::Policy;

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn id(name: &str) -> InstanceId {
    InstanceId(name.into())
}

fn limits(capacity: u32, max_use_count: u32) -> Limits {
    Limits { capacity, max_use_count, ..Limits::default() }
}

/// A list such as `a=running b=coming`.
fn list(text: &str) -> Vec<(InstanceId, Seen)> {
    let entry = |word: &str| {
        let (name, state) = word.split_once('=').expect("name=state");
        let seen = match state {
            "coming" => Seen::Coming,
            "running" => Seen::Running,
            "leaving" => Seen::Leaving,
            "deleted" => Seen::Deleted,
            "timeout" => Seen::Timeout,
            other => panic!("{other}"),
        };
        (id(name), seen)
    };
    text.split_whitespace().map(entry).collect()
}

/// A fleet of ready instances.
fn ready(names: &[&str]) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let limits = limits(1, 0);
    let ask = fleet.asked(u32::try_from(names.len()).expect("few"), &limits, at(0));
    fleet.ask_accepted(ask, u32::MAX, at(0));
    for name in names {
        fleet.listed(&list(&format!("{name}=running")), at(0), at(0));
        fleet.preparing(&id(name), at(0));
        fleet.prepared(&id(name), BTreeSet::new(), at(0));
    }
    fleet
}

fn phases(fleet: &Fleet) -> String {
    let show = |i: &Instance| format!("{}={}", i.id(), i.phase().as_str());
    fleet.instances().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_ask_counts_in_full_until_its_instances_are_seen() {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let ask = fleet.asked(3, &limits(1, 0), at(1));
    assert_eq!(fleet.costing(), 3);
    // They may be listed before the call returns.
    fleet.listed(&list("a=coming"), at(1), at(1));
    assert_eq!(fleet.costing(), 3);
    fleet.ask_accepted(ask, 3, at(1));
    fleet.listed(&list("a=coming b=coming c=coming"), at(2), at(2));
    assert_eq!(fleet.costing(), 3);
    assert!(fleet.asks().is_empty());
    assert!(fleet.instances().all(|instance| instance.origin() == Origin::Asked));
}

#[test]
fn an_ask_that_was_partly_accepted_counts_what_was_accepted() {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let ask = fleet.asked(5, &limits(1, 0), at(1));
    fleet.ask_accepted(ask, 2, at(1));
    assert_eq!(fleet.costing(), 2);
    let none = fleet.asked(5, &limits(1, 0), at(1));
    fleet.ask_accepted(none, 0, at(1));
    assert_eq!(fleet.costing(), 2);
}

#[test]
fn an_answer_tells_whose_instances_were_seen_before_it() {
    // Its own two were seen while the call was under way: none is to come.
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let ask = fleet.asked(5, &limits(1, 0), at(1));
    fleet.listed(&list("a=coming b=coming"), at(2), at(2));
    fleet.ask_accepted(ask, 2, at(3));
    assert_eq!((fleet.costing(), fleet.asks().len()), (2, 0));

    // It made nothing: what was taken for its own is the other's.
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let ask = fleet.asked(1, &limits(1, 0), at(1));
    let other = fleet.asked(1, &limits(1, 0), at(1));
    fleet.ask_accepted(other, 1, at(2));
    fleet.listed(&list("a=coming"), at(2), at(2));
    assert_eq!(fleet.costing(), 2);
    fleet.ask_accepted(ask, 0, at(3));
    assert_eq!((fleet.costing(), fleet.asks().len()), (1, 0));
}

#[test]
fn a_provider_that_accepts_fewer_is_asked_for_the_rest_after_a_pause() {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let limits = limits(1, 0);
    let mut pauses = Vec::new();
    for accepted in [2, 0, 0, 3] {
        let ask = fleet.asked(3, &limits, at(10));
        fleet.ask_accepted(ask, accepted, at(10));
        let until = |second: &u64| {
            let now = Now { moment: at(*second), wall: jiff::Timestamp::UNIX_EPOCH };
            fleet.may_create(1, &limits, now).0 > 0
        };
        pauses.push((10..).find(until).expect("some time") - 10);
    }
    assert_eq!(pauses, [1, 2, 4, 0]);
}

#[test]
fn an_ask_without_an_answer_counts_until_a_later_list_tells() {
    // The plugin said no, yet one instance was made: the next list shows it.
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let ask = fleet.asked(3, &limits(1, 0), at(10));
    fleet.ask_failed(ask, AskFailure::Heard, at(11));
    assert_eq!(fleet.costing(), 3);
    fleet.listed(&list("a=coming"), at(15), at(15));
    assert_eq!(fleet.costing(), 3, "its cloud may list the others a moment later");
    fleet.listed(&list("a=coming"), at(16), at(16));
    assert_eq!(fleet.costing(), 1);

    // Silence may take effect later.
    let ask = fleet.asked(2, &limits(1, 0), at(20));
    fleet.ask_failed(ask, AskFailure::Silent, at(30));
    fleet.listed(&list("a=coming"), at(40), at(40));
    assert_eq!(fleet.costing(), 3);
    fleet.listed(&list("a=coming b=coming"), at(60), at(60));
    assert_eq!(fleet.costing(), 3);
    fleet.listed(&list("a=coming b=coming"), at(90), at(90));
    assert_eq!(fleet.costing(), 2);
}

#[test]
fn origins_tell_who_wanted_an_instance() {
    let mut fleet = Fleet::default();
    let known = Known { uses: 2, was_ready: true, slots: vec![0], doomed: None };
    fleet.recorded(id("r"), known, at(0));
    fleet.listed(&list("r=running p=running"), at(0), at(0));
    // The first list may have left something out.
    fleet.listed(&list("r=running p=running l=running"), at(60), at(60));
    fleet.listed(&list("r=running p=running l=running u=running"), at(200), at(200));
    let origin = |name: &str| fleet.instance(&id(name)).expect("known").origin();
    assert_eq!(origin("r"), Origin::Recorded);
    assert_eq!(origin("p"), Origin::Unrecorded);
    assert_eq!(origin("l"), Origin::Unrecorded);
    assert_eq!(origin("u"), Origin::Unexpected);
    let recorded = fleet.instance(&id("r")).expect("known");
    assert_eq!((recorded.uses(), recorded.acquired()), (2, 1));
}

#[test]
fn what_is_gone_at_the_provider_is_not_adopted() {
    let mut fleet = Fleet::default();
    fleet.listed(&list("a=deleted b=timeout"), at(0), at(0));
    assert_eq!(phases(&fleet), "");
    // What was asked for and is given up before it was ever listed exists all the same.
    let ask = fleet.asked(2, &limits(1, 0), at(1));
    fleet.ask_accepted(ask, 2, at(1));
    // Soon after the start it may also be of before, and run jobs.
    fleet.listed(&list("a=deleted b=timeout c=timeout"), at(2), at(2));
    assert_eq!(phases(&fleet), "c=running");
    fleet.listed(&list("a=deleted b=timeout c=timeout d=timeout"), at(200), at(200));
    assert_eq!(phases(&fleet), "c=running d=draining");
    assert_eq!(fleet.costing(), 2);
}

#[test]
fn what_was_asked_for_and_failed_before_it_was_seen_is_waited_for_no_longer() {
    let mut fleet = Fleet::default();
    let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
    fleet.listed(&list("old=deleted"), at(0), at(0));
    let ask = fleet.asked(3, &limits, at(201));
    fleet.ask_accepted(ask, 3, at(201));
    // What was over before the ask is none of it, also if a list lacks it once.
    fleet.listed(&[], at(202), at(202));
    fleet.listed(&list("old=deleted a=timeout b=deleted"), at(203), at(203));
    assert_eq!(phases(&fleet), "a=draining");
    assert_eq!((fleet.costing(), fleet.creation.boot_failures()), (3, 1));
    assert_eq!((fleet.outstanding(), fleet.expected()), (2, 1));
    // Told again, they are not counted again.
    fleet.listed(&list("old=deleted a=deleted b=deleted"), at(204), at(204));
    fleet.listed(&list("old=deleted a=deleted b=deleted"), at(205), at(205));
    assert_eq!((fleet.costing(), fleet.creation.boot_failures()), (2, 2));
    // Some providers give an id out again.
    fleet.listed(&list("a=running"), at(206), at(206));
    assert_eq!((phases(&fleet).as_str(), fleet.outstanding()), ("a=running", 1));
    // What is gone was of this ask, since nothing more came.
    fleet.listed(&list("a=running"), at(264), at(264));
    assert_eq!((fleet.costing(), fleet.asks().len()), (1, 0));
}

#[test]
fn one_missing_list_is_not_the_end() {
    let mut fleet = ready(&["a"]);
    for second in [1, 2, 3, 29] {
        assert_eq!(fleet.listed(&[], at(second), at(second)), []);
    }
    let gone = fleet.listed(&[], at(31), at(31));
    assert_eq!((gone.len(), gone[0].wanted), (1, false));

    // Seen in between, it starts anew.
    let mut fleet = ready(&["a"]);
    for second in [1, 20, 40, 60] {
        let seen = if second == 20 { list("a=running") } else { Vec::new() };
        assert_eq!(fleet.listed(&seen, at(second), at(second)), []);
    }
}

#[test]
fn a_busy_instance_is_given_more_time() {
    let mut fleet = ready(&["a"]);
    fleet.acquire(&limits(1, 0), &[]).expect("free");
    for second in [1, 60, 120, 299] {
        assert_eq!(fleet.listed(&[], at(second), at(second)), []);
    }
    let gone = fleet.listed(&[], at(302), at(302));
    assert_eq!(gone[0].lost_slots, [0]);
}

#[test]
fn deletion_is_over_when_the_provider_no_longer_lists_it() {
    let mut fleet = ready(&["a"]);
    fleet.drain(&id("a"), Reason::IdleTooLong, at(1));
    let vacant = fleet.vacant(&id("a")).expect("no job");
    fleet.deleting(std::slice::from_ref(&vacant), at(2));
    fleet.deletion_answered(&[vacant], &[id("a")], at(2));
    assert_eq!(fleet.listed(&list("a=running"), at(3), at(3)), []);
    assert_eq!(fleet.costing(), 1);
    // A list may leave out what exists: it is not new when it is listed again.
    assert_eq!(fleet.listed(&[], at(4), at(4)), []);
    assert_eq!(fleet.listed(&list("a=running"), at(5), at(5)), []);
    assert_eq!(phases(&fleet), "a=deleting");
    for second in [6, 7] {
        assert_eq!(fleet.listed(&[], at(second), at(second)), []);
    }
    let gone = fleet.listed(&[], at(8), at(8));
    assert!(gone[0].wanted);
    assert_eq!(fleet.costing(), 0);

    // The provider's word is enough.
    let mut fleet = ready(&["a"]);
    let vacant = fleet.vacant(&id("a")).expect("no job");
    fleet.deleting(&[vacant], at(2));
    assert_eq!(fleet.listed(&list("a=deleted"), at(3), at(3)).len(), 1);
}

#[test]
fn an_instance_with_a_job_has_no_proof_of_vacancy() {
    let mut fleet = ready(&["a"]);
    let (instance, slot) = fleet.acquire(&limits(1, 0), &[]).expect("free");
    assert_eq!(fleet.vacant(&instance), None);
    fleet.release(&instance, slot, true, at(5));
    assert!(fleet.vacant(&instance).is_some());
    assert_eq!(fleet.instance(&instance).expect("known").idle_since(), at(5));
}

#[test]
fn slots_are_used_oldest_instance_first_and_lowest_number_first() {
    let mut fleet = ready(&["b", "a"]);
    let limits = limits(2, 0);
    let mut got = Vec::new();
    while let Some((instance, slot)) = fleet.acquire(&limits, &[]) {
        got.push(format!("{instance}{slot}"));
    }
    assert_eq!(got.join(" "), "a0 a1 b0 b1");
    fleet.release(&id("a"), 0, true, at(1));
    assert_eq!(fleet.acquire(&limits, &[id("a")]), None);
    assert_eq!(fleet.acquire(&limits, &[]), Some((id("a"), 0)));
}

#[test]
fn an_instance_is_never_used_more_often_than_it_may() {
    let mut fleet = ready(&["a"]);
    let limits = limits(2, 3);
    assert_eq!(fleet.free(&limits), 2);
    for _ in 0..3 {
        let (instance, slot) = fleet.acquire(&limits, &[]).expect("free");
        fleet.release(&instance, slot, true, at(1));
    }
    assert_eq!((fleet.free(&limits), fleet.acquire(&limits, &[])), (0, None));
    // A job that never began there did not use it.
    let mut fleet = ready(&["a"]);
    let (instance, slot) = fleet.acquire(&limits, &[]).expect("free");
    fleet.release(&instance, slot, false, at(1));
    assert_eq!(fleet.instance(&instance).expect("known").uses(), 0);
}

#[test]
fn what_the_provider_gave_up_on_is_drained_not_forgotten() {
    let mut fleet = ready(&["a"]);
    fleet.listed(&list("a=timeout"), at(1), at(1));
    assert_eq!(phases(&fleet), "a=draining");
    assert_eq!(
        fleet.instance(&id("a")).expect("known").drain_reason(),
        Some(Reason::ReportedTimeout)
    );
}

#[test]
fn what_the_provider_gave_up_on_gets_no_jobs_although_it_answers() {
    let mut fleet = ready(&[]);
    fleet.listed(&list("a=running"), at(200), at(200));
    fleet.preparing(&id("a"), at(200));
    fleet.listed(&list("a=timeout"), at(201), at(201));
    fleet.prepared(&id("a"), BTreeSet::new(), at(202));
    assert_eq!((phases(&fleet).as_str(), fleet.free(&limits(1, 0))), ("a=draining", 0));
}

#[test]
fn promises_and_waiting_jobs_are_counted() {
    let mut fleet = ready(&[]);
    fleet.reserve();
    fleet.reserve();
    fleet.unreserve();
    fleet.wait();
    assert_eq!((fleet.reserved(), fleet.waiting()), (0, 1));
    fleet.stop_waiting();
    fleet.stop_waiting();
    assert_eq!((fleet.reserved(), fleet.waiting()), (0, 0));
}

#[test]
fn an_ask_of_before_this_process_explains_instances_that_nobody_recorded() {
    let mut fleet = Fleet::default();
    fleet.recorded_ask(AskId(4), 1, None, at(0));
    fleet.listed(&list("a=coming b=running"), at(0), at(0));
    let origins: Vec<_> = fleet.instances().map(Instance::origin).collect();
    assert_eq!(origins, [Origin::Asked, Origin::Unrecorded]);
    assert_eq!(fleet.costing(), 2);
}

#[test]
fn what_a_call_without_effect_took_is_not_waited_for_twice() {
    let mut fleet = Fleet::default();
    let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
    fleet.recorded_ask(AskId(4), 1, None, at(0));
    fleet.listed(&[], at(1), at(1));
    let accepted = fleet.asked(2, &limits, at(2));
    fleet.ask_accepted(accepted, 2, at(3));
    // Of whose ask it is, nobody can say: the older one waits no longer.
    fleet.listed(&list("a=coming"), at(4), at(4));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (3, 3));
    let ask = fleet.asked(1, &limits, at(10));
    fleet.ask_failed(ask, AskFailure::Silent, at(10));
    fleet.listed(&list("a=coming b=coming c=coming"), at(20), at(20));
    // All that was accepted is there; the call without an answer made nothing.
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (4, 3));
    // Two of the three may be those calls', and one of the accepted two be late.
    fleet.listed(&list("a=coming b=coming c=coming"), at(71), at(71));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (4, 3));
    fleet.ask_given_up(accepted, at(903));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (3, 3));
    assert_eq!((fleet.asks().len(), fleet.creation.boot_failures()), (0, 0));
}

#[test]
fn a_call_without_effect_makes_no_later_ask_wait_in_vain() {
    let mut fleet = Fleet::default();
    let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
    // A killed manager wrote down that it would ask, and did not.
    fleet.recorded_ask(AskId(4), 1, None, at(0));
    fleet.listed(&[], at(6), at(6));
    let mut last = AskId(4);
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        let now = 7 + 3 * n as u64;
        last = fleet.asked(1, &limits, at(now));
        fleet.ask_accepted(last, 1, at(now));
        assert_eq!((fleet.costing(), fleet.coming(&limits)), (2, 1), "{name}");
        fleet.listed(&list(&format!("{name}=running")), at(now + 1), at(now + 1));
        fleet.listed(&list(&format!("{name}=deleted")), at(now + 2), at(now + 2));
        assert_eq!((fleet.costing(), fleet.coming(&limits)), (1, 0), "{name}");
    }
    // One of the three may have been the call's, and one of the others be late.
    fleet.listed(&[], at(61), at(61));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (1, 0));
    fleet.ask_given_up(last, at(913));
    assert_eq!((fleet.costing(), fleet.asks().len()), (0, 0));
}

#[test]
fn an_ask_whose_instance_was_taken_for_anothers_counts_and_is_not_waited_for() {
    let mut fleet = Fleet::default();
    let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
    fleet.listed(&[], at(0), at(0));
    let silent = fleet.asked(1, &limits, at(1));
    fleet.ask_failed(silent, AskFailure::Silent, at(1));
    let accepted = fleet.asked(2, &limits, at(2));
    fleet.ask_accepted(accepted, 2, at(2));
    fleet.listed(&list("a=coming"), at(3), at(3));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (3, 3));
    // The silent call is known by now to have made nothing, or `a`: one of the two that are
    // still counted may not come.
    fleet.listed(&list("a=coming"), at(62), at(62));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (3, 2));
    fleet.listed(&list("a=coming b=coming"), at(70), at(70));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (3, 2));
    // It may be late, as anything that was accepted; and once more than that come, it is there.
    let mut late = fleet.clone();
    late.listed(&list("a=coming b=coming c=coming"), at(500), at(500));
    assert_eq!((late.costing(), late.asks().len()), (3, 0));
    fleet.ask_given_up(accepted, at(902));
    assert_eq!((fleet.costing(), fleet.asks().len()), (2, 0));
    assert_eq!(fleet.creation.boot_failures(), 0);
}

#[test]
fn an_instance_of_a_call_without_an_answer_makes_no_room_for_another() {
    let mut fleet = Fleet::default();
    let limits = Limits { max_instances: 4, ..limits(1, 0) };
    fleet.listed(&[], at(0), at(0));
    let silent = fleet.asked(1, &limits, at(1));
    fleet.ask_failed(silent, AskFailure::Silent, at(1));
    fleet.listed(&[], at(6), at(6));
    let pending = fleet.asked(3, &limits, at(6));
    // It is the silent call's, although only the other one is waited for.
    fleet.listed(&list("a=coming"), at(7), at(7));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (4, 3));
    fleet.listed(&list("a=coming"), at(62), at(62));
    assert_eq!((fleet.costing(), fleet.coming(&limits)), (4, 3));
    fleet.ask_accepted(pending, 3, at(63));
    fleet.listed(&list("a=coming b=coming c=coming d=coming"), at(64), at(64));
    assert_eq!((fleet.costing(), fleet.asks().len()), (4, 0));
}

#[test]
fn a_short_answer_leaves_no_later_ask_waiting_in_vain() {
    let mut fleet = Fleet::default();
    let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
    fleet.listed(&[], at(0), at(0));
    let without_effect = fleet.asked(4, &limits, at(0));
    let first = fleet.asked(1, &limits, at(1));
    fleet.listed(&list("a=coming"), at(1), at(1));
    let second = fleet.asked(1, &limits, at(2));
    fleet.listed(&list("b=coming"), at(2), at(2));
    fleet.ask_accepted(first, 1, at(3));
    fleet.ask_failed(without_effect, AskFailure::Heard, at(3));
    fleet.ask_accepted(second, 1, at(4));
    let short = fleet.asked(2, &limits, at(5));
    fleet.listed(&[], at(6), at(6));
    let third = fleet.asked(1, &limits, at(7));
    fleet.listed(&list("c=coming"), at(7), at(7));
    fleet.listed(&[], at(8), at(8));
    let refused = fleet.asked(2, &limits, at(9));
    fleet.ask_accepted(third, 1, at(9));
    fleet.listed(&list("d=coming"), at(10), at(10));
    fleet.ask_accepted(short, 1, at(13));
    fleet.ask_accepted(refused, 0, at(14));
    // All four that were accepted are there.
    assert_eq!(fleet.expected(), 0);
    for (n, name) in ["e", "f", "g"].iter().enumerate() {
        let now = 20 + 2 * n as u64;
        let ask = fleet.asked(1, &limits, at(now));
        fleet.ask_accepted(ask, 1, at(now));
        assert_eq!(fleet.expected(), 1, "{name}");
        fleet.listed(&list(&format!("{name}=coming")), at(now + 1), at(now + 1));
        assert_eq!(fleet.expected(), 0, "{name}");
    }
}

/// One ask every two seconds, whose instance is listed after the next one was sent.
#[test]
fn a_lost_answer_in_a_steady_flow_is_off_by_no_more_than_it_was_for() {
    for made in [0, 1] {
        let mut fleet = Fleet::default();
        let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
        fleet.listed(&[], at(0), at(0));
        let lost = fleet.asked(1, &limits, at(1));
        fleet.ask_failed(lost, AskFailure::Silent, at(1));
        let mut names = if made == 1 { "lost=coming".to_owned() } else { String::new() };
        for n in 0..200 {
            let now = 10 + 2 * n;
            let ask = fleet.asked(1, &limits, at(now));
            fleet.ask_accepted(ask, 1, at(now));
            fleet.listed(&list(&names), at(now + 1), at(now + 1));
            // One is truly on its way.
            let is_known_to_be_lost = made == 0 && now + 1 >= 61;
            let expected = fleet.expected();
            assert!(expected == 1 || expected == 0 && !is_known_to_be_lost, "{made}, {now} s");
            assert!((1..=2).contains(&fleet.outstanding()), "{made}, {now} s");
            assert!(fleet.asks().len() <= 3, "{made}, {now} s: {:?}", fleet.asks());
            names = format!("i{n}=coming");
        }
        // As soon as all have come nothing is in doubt, if the call had an effect.
        fleet.listed(&list(&names), at(420), at(420));
        assert_eq!((fleet.expected(), fleet.outstanding()), (0, 1 - made), "{made}");
        fleet.listed(&[], at(1080), at(1080));
        assert_eq!((fleet.expected(), fleet.outstanding()), (0, 1 - made), "{made}");
        // If it had none, what would be missing otherwise would have come by now.
        fleet.listed(&[], at(1081), at(1081));
        assert_eq!((fleet.outstanding(), fleet.asks().len()), (0, 0), "{made}");
    }
}

#[test]
fn what_leaves_or_is_gone_soon_after_the_start_takes_no_asks_place() {
    for seen in ["leaving", "deleted"] {
        let mut fleet = Fleet::default();
        let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
        fleet.listed(&[], at(0), at(0));
        let ask = fleet.asked(2, &limits, at(1));
        fleet.ask_accepted(ask, 2, at(1));
        fleet.listed(&list(&format!("x={seen}")), at(2), at(2));
        let there = u32::from(seen != "deleted");
        assert_eq!((fleet.costing(), fleet.coming(&limits)), (2 + there, 1), "{seen}");
        assert_eq!(fleet.creation.boot_failures(), u32::from(seen == "deleted"), "{seen}");
        fleet.listed(&list("a=running b=running"), at(3), at(3));
        assert_eq!((fleet.asks().len(), fleet.coming(&limits)), (0, 2), "{seen}");
    }
}

#[test]
fn an_instance_that_is_known_for_jobs_of_others_is_asked_for_them_and_comes_of_no_ask() {
    let mut fleet = Fleet::default();
    fleet.unrecorded(id("a"), at(0));
    fleet.recorded_ask(AskId(4), 1, None, at(0));
    fleet.listed(&list("a=running"), at(0), at(0));
    assert_eq!((phases(&fleet).as_str(), fleet.asks().len()), ("a=running", 1));
    assert!(fleet.instance(&id("a")).expect("known").may_be_busy());
}

#[test]
fn a_drain_can_be_taken_back_while_jobs_are_followed() {
    let mut fleet = ready(&["a", "b"]);
    let limits = limits(1, 0);
    assert!(!fleet.keep(&id("a"), at(1)));
    let (a, slot) = fleet.acquire(&limits, &[]).expect("free");
    fleet.drain(&a, Reason::Operator, at(1));
    assert!(fleet.keep(&a, at(2)));
    assert_eq!(phases(&fleet), "a=ready b=ready");
    fleet.release(&a, slot, true, at(3));
    assert_eq!(fleet.free(&limits), 2);
    // Not what drains for another reason, is cut off, or is being deleted.
    fleet.drain(&id("b"), Reason::MaxUseCount, at(4));
    assert!(!fleet.keep(&id("b"), at(4)));
    fleet.drain(&a, Reason::Operator, at(5));
    fleet.preparing(&a, at(5));
    assert!(!fleet.keep(&a, at(5)));
    fleet.prepared(&a, BTreeSet::new(), at(6));
    let vacant = fleet.vacant(&a).expect("no job");
    fleet.deleting(&[vacant], at(6));
    assert!(!fleet.keep(&a, at(6)));
}

#[test]
fn jobs_of_someone_unknown_keep_an_instance() {
    let mut fleet = Fleet::default();
    fleet.listed(&list("a=running"), at(0), at(0));
    fleet.preparing(&id("a"), at(0));
    fleet.prepared(&id("a"), BTreeSet::from([1]), at(1));
    assert_eq!(phases(&fleet), "a=draining");
    assert_eq!(fleet.vacant(&id("a")), None);
    fleet.occupied(&id("a"), BTreeSet::new(), at(9));
    assert!(fleet.vacant(&id("a")).is_some());
}

#[test]
fn what_may_run_jobs_of_someone_unknown_is_not_drained_before_it_tells() {
    let mut fleet = Fleet::default();
    fleet.listed(&list("a=running b=running"), at(0), at(0));
    for name in ["a", "b"] {
        fleet.drain(&id(name), Reason::Operator, at(1));
        fleet.preparing(&id(name), at(1));
    }
    fleet.listed(&list("a=timeout b=running"), at(2), at(2));
    assert_eq!(phases(&fleet), "a=preparing b=preparing");
    fleet.prepared(&id("a"), BTreeSet::from([0]), at(3));
    fleet.prepared(&id("b"), BTreeSet::new(), at(3));
    assert_eq!(phases(&fleet), "a=draining b=draining");
    assert_eq!((fleet.vacant(&id("a")), fleet.vacant(&id("b")).is_some()), (None, true));
}

#[test]
fn instances_that_go_before_they_were_of_use_hold_creation_back() {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    let limits = Limits { throttle: crate::limits::Throttle::Unlimited, ..limits(1, 0) };
    let ask = fleet.asked(3, &limits, at(0));
    fleet.ask_accepted(ask, 3, at(0));
    fleet.listed(&list("a=running b=coming c=coming"), at(1), at(1));
    fleet.listed(&list("a=deleted b=deleted c=timeout"), at(2), at(2));
    assert_eq!(fleet.creation.boot_failures(), 2);
    fleet.listed(&list("c=deleted"), at(3), at(3));
    assert_eq!(fleet.creation.boot_failures(), 3);

    // One that was ready, or that we wanted gone, says nothing of the image.
    let mut fleet = ready(&["a", "b"]);
    fleet.drain(&id("b"), Reason::ShuttingDown, at(1));
    fleet.listed(&list("a=deleted b=deleted"), at(2), at(2));
    assert_eq!(fleet.creation.boot_failures(), 0);

    // Nor do those that were on their way out when they were first seen, at a manager's
    // start or later. One that was asked for does.
    let mut fleet = Fleet::default();
    fleet.listed(&list("a=leaving"), at(0), at(0));
    fleet.listed(&list("a=leaving b=leaving"), at(1), at(1));
    fleet.listed(&list("a=deleted b=deleted"), at(2), at(2));
    assert_eq!(fleet.creation.boot_failures(), 0);
    let ask = fleet.asked(1, &limits, at(203));
    fleet.ask_accepted(ask, 1, at(203));
    fleet.listed(&list("c=leaving"), at(204), at(204));
    fleet.listed(&list("c=deleted"), at(205), at(205));
    assert_eq!(fleet.creation.boot_failures(), 1);
}

/// A fleet that has seen six instances come up, each in so many seconds.
fn experienced(boot_s: u64) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.listed(&[], at(0), at(0));
    for n in 0..6 {
        let name = format!("i{n}");
        let ask = fleet.asked(1, &limits(1, 0), at(0));
        fleet.ask_accepted(ask, 1, at(1));
        fleet.listed(&list(&format!("{name}=running")), at(boot_s), at(boot_s));
        fleet.preparing(&id(&name), at(boot_s));
        fleet.prepared(&id(&name), BTreeSet::new(), at(boot_s));
        fleet.listed(&list(&format!("{name}=deleted")), at(boot_s), at(boot_s));
    }
    fleet
}

#[test]
fn one_of_before_that_is_given_up_early_says_that_the_others_may_take_longer() {
    let mut fleet = experienced(40);
    fleet.recorded(id("x"), Known::default(), at(50));
    let limits = limits(1, 0);
    assert_eq!(fleet.boots.deadline(limits.boot_deadline), Duration::from_secs(160));
    fleet.drain(&id("x"), Reason::BootDeadline, at(250));
    assert_eq!(fleet.boots.deadline(limits.boot_deadline), Duration::from_secs(800));
    assert_eq!(fleet.creation.boot_failures(), 0);
}

fn promise(fleet: &Fleet, policy: &Policy, limits: &Limits, seconds: u64) -> Result<(), NoSlot> {
    let now = Now { moment: at(seconds), wall: jiff::Timestamp::UNIX_EPOCH };
    fleet.may_promise(policy, limits, Duration::from_secs(600), now)
}

#[test]
fn slots_are_promised_as_far_as_they_are_there_or_may_be_made() {
    let two = Limits { max_instances: 2, ..limits(1, 0) };
    let mut fleet = ready(&["a"]);
    let idle = Policy { idle_count: 1, ..Policy::default() };
    for expected in [Ok(()), Ok(()), Err(NoSlot::Bound(Reason::MaxInstances))] {
        assert_eq!(promise(&fleet, &Policy::default(), &two, 1), expected);
        fleet.reserve();
    }
    // Jobs are taken against idle slots only, but for a group at zero.
    let mut fleet = ready(&["a"]);
    assert_eq!(promise(&fleet, &idle, &two, 1), Ok(()));
    fleet.reserve();
    assert_eq!(promise(&fleet, &idle, &two, 1), Err(NoSlot::NothingIdle));
    assert_eq!(promise(&ready(&[]), &idle, &two, 1), Ok(()));
}

#[test]
fn jobs_are_not_taken_to_wait_in_vain() {
    let mut fleet = experienced(700);
    let limits = limits(1, 0);
    assert_eq!(promise(&fleet, &Policy::default(), &limits, 800), Ok(()));
    fleet.reserve();
    let slow = Err(NoSlot::Bound(Reason::BootsTooSlow));
    assert_eq!(promise(&fleet, &Policy::default(), &limits, 800), slow);
    let mut fleet = experienced(500);
    fleet.reserve();
    assert_eq!(promise(&fleet, &Policy::default(), &limits, 800), Ok(()));
}

#[test]
fn the_next_slot_is_foretold() {
    let mut fleet = experienced(40);
    let limits = limits(1, 0);
    assert_eq!(fleet.next_slot_in(&limits, at(50)), None);
    fleet.asked(1, &limits, at(50));
    assert_eq!(fleet.next_slot_in(&limits, at(60)), Some(Duration::from_secs(30)));
    fleet.listed(&list("n=coming"), at(65), at(65));
    assert_eq!(fleet.next_slot_in(&limits, at(70)), Some(Duration::from_secs(20)));
    assert_eq!(fleet.next_slot_in(&limits, at(170)), Some(Duration::ZERO));
    // An ask of before this process says nothing of how long instances take.
    let mut fleet = Fleet::default();
    fleet.recorded_ask(AskId(7), 1, None, at(0));
    fleet.listed(&list("a=running"), at(1), at(1));
    fleet.preparing(&id("a"), at(1));
    fleet.prepared(&id("a"), BTreeSet::new(), at(2));
    assert_eq!(fleet.boots.all().count(), 0);
}
