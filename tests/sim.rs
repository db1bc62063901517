//! Real jobs on a cloud that fails: none is lost silently, no instance is forgotten, and
//! the cloud's own ledger says that there were never too many.

use std::time::Duration;

use serde_json::{Value, json};
use support::{GitLab, JobSpec, Manager, Runner, State, seconds, until};

fn states(manager: &Manager) -> Vec<String> {
    let state = |one: &Value| one["state"].as_str().unwrap_or_default().to_owned();
    manager.cloud().iter().map(state).collect()
}

/// What the manager counts as ready.
fn ready(manager: &Manager) -> usize {
    manager.log().matches("instance is ready").count()
}

#[test]
fn jobs_run_on_instances_that_take_a_second_to_boot() {
    let gitlab = GitLab::start();
    let runner = Runner::sim(&gitlab, json!({"boot": "1s", "quota": 2}));
    let manager = Manager::start(runner.max_instances(2).max_use_count(1));
    let jobs = gitlab.enqueue_many(3, &JobSpec::script(["echo here", "test -d ~"]));
    for audit in gitlab.wait_for_all(&jobs, seconds(60)) {
        assert_eq!(audit.state, State::Success, "{}", gitlab.trace(audit.job));
    }
    until("all used instances are gone", seconds(20), || manager.ledger(2)["alive"] == 0);
    let ledger = manager.ledger(2);
    assert_eq!((&ledger["created"], &ledger["over_quota"]), (&json!(3), &json!(0)), "{ledger}");
    assert!(ledger["boot_s"].as_f64() >= Some(3.0), "{ledger}");
    manager.assert_never_more_than(2);
}

#[test]
fn an_instance_that_does_not_come_up_costs_a_job_only_time() {
    let gitlab = GitLab::start();
    let fate = json!({"kind": "timeout", "instances": [1], "after": "500ms"});
    let runner = Runner::sim(&gitlab, json!({"boot": "1s", "fates": [fate]}));
    let mut manager = Manager::start(runner.max_instances(1));
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    manager.wait_for_log("reason=\"reported_timeout\"", seconds(1));
    let ledger = manager.ledger(1);
    assert_eq!((&ledger["created"], &ledger["alive"]), (&json!(2), &json!(1)), "{ledger}");
    manager.assert_never_more_than(1);
}

/// The provider gives up on the first one before any list had it: nothing else is waited
/// for in its place.
#[test]
fn an_instance_that_failed_before_it_was_seen_is_replaced() {
    let gitlab = GitLab::start();
    let fate = json!({"kind": "timeout", "instances": [1]});
    let runner = Runner::sim(&gitlab, json!({"boot": "1s", "fates": [fate]}));
    let manager = Manager::start(runner.max_instances(1));
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(30));
    assert_eq!(manager.ledger(1)["alive"], 1, "the first one is deleted: {}", manager.log());
    manager.assert_never_more_than(1);
}

#[test]
fn an_instance_that_is_taken_away_fails_its_job_with_the_cause() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let manager = Manager::start(Runner::sim(&gitlab, json!({})).max_instances(1));
    let job = gitlab.enqueue(JobSpec::script(["echo ready", "sleep 1000"]));
    gitlab.wait_for_trace(job, "ready", seconds(60));
    manager.kill_in_cloud("--all");
    let audit = gitlab.wait_for(job, State::Failed, seconds(30));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"));
    let trace = gitlab.trace(job);
    assert!(trace.contains("ready") && trace.contains("was lost while the job ran"), "{trace}");
    let next = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(next, State::Success, seconds(60));
    manager.assert_never_more_than(1);
}

#[test]
fn a_create_that_fails_after_creating_some_is_counted_in_full() {
    let fault = json!({"call": "create", "kind": "error", "when": "after", "take": 2, "nth": 1});
    three_idle(json!({"boot": "300ms", "faults": [fault]}));
}

#[test]
fn a_plugin_that_dies_after_creating_is_counted_in_full() {
    // All three: what is not there is told from what is late only after a minute.
    let fault = json!({"call": "create", "kind": "crash", "when": "after", "nth": 1});
    three_idle(json!({"boot": "300ms", "faults": [fault]}));
}

#[test]
fn instances_that_come_late_although_the_call_failed_are_expected() {
    let fault = json!({"call": "create", "kind": "late", "by": "3s", "take": 2, "nth": 1});
    three_idle(json!({"faults": [fault]}));
}

