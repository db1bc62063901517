//! While no manager is there, the agents of running jobs tell the server by themselves.

use std::time::Duration;

use rustix::process::Signal;
use support::{Event, GitLab, JobSpec, Manager, Runner, Sshd, State, seconds};

/// A line each 50 ms, and an exit code that nobody invents.
fn talking(lines: u32) -> JobSpec {
    let script = format!("for n in $(seq 1 {lines}); do echo line-$n-; sleep 0.05; done");
    JobSpec::script([script, "exit 23".into()]).variable("FF_TIMESTAMPS", "false")
}

fn assert_whole(trace: &str, lines: u32) {
    let found: Vec<&str> = trace.lines().filter(|line| line.starts_with("line-")).collect();
    let expected: Vec<String> = (1..=lines).map(|n| format!("line-{n}-")).collect();
    assert_eq!(found, expected);
}

fn server() -> GitLab {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    gitlab
}

fn local(gitlab: &GitLab) -> Runner {
    Runner::local(gitlab).idle_count(1).own("report_alone_after", "2s")
}

/// The job has begun under a manager, and that is gone.
fn left_alone(gitlab: &GitLab, runner: Runner, spec: JobSpec) -> (Manager, support::JobId) {
    let mut manager = Manager::start(runner);
    let job = gitlab.enqueue(spec);
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    manager.kill();
    (manager, job)
}

/// A later manager agrees with what the agent said, and its slot is free.
fn a_manager_goes_on(gitlab: &GitLab, manager: &mut Manager) {
    manager.restart();
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(60));
}

#[test]
fn an_agent_without_a_manager_brings_its_job_to_the_end() {
    let gitlab = server();
    let (mut manager, job) = left_alone(&gitlab, local(&gitlab), talking(100));
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(
        (audit.exit_code, audit.failure_reason.as_deref()),
        (Some(23), Some("script_failure"))
    );
    assert_whole(&gitlab.trace(job), 100);
    a_manager_goes_on(&gitlab, &mut manager);
    let log = manager.log();
    let told =
        log.lines().find(|line| line.contains("job failed") && line.contains("exit code 23"));
    assert!(told.is_some(), "the next manager does not know how the job ended: {log}");
}

#[test]
fn it_does_so_over_openssh_as_well() {
    let Some(sshd) = Sshd::setup().machines(2).start() else { return };
    let gitlab = server();
    let runner = Runner::openssh(&gitlab, &sshd).idle_count(1).own("report_alone_after", "2s");
    let (mut manager, job) = left_alone(&gitlab, runner, talking(80));
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(23));
    assert_whole(&gitlab.trace(job), 80);
    a_manager_goes_on(&gitlab, &mut manager);
}

#[test]
fn managers_and_agent_hand_the_log_over_without_losing_or_doubling_a_byte() {
    let gitlab = server();
    let (mut manager, job) = left_alone(&gitlab, local(&gitlab), talking(400));
    for round in 1..=3 {
        // Written while no manager is there.
        let line = format!("line-{}-", 100 * round);
        gitlab.wait_for_trace(job, &line, seconds(60));
        manager.restart();
        manager.wait_until_up();
        let line = format!("line-{}-", 100 * round + 40);
        gitlab.wait_for_trace(job, &line, seconds(60));
        manager.kill();
    }
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(23));
    assert_whole(&gitlab.trace(job), 400);
    a_manager_goes_on(&gitlab, &mut manager);
}

#[test]
fn a_manager_that_was_frozen_is_replaced_and_takes_over_again() {
    let gitlab = server();
    let mut manager = Manager::start(local(&gitlab));
    let job = gitlab.enqueue(talking(240));
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    manager.signal(Signal::STOP);
    gitlab.wait_for_trace(job, "line-100-", seconds(60));
    manager.signal(Signal::CONT);
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(23));
    assert_eq!(audit.count(|event| *event == Event::Ended), 1);
    assert_whole(&gitlab.trace(job), 240);
    assert!(manager.is_running());
}

#[test]
fn a_job_without_a_manager_can_be_canceled() {
    let gitlab = server();
    let spec = talking(2000).after_script(["echo after-script-ran"]);
    let (_manager, job) = left_alone(&gitlab, local(&gitlab), spec);
    gitlab.wait_for_trace(job, "line-90-", seconds(60));
    gitlab.cancel(job);
    let audit = gitlab.wait_for_end(job, seconds(30));
    assert_eq!(audit.state, State::Canceled);
    assert!(gitlab.trace(job).contains("after-script-ran"), "{}", gitlab.trace(job));
}

#[test]
fn an_outage_while_no_manager_is_there_costs_nothing() {
    let gitlab = server();
    let (_manager, job) = left_alone(&gitlab, local(&gitlab), talking(60));
    gitlab.stop();
    std::thread::sleep(seconds(6));
    gitlab.start_again();
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(23));
    assert_whole(&gitlab.trace(job), 60);
}

#[test]
fn an_agent_that_shall_not_report_waits_for_a_manager() {
    let gitlab = server();
    let runner = Runner::local(&gitlab).idle_count(1).own("report_alone_after", "0s");
    let (mut manager, job) = left_alone(&gitlab, runner, talking(20));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(gitlab.audit(job).state, State::Running);
    manager.restart();
    gitlab.wait_for(job, State::Failed, seconds(60));
    assert_whole(&gitlab.trace(job), 20);
}
