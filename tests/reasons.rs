//! Every reason that a decision can have, made to happen by the real manager, and found
//! in what `mayfly explain` tells.
//!
//! Which reasons there are is asked of the manager: one without a scenario fails.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::{GitLab, JobSpec, Manager, Runner, State, binaries, seconds, until};

const TOLD_LIMIT: Duration = seconds(40);

/// One test per reason, and the list of them: `word, event that has it => scenario`.
macro_rules! reasons {
    ($($word:ident, $event:ident => $scenario:expr;)*) => {
        $(#[test]
        fn $word() {
            happens(stringify!($word), stringify!($event), $scenario);
        })*

        const SCENARIOS: &[&str] = &[$(stringify!($word)),*];
    };
}

reasons! {
    jobs_waiting, asked => |gitlab| {
        let manager = Manager::start(Runner::sim(gitlab, json!({})));
        gitlab.enqueue(JobSpec::script(["true"]));
        manager
    };
    idle_target, asked => |gitlab| Manager::start(hollow(gitlab, json!({})).idle_count(1));
    idle_too_long, instance_drained => |gitlab| {
        let manager = Manager::start(Runner::sim(gitlab, json!({})).idle_time(seconds(1)));
        succeed(gitlab);
        manager
    };
    max_use_count, instance_drained => |gitlab| {
        let manager = Manager::start(Runner::sim(gitlab, json!({})).max_use_count(1));
        succeed(gitlab);
        manager
    };
    preparation_failed, instance_deleting => |gitlab| {
        let config = json!({"faults": [{"call": "connect_info", "kind": "winrm"}]});
        Manager::start(hollow(gitlab, config).idle_count(1))
    };
    boot_deadline, instance_drained => |gitlab| {
        Manager::start(hollow(gitlab, json!({})).idle_count(1).connector("timeout", "1s"))
    };
    unreachable, instance_deleting => unreachable_after_death;
    reported_timeout, instance_deleting => |gitlab| {
        Manager::start(hollow(gitlab, given_up(&[1])).idle_count(1))
    };
    unrecorded, instance_deleting => |gitlab| {
        let mut manager = Manager::start(Runner::sim(gitlab, json!({})).idle_count(1));
        manager.wait_for_log("instance is ready", seconds(30));
        manager.kill();
        std::fs::remove_dir_all(manager.state_dir()).expect("the state is lost");
        manager.restart();
        manager
    };
    over_limit, instance_drained => |gitlab| {
        let runner = |max| Runner::sim(gitlab, json!({})).max_instances(max).idle_count(max);
        let manager = Manager::start(runner(2));
        until("two are ready", seconds(30), || {
            manager.log().matches("instance is ready").count() == 2
        });
        manager.reconfigure(&Manager::setup().runner(runner(1)));
        manager.signal(rustix::process::Signal::HUP);
        manager
    };
    shutting_down, instance_drained => |gitlab| {
        let runner = Runner::sim(gitlab, json!({})).idle_count(1);
        let mut manager = Manager::start(runner.autoscaler("delete_instances_on_shutdown", true));
        manager.wait_for_log("instance is ready", seconds(30));
        manager.quit();
        manager.wait_for_exit(seconds(30));
        manager
    };
    slot_failed, instance_drained => |gitlab| {
        let manager = Manager::start(Runner::sim(gitlab, json!({})).max_instances(1));
        // The agent that waits already may take one more; no other can be started.
        let break_agents = JobSpec::script(["rm -rf ~/.mayfly", "touch ~/.mayfly"]);
        let job = gitlab.enqueue(break_agents);
        gitlab.wait_for_end(job, seconds(60));
        gitlab.enqueue_many(2, &JobSpec::script(["true"]));
        manager
    };
    operator, instance_drained => |gitlab| {
        let mut manager = Manager::start(Runner::sim(gitlab, json!({})).idle_count(1));
        manager.wait_for_log("instance is ready", seconds(30));
        ask(&manager, &["instance", "drain", "sim-00001"]);
        manager
    };
    interrupted, instance_deleting => |gitlab| {
        let fate = json!({
            "kind": "interrupt", "instances": [1], "after": "100ms", "notice": "600s",
        });
        Manager::start(hollow(gitlab, json!({"fates": [fate]})).idle_count(1))
    };
    outdated, instance_drained => |gitlab| {
        let runner = |boot: &str| Runner::sim(gitlab, json!({"boot": boot})).idle_count(1);
        let mut manager = Manager::start(runner("0s"));
        manager.wait_for_log("instance is ready", seconds(30));
        manager.reconfigure(&Manager::setup().runner(runner("10ms")));
        manager.signal(rustix::process::Signal::HUP);
        manager
    };
    boots_too_slow, held_back => |gitlab| {
        let policy = json!({"periods": ["* * * * *"], "idle_count": 5, "preemptive_mode": false});
        let runner = Runner::sim(gitlab, json!({"boot": "2s"})).max_instances(9).policy(policy);
        let runner = runner.autoscaler("instance_acquire_timeout", "1s");
        let manager = Manager::start(runner);
        until("five are ready", seconds(60), || {
            manager.log().matches("instance is ready").count() == 5
        });
        gitlab.enqueue_many(5, &JobSpec::script(["sleep 60"]));
        manager
    };
    max_instances, held_back => |gitlab| {
        start_with_a_job(gitlab, hollow(gitlab, given_up(&[1])).max_instances(1))
    };
    provider_max_size, held_back => |gitlab| {
        let mut config = given_up(&[1]);
        config["max_size"] = 1.into();
        start_with_a_job(gitlab, hollow(gitlab, config).max_instances(0))
    };
    scale_throttle, held_back => |gitlab| {
        let runner = hollow(gitlab, given_up(&[1]));
        let throttle = json!({"limit": 1, "burst": 1});
        start_with_a_job(gitlab, runner.autoscaler("scale_throttle", throttle))
    };
    boot_failures, held_back => |gitlab| {
        let mut config = given_up(&[1, 2, 3, 4]);
        config["delete"] = "0s".into();
        start_with_a_job(gitlab, hollow(gitlab, config).max_instances(5))
    };
    calls_failing, held_back => |gitlab| {
        // Each job is asked for before the first call fails; together they fail for long.
        let fault = json!({"call": "create", "kind": "error", "reason": "capacity", "by": "2s"});
        let runner = hollow(gitlab, json!({"faults": [fault]})).set("request_concurrency", 6);
        let manager = Manager::start(runner.max_instances(20));
        gitlab.enqueue_many(6, &JobSpec::script(["true"]));
        manager
    };
}

