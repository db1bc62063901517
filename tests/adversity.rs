//! Jobs that misbehave, machines that break and managers that end at the wrong moment:
//! nothing is held for ever, and every job's end is told.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::processes::{self, Process};
use support::{
    Endpoint, Fault, GitLab, JobId, JobSpec, Manager, Runner, Sshd, State, binaries, seconds,
};

/// A keepalive and the time that an instance is given to come back.
const GIVEN_UP: Duration = seconds(150);

fn succeeds(gitlab: &GitLab) -> JobId {
    let job = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    job
}

fn reason(gitlab: &GitLab, job: JobId, within: Duration) -> String {
    let audit = gitlab.wait_for(job, State::Failed, within);
    audit.failure_reason.unwrap_or_default()
}

#[test]
fn a_background_process_that_prints_for_ever_holds_nothing_up() {
    let gitlab = GitLab::start();
    let _manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let flood = gitlab.enqueue(JobSpec::script(["yes & exit 0"]));
    gitlab.wait_for(flood, State::Success, seconds(30));
    let flood = gitlab.enqueue(JobSpec::script(["yes & wait"]).timeout(seconds(3)));
    assert_eq!(reason(&gitlab, flood, seconds(30)), "job_execution_timeout");
    succeeds(&gitlab);
}

#[test]
fn a_job_that_stops_its_agent_loses_its_instance_and_nothing_else() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let script = ["echo ready", "pkill -STOP -f 'mayfly-agent|agents/' || kill -STOP $PPID"];
    let job = gitlab.enqueue(JobSpec::script(script));
    gitlab.wait_for_trace(job, "ready", seconds(60));
    gitlab.drop_job(job);
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, GIVEN_UP);
    assert!(manager.log().contains("slot_failed"), "{}", manager.log());
}

#[test]
fn a_machine_that_hangs_while_it_drains_is_given_up() {
    let Some(mut sshd) = Sshd::setup().machines(1).start() else { return };
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let _manager =
        Manager::start(Runner::openssh(&gitlab, &sshd).max_instances(1).max_use_count(1));
    let job = gitlab.enqueue(JobSpec::script(["echo ready", "sleep 1000"]));
    gitlab.wait_for_trace(job, "ready", seconds(60));
    sshd.stop();
    assert_eq!(reason(&gitlab, job, GIVEN_UP), "runner_system_failure");
    let trace = gitlab.trace(job);
    assert!(trace.contains("was lost while the job ran"), "{trace}");
}

#[test]
fn an_instance_that_takes_no_jobs_is_replaced() {
    let gitlab = GitLab::start();
    let manager = Manager::start(Runner::local(&gitlab).max_instances(1).idle_count(1));
    let job = gitlab.enqueue(JobSpec::script(["rm -rf ~/.mayfly", "chmod 500 ~"]));
    gitlab.wait_for_end(job, seconds(60));
    // The agent that waited already may take one more.
    succeeds(&gitlab);
    succeeds(&gitlab);
    assert!(manager.log().contains("slot_failed"), "{}", manager.log());
}

#[test]
fn a_dead_instance_costs_a_job_a_moment_and_nothing_else() {
    let gitlab = GitLab::start();
    let manager = Manager::start(Runner::local(&gitlab).max_instances(2).idle_count(2));
    support::until("both are ready", seconds(60), || {
        manager.log().matches("instance is ready").count() == 2
    });
    let directory = manager.directory().display().to_string();
    let is_instance = |process: &Process| process.args.get(1).is_some_and(|a| a == "instance");
    let instance = processes::mentioning(&directory).into_iter().find(is_instance);
    let instance = instance.expect("an instance");
    let mut frozen = processes::descendants(instance.pid);
    frozen.push(instance);
    frozen.iter().for_each(|process| process.signal(Signal::STOP));
    let jobs = gitlab.enqueue_many(2, &JobSpec::script(["true"]));
    for audit in gitlab.wait_for_all(&jobs, seconds(60)) {
        assert_eq!(audit.state, State::Success, "{}", gitlab.trace(audit.job));
    }
    let log = manager.log();
    assert!(log.contains("the instance does not answer"), "{log}");
    frozen.iter().for_each(|process| process.signal(Signal::CONT));
}

#[test]
fn jobs_of_a_forgotten_manager_keep_their_instance() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).max_instances(1).own("report_alone_after", "2s");
    let mut manager = Manager::start(runner);
    let work = seconds(12);
    let script = format!("echo ready; sleep {}; exit 9", work.as_secs());
    let job = gitlab.enqueue(JobSpec::script([script]));
    gitlab.wait_for_trace(job, "ready", seconds(60));
    let begun = Instant::now();
    manager.kill();
    std::fs::remove_dir_all(manager.state_dir()).expect("the state is lost");
    manager.restart();
    manager.wait_for_log("jobs run there that this manager does not know", seconds(30));
    let log = manager.wait_for_log("deleting instance", seconds(60));
    assert!(begun.elapsed() > work, "deleted under a job: {log}");
    assert!(log.contains("reason=\"unrecorded\""), "{log}");
    // Its agent told how it ended, before its instance went.
    let audit = gitlab.audit(job);
    assert_eq!((audit.state, audit.exit_code), (State::Failed, Some(9)));
    succeeds(&gitlab);
}