/// Every third list lacks an instance, every fifth fails, and some tell twice.
#[test]
fn lists_that_lie_do_not_lead_beyond_the_maximum() {
    three_idle(json!({"boot": "300ms", "listed_after": "100ms", "faults": [
        {"call": "list", "kind": "omit", "every": 3},
        {"call": "list", "kind": "duplicate", "every": 4},
        {"call": "list", "kind": "error", "reason": "throttling", "every": 5},
    ]}));
}

/// Three idle instances are wanted, and three may be: the ledger never says more, and in
/// the end there are three, which take jobs.
fn three_idle(config: Value) {
    let gitlab = GitLab::start();
    let runner = Runner::sim(&gitlab, config).max_instances(3).idle_count(3);
    let mut manager = Manager::start(runner);
    manager.wait_until_up();
    until("three instances run", seconds(90), || {
        states(&manager).iter().filter(|state| *state == "running").count() == 3
    });
    until("three are ready", seconds(20), || ready(&manager) >= 3);
    let jobs = gitlab.enqueue_many(6, &JobSpec::script(["sleep 0.5"]));
    for audit in gitlab.wait_for_all(&jobs, seconds(60)) {
        assert_eq!(audit.state, State::Success, "{}", gitlab.trace(audit.job));
    }
    manager.assert_never_more_than(3);
    assert_eq!(manager.ledger(3)["created"], 3, "none was replaced: {}", manager.log());
    manager.terminate();
    manager.wait_for_exit(seconds(20));
    assert_eq!(manager.cloud().len(), 3, "instances outlive their manager");
}

