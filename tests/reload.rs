//! A changed configuration is taken up while jobs run; a wrong one changes nothing.

use serde_json::json;
use support::{GitLab, JobSpec, Manager, Runner, State, seconds, until};

#[test]
fn policies_and_limits_hold_at_once() {
    let gitlab = GitLab::start();
    let runner = |idle: u32, max: u32| {
        let policy = json!({"periods": ["* * * * *"], "idle_count": idle, "idle_time": "0s"});
        Runner::local(&gitlab).max_instances(max).policy(policy)
    };
    let setup = |concurrent: u32, runner: Runner| {
        Manager::setup().set("concurrent", concurrent).runner(runner)
    };
    let mut manager = setup(1, runner(0, 1)).start();
    let first = gitlab.enqueue(JobSpec::script(["echo ready", "sleep 12"]));
    gitlab.wait_for_trace(first, "ready", seconds(60));
    let second = gitlab.enqueue(JobSpec::script(["echo second"]));

    // More of everything: the job that had to wait runs, idle instances are made.
    manager.reconfigure(&setup(3, runner(2, 4)));
    gitlab.wait_for(second, State::Success, seconds(30));
    until("two idle instances are there", seconds(30), || manager.instances() >= 3);
    assert!(!gitlab.audit(first).state.is_final(), "{}", gitlab.trace(first));

    // Less: what is idle goes, what runs a job stays.
    manager.reconfigure(&setup(1, runner(0, 1)));
    until("one instance is left", seconds(30), || manager.instances() == 1);
    gitlab.wait_for(first, State::Success, seconds(60));
    assert!(manager.is_running());
}

#[test]
fn a_wrong_file_is_told_and_what_needs_a_start_is_named() {
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::local(&gitlab).name("builders"));
    manager.wait_until_up();
    let good = std::fs::read_to_string(manager.config_path()).expect("the configuration");
    std::fs::write(manager.config_path(), good.replace("max_instances = 2", "max_instances = -1"))
        .expect("written");
    let log = manager.wait_for_log("the changed configuration is not used", seconds(20));
    assert!(log.contains("max_instances: -1 is too small"), "{log}");
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));

    // Without waiting for the next look.
    std::fs::write(
        manager.config_path(),
        good.replace(
            "capacity_per_instance",
            "instance_ready_command = \"true\"\ncapacity_per_instance",
        ),
    )
    .expect("written");
    manager.signal(rustix::process::Signal::HUP);
    let log = manager.wait_for_log("hold from the next start on", seconds(20));
    assert!(log.contains("runner=\"builders\""), "{log}");
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
}
