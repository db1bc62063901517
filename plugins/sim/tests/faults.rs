//! Everything that can be made to go wrong goes wrong, and the ledger says so.

mod support;

use std::time::{Duration, Instant};

use mayfly_plugin::host::CallError;
use mayfly_plugin::{InstanceState, Protocol};
use serde_json::{Value, json};
use support::*;

const SHORT: Duration = Duration::from_millis(300);

fn refusal<T>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Refused { message, .. }) => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it succeeded"),
    }
}

fn calls(rig: &Rig, call: &str) -> (u64, u64) {
    let count = &rig.ledger()["calls"][call];
    let number = |key: &str| count[key].as_u64().unwrap_or(0);
    (number("made"), number("failed"))
}

#[tokio::test]
async fn errors_before_and_after_the_effect() {
    for (reason, says) in [
        ("capacity", "InsufficientInstanceCapacity"),
        ("throttling", "Throttling: Rate exceeded"),
        ("quota", "InstanceLimitExceeded"),
    ] {
        let fault = json!({"call": "create", "kind": "error", "nth": 1, "reason": reason});
        let rig = Rig::faulty(fault);
        let plugin = rig.start().await;
        let message = refusal(plugin.increase(2, LIMIT).await);
        assert!(message.contains(says), "{message}");
        assert!(list(&plugin).await.is_empty());
        assert_eq!(plugin.increase(2, LIMIT).await.expect("the second works"), 2);
        assert_eq!(calls(&rig, "create"), (2, 1));
        assert_eq!(rig.ledger()["faults"]["error"], 1);
    }
    let fault =
        json!({"call": "create", "kind": "error", "when": "after", "take": 2, "message": "boom"});
    let rig = Rig::faulty(fault);
    let plugin = rig.start().await;
    assert_eq!(refusal(plugin.increase(3, LIMIT).await), "boom");
    assert_eq!(running(&plugin).await.len(), 2, "created all the same");
}