#[test]
fn an_instance_that_is_missing_in_some_lists_keeps_its_job() {
    let gitlab = GitLab::start();
    let fault = json!({"call": "list", "kind": "omit", "probability": 0.4});
    let runner = Runner::sim(&gitlab, json!({"faults": [fault]})).max_instances(1);
    let manager = Manager::start(runner.autoscaler("update_interval", "50ms"));
    let job = gitlab.enqueue(JobSpec::script(["for n in $(seq 40); do sleep 0.1; done"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    let ledger = manager.ledger(1);
    assert!(ledger["faults"]["omit"].as_u64() >= Some(5), "{ledger}");
    assert_eq!(ledger["created"], 1, "{}", manager.log());
    manager.assert_never_more_than(1);
}

/// A deletion takes its time, and every other list lacks what is being deleted: it counts.
#[test]
fn an_instance_that_is_being_deleted_counts_until_it_is_gone() {
    let gitlab = GitLab::start();
    let fault = json!({"call": "list", "kind": "omit", "every": 2});
    let config = json!({"delete": "1s", "faults": [fault]});
    let runner = Runner::sim(&gitlab, config).max_instances(1).max_use_count(1);
    let manager = Manager::start(runner);
    let jobs = gitlab.enqueue_many(3, &JobSpec::script(["true"]));
    gitlab.wait_for_all(&jobs, seconds(60));
    manager.assert_never_more_than(1);
    let deletions = &manager.ledger(1)["calls"]["delete"]["made"];
    assert!(deletions.as_u64() <= Some(3), "{deletions} deletions: {}", manager.log());
}

#[test]
fn a_deletion_that_does_nothing_is_tried_again() {
    let gitlab = GitLab::start();
    let stays = json!({"call": "delete", "kind": "partial", "take": 0, "nth": 1});
    let runner = Runner::sim(&gitlab, json!({"faults": [stays]})).max_use_count(1);
    let runner = runner.max_instances(1).autoscaler("deletion_retry_interval", "1s");
    let manager = Manager::start(runner);
    let jobs = gitlab.enqueue_many(2, &JobSpec::script(["true"]));
    gitlab.wait_for_all(&jobs, seconds(60));
    until("both are gone", seconds(20), || manager.ledger(1)["alive"] == 0);
    assert!(manager.ledger(1)["calls"]["delete"]["made"].as_u64() >= Some(3));
    manager.assert_never_more_than(1);
}

/// A cloud that takes a deletion and lets the instance run on for a while: it counts, and
/// is not given to a job.
#[test]
fn an_instance_that_outlives_its_deletion_counts() {
    let gitlab = GitLab::start();
    let fault = json!({"call": "delete", "kind": "stay", "by": "2s"});
    let runner = Runner::sim(&gitlab, json!({"faults": [fault]})).max_instances(1);
    let manager = Manager::start(runner.max_use_count(1));
    let jobs = gitlab.enqueue_many(2, &JobSpec::script(["test ! -e ~/used", "touch ~/used"]));
    for audit in gitlab.wait_for_all(&jobs, seconds(60)) {
        assert_eq!(audit.state, State::Success, "{}", gitlab.trace(audit.job));
    }
    manager.assert_never_more_than(1);
}

/// The manager's state is lost while the cloud takes ten instances away: they say nothing
/// of those that come.
#[test]
fn instances_on_their_way_out_hold_no_creation_back() {
    let gitlab = GitLab::start();
    let config = json!({"instances": "none", "boot": "1h", "delete": "3s"});
    let runner = Runner::sim(&gitlab, config).max_instances(10).idle_count(10);
    let runner = runner.autoscaler("delete_instances_on_shutdown", true);
    let mut manager = Manager::setup().runner(runner).set("shutdown_timeout", 1).start();
    manager.wait_until_up();
    until("ten are coming", seconds(20), || manager.cloud().len() == 10);
    manager.quit();
    until("they go", seconds(10), || states(&manager).iter().all(|state| state == "deleting"));
    manager.kill();
    std::fs::remove_dir_all(manager.state_dir()).expect("the state is lost");
    manager.restart();
    until("ten others are coming", seconds(30), || {
        states(&manager).iter().filter(|state| *state == "creating").count() == 10
    });
    manager.assert_never_more_than(10);
}

/// Much at once, by chance. `MAYFLY_TEST_STORM` is the seed of a storm that is to be
/// seen again.
#[test]
fn a_storm() {
    let seed = std::env::var("MAYFLY_TEST_STORM").ok().and_then(|seed| seed.parse().ok());
    storm(seed.unwrap_or(1));
}

fn storm(seed: u64) {
    const MAX: u32 = 3;
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let config = json!({
        "seed": seed,
        "boot": {"min": "100ms", "median": "300ms", "p95": "1s"},
        "delete": {"min": "50ms", "median": "200ms", "p95": "1s"},
        "faults": [
            {"call": "create", "kind": "partial", "take": 0, "probability": 0.2},
            {"call": "create", "kind": "slow", "by": "500ms", "probability": 0.2},
            {"call": "list", "kind": "omit", "every": 7},
            {"call": "list", "kind": "duplicate", "probability": 0.1},
            {"call": "list", "kind": "error", "reason": "throttling", "probability": 0.1},
            {"call": "delete", "kind": "error", "probability": 0.2},
            {"call": "delete", "kind": "stay", "by": "500ms", "probability": 0.2},
            {"call": "connect_info", "kind": "error", "probability": 0.2},
            {"call": "connect_info", "kind": "slow", "by": "300ms", "probability": 0.2},
        ],
        "fates": [
            {"kind": "timeout", "probability": 0.05, "after": "200ms"},
            {"kind": "kill", "probability": 0.1, "after": "700ms"},
            {"kind": "interrupt", "probability": 0.1, "after": "500ms", "notice": "500ms"},
        ],
    });
    let runner = Runner::sim(&gitlab, config).max_instances(MAX).max_use_count(2);
    let runner = runner.autoscaler("deletion_retry_interval", "1s");
    let mut manager = Manager::start(runner);
    let jobs = gitlab.enqueue_many(12, &JobSpec::script(["echo begun", "sleep 0.3"]));
    for job in jobs {
        let audit = gitlab.wait_for_end(job, seconds(120));
        // A job may lose its instance, and then says so.
        if audit.state != State::Success {
            let trace = gitlab.trace(job);
            assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"), "{trace}");
            assert!(trace.contains("was lost while the job ran"), "{trace}");
        }
    }
    manager.assert_never_more_than(MAX);
    manager.terminate();
    manager.wait_for_exit(seconds(30));
}

#[test]
fn nothing_is_left_of_instances_when_the_runner_takes_them_along() {
    let gitlab = GitLab::start();
    let runner = Runner::sim(&gitlab, json!({"boot": "200ms", "delete": "300ms"}))
        .max_instances(2)
        .idle_count(2)
        .autoscaler("delete_instances_on_shutdown", true);
    let mut manager = Manager::start(runner);
    until("two are ready", seconds(30), || ready(&manager) == 2);
    manager.quit();
    assert_eq!(manager.wait_for_exit(Duration::from_secs(30)).code, Some(0));
    assert_eq!((manager.cloud().len(), manager.instances()), (0, 0));
}