#[test]
fn every_reason_has_its_scenario() {
    let output = Command::new(binaries().mayfly()).args(["explain", "reasons", "--json"]).output();
    let text = String::from_utf8(output.expect("mayfly can be run").stdout).expect("text");
    let mut all: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object"))
        .map(|reason| reason["reason"].as_str().expect("a word").to_owned())
        .collect();
    let mut scenarios = SCENARIOS.to_vec();
    all.sort();
    scenarios.sort_unstable();
    assert_eq!(scenarios, all, "left: scenarios of this file; right: reasons of the manager");
}

/// Lets it happen, and finds the word in the records and its sentence in the story.
fn happens(word: &str, event: &str, scenario: fn(&GitLab) -> Manager) {
    let gitlab = GitLab::start();
    let manager = scenario(&gitlab);
    until(&format!("{event} is told with reason {word}"), TOLD_LIMIT, || {
        let records = ask(&manager, &["explain", "group", "--json", "-n", "1000"]);
        let mut records = records.lines().filter_map(|line| serde_json::from_str(line).ok());
        records.any(|record: Value| record["event"] == event && record["reason"] == word)
    });
    let sentences = ask(&manager, &["explain", "reasons"]);
    let line = sentences.lines().find(|line| line.split(' ').next() == Some(word));
    let (_, sentence) = line.expect("it has one").split_once("  ").expect("two columns");
    let story = ask(&manager, &["explain", "group", "-n", "1000"]);
    assert!(story.contains(sentence.trim()), "{sentence:?} in {story}");
}

fn ask(manager: &Manager, arguments: &[&str]) -> String {
    let mut command = Command::new(binaries().mayfly());
    command.args(arguments).arg("--state-dir").arg(manager.state_dir());
    let output = command.output().expect("mayfly can be run");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A runner whose instances are nothing.
fn hollow(gitlab: &GitLab, mut config: Value) -> Runner {
    config["instances"] = "none".into();
    Runner::sim(gitlab, config)
}

/// Instances of these numbers are given up by the provider, and take a second to go.
fn given_up(instances: &[u64]) -> Value {
    let fate = json!({"kind": "timeout", "instances": instances, "after": "100ms"});
    json!({"boot": "10s", "delete": "1s", "fates": [fate]})
}

fn start_with_a_job(gitlab: &GitLab, runner: Runner) -> Manager {
    let manager = Manager::start(runner);
    gitlab.enqueue(JobSpec::script(["true"]));
    manager
}

fn succeed(gitlab: &GitLab) {
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
}

/// An instance dies, its provider lists it as running, and what it says of the way there
/// is of no use.
fn unreachable_after_death(gitlab: &GitLab) -> Manager {
    const FROM_S: u64 = 5;
    let config = json!({"faults": [
        {"call": "list", "kind": "dead_running"},
        {"call": "connect_info", "kind": "winrm", "from": FROM_S},
    ]});
    let mut manager = Manager::start(Runner::sim(gitlab, config).idle_count(1));
    manager.wait_for_log("instance is ready", seconds(FROM_S));
    std::thread::sleep(seconds(FROM_S));
    manager.kill_in_cloud("--all");
    manager
}
