//! The rig itself works: a manager with real plugins runs a job, is killed, and what it
//! started is gone.

use support::{GitLab, JobSpec, Manager, Runner, Sshd, State, processes, seconds, skip};

#[test]
fn a_job_runs_over_openssh_and_nothing_is_left_behind() {
    let Some(sshd) = Sshd::setup().machines(2).start() else { return };
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::openssh(&gitlab, &sshd));
    let job = gitlab.enqueue(JobSpec::script(["echo I am $(id -un)", "nohup sleep 1000 &"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    let is_user = |machine: &support::sshd::Machine| {
        gitlab.trace(job).contains(&format!("I am {}", machine.user()))
    };
    assert!(sshd.machines().iter().any(is_user), "{}", gitlab.trace(job));
    assert_eq!(manager.plugins().len(), 1, "{:?}", manager.plugin_processes());
    assert_eq!(manager.socket_directories().len(), 1);
    manager.kill();
    manager.assert_nothing_left();
    manager.restart();
    manager.wait_until_up();
    manager.interrupt();
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(130));
    let users: Vec<u32> =
        sshd.machines().iter().flat_map(|m| m.processes()).map(|p| p.uid).collect();
    drop(sshd);
    let is_left = |process: &processes::Process| users.contains(&process.uid);
    assert!(!processes::all().iter().any(is_left));
}

#[test]
fn a_job_runs_on_this_machine_and_its_instance_ends_with_the_test() {
    if !support::binaries().has("fleeting-plugin-local") {
        skip!("there is no fleeting-plugin-local in this build");
    }
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::local(&gitlab).idle_count(1));
    let job = gitlab.enqueue(JobSpec::script(["echo hello from $CI_JOB_ID"]));
    gitlab.wait_for(job, State::Success, seconds(60));
    assert!(gitlab.trace(job).contains(&format!("hello from {job}")));
    let directory = manager.directory().display().to_string();
    assert!(!processes::mentioning(&directory).is_empty());
    manager.terminate();
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(0));
    drop(manager);
    assert!(processes::mentioning(&directory).is_empty());
}