#[tokio::test]
async fn calls_that_hang_and_calls_that_are_slow() {
    let hang = json!({"call": "create", "kind": "hang", "nth": 1, "when": "after"});
    let slow = json!({"call": "list", "kind": "slow", "by": "400ms", "every": 2});
    let rig = Rig::hollow(json!({"faults": [hang, slow]}));
    let plugin = rig.start().await;
    let silence = plugin.increase(1, SHORT).await.expect_err("no answer");
    assert!(silence.outcome_unknown(), "{silence}");
    let begun = Instant::now();
    assert_eq!(running(&plugin).await.len(), 1, "created all the same");
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    let begun = Instant::now();
    list(&plugin).await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

/// A plugin that crashes in the middle of any call leaves a group that goes on where it
/// was, and nothing else.
#[tokio::test]
async fn crashes_in_the_middle_of_each_call() {
    for call in ["create", "list", "delete", "connect_info", "heartbeat"] {
        for when in ["before", "after"] {
            // The third call of each kind: those before make and look at an instance.
            let fault = json!({"call": call, "kind": "crash", "nth": 3, "when": when});
            let rig = Rig::new(json!({"faults": [fault]}));
            let plugin = rig.start().await;
            let mut crashed = None;
            for round in 0..4 {
                let made = plugin.increase(1, LIMIT).await;
                let listed = plugin.update(LIMIT).await;
                let id = format!("sim-{:05}", round + 1);
                let info = plugin.connect_info(&id, LIMIT).await;
                let beat = plugin.heartbeat(&id, LIMIT).await;
                let gone = plugin.decrease(vec![id], LIMIT).await;
                let all = [made.err(), listed.err(), info.err(), beat.err(), gone.err()];
                let is_crash = |error: &CallError| matches!(error, CallError::Gone { .. });
                crashed = all.into_iter().flatten().find(is_crash);
                if crashed.is_some() {
                    break;
                }
            }
            assert!(crashed.is_some(), "{call} {when}: it did not crash");
            plugin.ended().await;
            drop(plugin);
            let plugin = rig.start().await;
            let created = rig.ledger()["created"].as_u64();
            assert_eq!(created, Some(if call == "create" && when == "before" { 2 } else { 3 }));
            until(async || {
                let coming = in_state(&plugin, InstanceState::Creating).await;
                coming.is_empty().then_some(())
            })
            .await;
            delete_all(&plugin).await;
            rig.assert_nothing_left();
            assert_eq!(rig.ledger()["alive"], 0, "{call} {when}");
        }
    }
}

#[tokio::test]
async fn a_start_that_fails_or_crashes_is_a_start_the_next_time() {
    for kind in ["error", "crash"] {
        let rig = Rig::faulty(json!({"call": "init", "kind": kind, "nth": 1}));
        assert!(rig.try_start().await.is_err());
        rig.start().await.increase(1, LIMIT).await.expect("created");
    }
}

#[tokio::test]
async fn partial_success() {
    let create = json!({"call": "create", "kind": "partial", "take": 2, "nth": 1});
    let delete = json!({"call": "delete", "kind": "partial", "take": 1, "nth": 1});
    let rig = Rig::hollow(json!({"faults": [create, delete]}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(5, LIMIT).await.expect("some"), 2);
    let ids = running(&plugin).await;
    assert_eq!(plugin.decrease(ids.clone(), LIMIT).await.expect("some"), ids[..1]);
    assert_eq!(running(&plugin).await, ids[1..]);
}

#[tokio::test]
async fn instances_that_come_late_although_the_call_failed() {
    let rig = Rig::faulty(json!({"call": "create", "kind": "late", "by": "600ms", "take": 2}));
    let plugin = rig.start().await;
    let begun = Instant::now();
    refusal(plugin.increase(3, LIMIT).await);
    assert!(list(&plugin).await.is_empty());
    assert_eq!(rig.ledger()["created"], 0, "they cost nothing yet");
    until(async || (running(&plugin).await.len() == 2).then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn lists_that_lie() {
    let lie = |kind: &str, nth: u64| json!({"call": "list", "kind": kind, "nth": nth});
    let faults = [lie("omit", 2), lie("unknown", 3), lie("duplicate", 4)];
    let rig = Rig::hollow(json!({"faults": faults}));
    let plugin = rig.start().await;
    plugin.increase(3, LIMIT).await.expect("created");
    let lengths = [running(&plugin).await, running(&plugin).await, running(&plugin).await];
    assert_eq!(lengths.each_ref().map(Vec::len), [3, 2, 4]);
    assert!(lengths[2].contains(&"sim-ghost-1".to_owned()));
    // The host takes the last of two; the ledger knows that they were told.
    assert_eq!(running(&plugin).await.len(), 3);
    assert_eq!(rig.ledger()["faults"]["duplicate"], 1);
}

#[tokio::test]
async fn the_deleted_and_the_dead_that_are_listed_as_running() {
    for (kind, end) in [("deleted_running", "delete"), ("dead_running", "kill")] {
        let rig = Rig::hollow(json!({
            "delete": "200ms",
            "faults": [{"call": "list", "kind": kind, "from": 0.0, "until": 3.0}],
        }));
        let plugin = rig.start().await;
        let begun = Instant::now();
        let id = add(&plugin, 1).await.remove(0);
        if end == "kill" {
            rig.ask("kill", &[&id]);
        } else {
            plugin.decrease(vec![id.clone()], LIMIT).await.expect("deleted");
            assert_eq!(state_of(&plugin, &id).await, Some(RUNNING));
            until(async || (rig.ledger()["alive"] == 0).then_some(())).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "too slow to tell");
        assert_eq!(state_of(&plugin, &id).await, Some(RUNNING), "{kind}");
        assert!(plugin.heartbeat(&id, LIMIT).await.is_err(), "{kind}");
        let is_told = async || state_of(&plugin, &id).await == Some(InstanceState::Deleted);
        until(async || is_told().await.then_some(())).await;
        assert!(begun.elapsed() > Duration::from_secs(2), "{kind}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn ids_that_come_back() {
    let rig = Rig::faulty(json!({"call": "create", "kind": "reuse_id", "nth": 2}));
    let plugin = rig.start().await;
    let id = add(&plugin, 1).await;
    delete_all(&plugin).await;
    plugin.increase(1, LIMIT).await.expect("created");
    assert_eq!(running(&plugin).await, id);
    assert_eq!(rig.ledger()["created"], 2);
}

#[tokio::test]
async fn a_deletion_that_succeeds_and_does_nothing_for_a_while() {
    let rig = Rig::faulty(json!({"call": "delete", "kind": "stay", "by": "500ms"}));
    let plugin = rig.start().await;
    let id = add(&plugin, 1).await;
    let begun = Instant::now();
    plugin.decrease(id.clone(), LIMIT).await.expect("accepted");
    assert_eq!(running(&plugin).await, id);
    until(async || running(&plugin).await.is_empty().then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn boots_that_never_end_and_instances_that_are_given_up() {
    let rig = Rig::hollow(json!({"fates": [
        {"kind": "never_boots", "instances": [1]},
        {"kind": "timeout", "instances": [2], "after": "100ms"},
        {"kind": "kill", "instances": [3], "after": "100ms"},
    ]}));
    let plugin = rig.start().await;
    plugin.increase(4, LIMIT).await.expect("created");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let states: Vec<_> = list(&plugin).await.into_iter().map(|one| one.state).collect();
    use InstanceState::{Creating, Deleted, Timeout};
    assert_eq!(states, [Creating, Timeout, Deleted, RUNNING]);
}

#[tokio::test]
async fn answers_that_lead_nowhere() {
    let rig = Rig::hollow(json!({"faults": [
        {"call": "connect_info", "kind": "no_address", "nth": 1},
        {"call": "connect_info", "kind": "winrm", "nth": 2},
    ]}));
    let plugin = rig.start().await;
    let id = add(&plugin, 1).await.remove(0);
    let info = async || plugin.connect_info(&id, LIMIT).await.expect("told");
    assert_eq!(info().await.internal_addr, "");
    assert_eq!(info().await.connector.protocol, Some(Protocol::WinRm));
    let right = info().await;
    assert_eq!(
        (right.internal_addr.as_str(), right.connector.protocol),
        ("127.192.0.1:9", Some(Protocol::Ssh))
    );
}

#[tokio::test]
async fn quota_and_throttle() {
    let rig = Rig::hollow(json!({"quota": 3, "calls_per_s": 5}));
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(5, LIMIT).await.expect("as far as it goes"), 3);
    assert!(refusal(plugin.increase(1, LIMIT).await).contains("InstanceLimitExceeded"));
    let mut refused = Vec::new();
    for _ in 0..10 {
        refused.extend(plugin.update(LIMIT).await.err());
    }
    assert!(refused.len() >= 5, "{refused:?}");
    assert!(refused[0].to_string().contains("Throttling"), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(list(&plugin).await.len(), 3);
    assert_eq!(rig.ledger()["over_quota"], 0);
}

#[tokio::test]
async fn what_comes_by_chance_comes_again_from_the_same_seed() {
    let failures = async |seed: u64| {
        let fault = json!({"call": "list", "kind": "error", "probability": 0.5});
        let rig = Rig::hollow(json!({"seed": seed, "faults": [fault]}));
        let plugin = rig.start().await;
        let mut failures = Vec::new();
        for _ in 0..16 {
            failures.push(plugin.update(LIMIT).await.is_err());
        }
        failures
    };
    let first = failures(1).await;
    assert_eq!(first, failures(1).await);
    assert_ne!(first, failures(2).await);
}

#[tokio::test]
async fn the_ledger_adds_up() {
    let rig = Rig::hollow(json!({"boot": "400ms", "delete": "200ms", "quota": 9}));
    let plugin = rig.start().await;
    let two = add(&plugin, 2).await;
    plugin.decrease(two[..1].to_vec(), LIMIT).await.expect("deleted");
    let begun = Instant::now();
    until(async || (rig.ledger()["alive"] == 1).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    add(&plugin, 2).await;
    delete_all(&plugin).await;
    until(async || (rig.ledger()["alive"] == 0).then_some(())).await;
    let ledger = rig.ledger();
    let number = |value: &Value| value.as_f64().expect("a number");
    assert_eq!((&ledger["created"], &ledger["peak"]), (&json!(4), &json!(3)));
    let rows = ledger["instances"].as_array().expect("rows");
    let sum: f64 = rows.iter().map(|row| number(&row["cost_s"])).sum();
    assert!((sum - number(&ledger["cost_s"])).abs() < 0.01, "{ledger}");
    for row in rows {
        assert!((number(&row["boot_s"]) - 0.4).abs() < 0.01, "{row}");
        // Boot, a life of moments, and 0.2 s of deletion.
        assert!(number(&row["cost_s"]) >= 0.6, "{row}");
    }
    assert!(number(&rows[0]["cost_s"]) < 1.5, "{ledger}");
    let text = rig.ask("ledger", &["--max-instances", "2"]);
    assert!(text.contains("the quota was never exceeded"), "{text}");
    assert!(text.contains("max_instances = 2 was exceeded by 1"), "{text}");
    let text = rig.ask("ledger", &["--max-instances", "3"]);
    assert!(text.contains("max_instances = 3 was never exceeded"), "{text}");
}