#[test]
fn jobs_of_a_forgotten_manager_keep_an_instance_of_another_template_over_a_restart() {
    let gitlab = GitLab::start();
    let runner = |lease: &str| {
        let runner = Runner::local(&gitlab).max_instances(2).own("report_alone_after", "2s");
        runner.plugin_config("lease", lease)
    };
    let mut manager = Manager::start(runner("12h"));
    let job = gitlab.enqueue(JobSpec::script(["echo ready; sleep 12; exit 9"]));
    gitlab.wait_for_trace(job, "ready", seconds(60));
    manager.kill();
    std::fs::remove_dir_all(manager.state_dir()).expect("the state is lost");
    manager.restart();
    manager.wait_for_log("jobs run there that this manager does not know", seconds(30));
    manager.reconfigure(&Manager::setup().runner(runner("13h")));
    manager.wait_for_log("instances are made from another template", seconds(30));
    manager.restart();
    let audit = gitlab.wait_for(job, State::Failed, seconds(90));
    assert_eq!(audit.exit_code, Some(9), "{}", gitlab.trace(job));
    manager.wait_for_log("instance is gone", seconds(90));
    succeeds(&gitlab);
}

#[test]
fn a_job_hears_signals_that_the_plugin_ignores() {
    let gitlab = GitLab::start();
    let directory = tempfile::tempdir().expect("a directory");
    let plugin = directory.path().join("fleeting-plugin-deaf");
    let local = binaries().plugin("local").display().to_string();
    std::fs::write(&plugin, format!("#!/bin/sh\ntrap '' HUP TERM USR1\nexec {local}\n"))
        .expect("a script");
    std::fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).expect("executable");
    let runner = Runner::new(&gitlab, &plugin)
        .plugin_config("root", directory.path().join("instances").display().to_string());
    let _manager = Manager::start(runner);
    for signal in ["HUP", "TERM", "USR1"] {
        let job =
            gitlab.enqueue(JobSpec::script([format!("sh -c 'kill -{signal} $$; echo deaf'")]));
        gitlab.wait_for(job, State::Failed, seconds(60));
        assert!(!gitlab.trace(job).contains("\ndeaf"), "{}", gitlab.trace(job));
    }
}

#[test]
fn a_job_that_waits_is_begun_before_an_orderly_end() {
    let gitlab = GitLab::start();
    let slow = Runner::local(&gitlab).max_instances(1).plugin_config("boot_time", "2s");
    let mut manager = Manager::start(slow);
    let job = gitlab.enqueue(JobSpec::script(["echo began", "sleep 3", "exit 5"]));
    gitlab.wait_for(job, State::Running, seconds(30));
    manager.terminate();
    assert_eq!(manager.wait_for_exit(seconds(20)).code, Some(0));
    assert!(!gitlab.audit(job).state.is_final());
    manager.restart();
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(5), "{}", gitlab.trace(job));
}

#[test]
fn a_job_that_waited_when_the_manager_was_killed_is_given_back() {
    let gitlab = GitLab::start();
    let slow = Runner::local(&gitlab).max_instances(1).plugin_config("boot_time", "1h");
    let mut manager = Manager::start(slow);
    let job = gitlab.enqueue(JobSpec::script(["echo never"]));
    gitlab.wait_for(job, State::Running, seconds(30));
    std::thread::sleep(seconds(1));
    manager.restart();
    assert_eq!(reason(&gitlab, job, seconds(30)), "runner_system_failure");
    assert!(gitlab.trace(job).contains("ended before the job had an instance"));
}

#[test]
fn jobs_of_before_count_against_concurrent() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).max_instances(2).idle_count(1);
    let mut manager = Manager::setup().set("concurrent", 1).runner(runner).start();
    let first = gitlab.enqueue(JobSpec::script(["echo ready", "sleep 6"]));
    gitlab.wait_for_trace(first, "ready", seconds(60));
    manager.restart();
    let second = gitlab.enqueue(JobSpec::script(["true"]));
    let audits = gitlab.wait_for_all(&[first, second], seconds(60));
    assert!(audits[1].handed_out() > audits[0].ended(), "{} {}", audits[0], audits[1]);
}

#[test]
fn a_runner_whose_plugin_fails_at_first_is_served_later() {
    let gitlab = GitLab::start();
    let directory = tempfile::tempdir().expect("a directory");
    let plugin = directory.path().join("fleeting-plugin-late");
    let write = |text: &str| {
        std::fs::write(&plugin, text).expect("a script");
        std::fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).expect("executable");
    };
    write("#!/bin/sh\necho the cloud is down >&2\nexit 1\n");
    let late = Runner::new(&gitlab, &plugin)
        .name("late")
        .token("glrt-late0000000000000000", 2)
        .plugin_config("root", directory.path().join("instances").display().to_string());
    let well = Runner::local(&gitlab).name("well");
    let mut manager = Manager::setup().runner(well).runner(late).start();
    let log = manager.wait_for_log("this runner waits for its plugin", seconds(30));
    assert!(log.contains("the cloud is down"), "{log}");
    // Replaced, it is not there for a moment.
    std::fs::remove_file(&plugin).expect("removed");
    manager.wait_for_log("there is no such file", seconds(60));
    write(&format!("#!/bin/sh\nexec {}\n", binaries().plugin("local").display()));
    let job = gitlab.enqueue(JobSpec::script(["true"]).for_runner("glrt-late0000000000000000"));
    gitlab.wait_for(job, State::Success, seconds(60));
}

#[test]
fn a_result_is_told_although_the_log_is_refused() {
    let gitlab = GitLab::start();
    let _manager = Manager::start(Runner::local(&gitlab));
    gitlab.fail_for(seconds(120), Endpoint::Trace, Fault::status(404));
    let job = gitlab.enqueue(JobSpec::script(["echo lost", "exit 9"]));
    let audit = gitlab.wait_for(job, State::Failed, seconds(90));
    assert_eq!(audit.exit_code, Some(9));
}
