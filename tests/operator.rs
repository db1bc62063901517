//! What an operator asks at night: how does it stand, what happened to this job, why is
//! that instance there, and can it go.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use support::{GitLab, JobSpec, Manager, Runner, State, binaries, seconds};

/// After this time the history has what happened.
const GATHERED: Duration = seconds(1);

/// Exit code and both outputs of a command about this manager.
fn ask(manager: &Manager, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binaries().mayfly())
        .args(arguments)
        .arg("--state-dir")
        .arg(manager.state_dir())
        .output()
        .expect("mayfly can be run");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

/// The story has these parts in this order.
fn assert_story(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{part:?} in {text}"));
        rest = after;
    }
}

#[test]
fn jobs_instances_and_decisions_are_explained() {
    let gitlab = GitLab::start();
    let slow = Runner::local(&gitlab)
        .name("builders")
        .max_instances(1)
        .max_use_count(1)
        .plugin_config("boot_time", "1s");
    let mut manager = Manager::start(slow);
    let job = gitlab.enqueue(JobSpec::script(["exit 3"]).name("unit tests"));
    gitlab.wait_for(job, State::Failed, seconds(60));
    manager.wait_for_log("instance is gone", seconds(30));
    std::thread::sleep(GATHERED);

    let (code, text) = ask(&manager, &["explain", "job", &job.to_string()]);
    assert_eq!(code, Some(0), "{text}");
    let story = [
        "received: \"unit tests\"",
        "waits: no slot is free",
        "has slot 0",
        "begun on",
        "exit code 3",
    ];
    assert_story(&text, &story);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    let (_, bound) = text.split_once("has slot 0 of instance ").expect("it was bound");
    let instance = bound.lines().next().unwrap_or_default().to_owned();
    manager.terminate();
    manager.wait_for_exit(seconds(20));
    let (code, text) = ask(&manager, &["explain", "instance", &instance]);
    assert_eq!(code, Some(0), "{text}");
    let story = ["is ready", "has slot 0", "is deleted: max_use_count", "is gone"];
    assert_story(&text, &story);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    let (code, text) = ask(&manager, &["explain", "group", "--runner", "builders"]);
    assert_eq!(code, Some(0), "{text}");
    assert_story(&text, &["builders: asked for 1 instances: jobs wait for a slot"]);

    let (_, text) = ask(&manager, &["explain", "group", "--json", "-n", "1"]);
    let record: serde_json::Value = serde_json::from_str(&text).expect("one object");
    assert_eq!(record["event"], "instance_gone");

    let (code, text) = ask(&manager, &["explain", "job", "999"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("tells nothing of it"), "{text}");
}

#[test]
fn a_running_manager_says_how_it_stands_and_lets_an_instance_go() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).name("builders").max_instances(2).capacity(2).idle_count(2);
    let mut manager = Manager::start(runner);
    manager.wait_for_log("instance is ready", seconds(30));
    let job = gitlab.enqueue(JobSpec::script(["echo ready", "sleep 6"]));
    gitlab.wait_for_trace(job, "ready", seconds(60));

    let (code, text) = ask(&manager, &["status"]);
    assert_eq!(code, Some(0), "{text}");
    assert_story(&text, &["builders: ", " of 2 instances", "1 used", "0 jobs wait, 2 wanted idle"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    let list = |manager: &Manager| -> Vec<serde_json::Value> {
        let (code, text) = ask(manager, &["instance", "list", "--json"]);
        assert_eq!(code, Some(0), "{text}");
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    };
    let is_busy = |instance: &serde_json::Value| instance["used"] == serde_json::json!([0]);
    let busy = list(&manager).into_iter().find(is_busy).expect("one runs the job");
    let id = busy["id"].as_str().expect("it has an id").to_owned();

    // Sent away under its job: it goes when the job has ended, and not before.
    let (code, text) = ask(&manager, &["instance", "drain", &id]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("when its 1 jobs have ended"), "{text}");
    let (_, text) = ask(&manager, &["instance", "list"]);
    assert_story(&text, &[&id, "draining", "1/2", "operator"]);
    gitlab.wait_for(job, State::Success, seconds(30));
    support::until("it is gone", seconds(30), || list(&manager).iter().all(|i| i["id"] != id));
    std::thread::sleep(GATHERED);
    let (_, text) = ask(&manager, &["explain", "instance", &id]);
    assert_story(&text, &["gets no more jobs: an operator asked for it", "is gone"]);

    let (code, text) = ask(&manager, &["instance", "drain", "nobody"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("there is no instance \"nobody\""), "{text}");

    let socket = manager.state_dir().join("console.sock");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    manager.terminate();
    manager.wait_for_exit(seconds(20));
    let (code, text) = ask(&manager, &["status"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no manager answers"), "{text}");
}

#[test]
fn a_drain_can_be_taken_back() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).name("builders").max_instances(1).capacity(2);
    let mut manager = Manager::start(runner);
    let first = gitlab.enqueue(JobSpec::script(["echo begun", "sleep 600"]));
    gitlab.wait_for_trace(first, "begun", seconds(60));
    let (_, text) = ask(&manager, &["instance", "list", "--json"]);
    let instance: serde_json::Value = serde_json::from_str(&text).expect("one object");
    let id = instance["id"].as_str().expect("an id").to_owned();

    let (code, text) = ask(&manager, &["instance", "keep", &id]);
    assert_eq!((code, text.contains("does not drain")), (Some(1), true), "{text}");
    let (code, text) = ask(&manager, &["instance", "drain", &id]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = ask(&manager, &["instance", "keep", &id]);
    assert_eq!((code, text.contains("gets jobs again")), (Some(0), true), "{text}");
    let second = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(second, State::Success, seconds(60));

    std::thread::sleep(GATHERED);
    let (_, text) = ask(&manager, &["explain", "instance", &id]);
    assert_story(&text, &["an operator asked for it", "took its drain back"]);

    // Nor does the next process know of a drain.
    manager.restart();
    manager.wait_until_up();
    let third = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(third, State::Success, seconds(60));
    support::until("one job is left on it", seconds(30), || {
        let (_, text) = ask(&manager, &["instance", "list"]);
        text.contains(&id) && text.contains("ready") && text.contains("1/2")
    });
}

#[test]
fn an_operator_sees_what_is_waited_for_logs_in_and_deletes() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).name("builders").max_instances(1);
    let mut manager = Manager::start(runner);
    let job = gitlab.enqueue(JobSpec::script(["echo begun", "sleep 600"]));
    gitlab.wait_for_trace(job, "begun", seconds(60));
    let (code, text) = ask(&manager, &["explain", "now"]);
    assert_eq!(code, Some(0), "{text}");
    assert_story(&text, &["builders", "no job waits; 1 run, 0 slots are free"]);
    let (_, text) = ask(&manager, &["explain", "now", "--json", "--runner", "builders"]);
    let group: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(group["slots"]["used"], 1);
    let id = group["instances"][0]["id"].as_str().expect("an id").to_owned();

    let output = Command::new(binaries().mayfly())
        .args(["instance", "ssh", &id, "--state-dir"])
        .arg(manager.state_dir())
        .args(["--", "echo in-$((40+2)); exit 7"])
        .output()
        .expect("mayfly can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!((said.trim(), output.status.code()), ("in-42", Some(7)), "{complaints}");

    let (code, text) = ask(&manager, &["instance", "delete", &id]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("runs 1 jobs"), "{text}");
    let (code, text) = ask(&manager, &["instance", "delete", &id, "--stop-jobs"]);
    assert_eq!(code, Some(0), "{text}");
    let audit = gitlab.wait_for(job, State::Failed, seconds(30));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_interrupted"));
    assert!(
        gitlab.trace(job).contains("an operator removed the instance"),
        "{}",
        gitlab.trace(job)
    );
    manager.wait_for_log("instance is gone", seconds(30));
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
}
