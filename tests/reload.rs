//! A changed configuration is taken up while jobs run; a wrong one changes nothing.

use std::io::Write as _;
use std::net::TcpListener;

use serde_json::json;
use support::{GitLab, JobId, JobSpec, Manager, Runner, State, seconds, until};

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
fn a_wrong_file_is_told_and_the_old_one_stays_in_force() {
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
            "instance_ready_command = \"false\"\ncapacity_per_instance",
        ),
    )
    .expect("written");
    manager.signal(rustix::process::Signal::HUP);
    manager.wait_for_log("the configuration was read again", seconds(20));
    // The instance that is there is ready already.
    let job = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(job, State::Success, seconds(60));
}

/// A job that runs until the test lets it end.
struct Held {
    job: JobId,
    gate: TcpListener,
}

fn held(gitlab: &GitLab, token: &str) -> Held {
    let gate = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = gate.local_addr().expect("bound").port();
    // The first word of the connection opens the gate.
    let wait = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo begun; read -r word <&3");
    let job = gitlab.enqueue(JobSpec::script([wait, "echo let-go".into()]).for_runner(token));
    gitlab.wait_for_trace(job, "begun", seconds(60));
    Held { job, gate }
}

fn let_go(gitlab: &GitLab, Held { job, gate }: &Held) {
    let (mut waiting, _) = gate.accept().expect("the job waits");
    waiting.write_all(b"go\n").expect("the gate is opened");
    gitlab.wait_for(*job, State::Success, seconds(60));
}

fn entry(gitlab: &GitLab, name: &str, id: u64) -> Runner {
    let runner = Runner::local(gitlab).name(name).token(&format!("glrt-{name}-token"), id);
    runner.plugin_config("name", name).idle_time(seconds(600))
}

fn runs(gitlab: &GitLab, token: &str) {
    let job = gitlab.enqueue(JobSpec::script(["echo done"]).for_runner(token));
    gitlab.wait_for(job, State::Success, seconds(60));
}

#[test]
fn entries_come_and_go_while_jobs_run() {
    let gitlab = GitLab::start();
    let one = |name, id| entry(&gitlab, name, id).max_instances(1);
    let (first, second) = (one("first", 1), one("second", 2));
    let both = Manager::setup().runner(first.clone()).runner(second.clone());
    let only = |runner: &Runner| Manager::setup().runner(runner.clone());
    let mut manager = only(&first).start();
    let job = held(&gitlab, "glrt-first-token");

    manager.reconfigure(&both);
    runs(&gitlab, "glrt-second-token");

    // The first one is gone: its job is not disturbed, its instance goes after it, no
    // other job is taken for it.
    manager.reconfigure(&only(&second));
    manager.wait_for_log("its entry is gone", seconds(20));
    let late = gitlab.enqueue(JobSpec::script(["true"]).for_runner("glrt-first-token"));
    runs(&gitlab, "glrt-second-token");
    assert_eq!(manager.instances(), 2, "an instance with a job was taken away");
    let_go(&gitlab, &job);
    manager.wait_for_log("the last of its instances is gone", seconds(30));
    until("one instance is left", seconds(30), || manager.instances() == 1);
    assert_eq!(gitlab.audit(late).state, State::Queued);

    // Back again.
    manager.reconfigure(&both);
    gitlab.wait_for(late, State::Success, seconds(60));
}

#[test]
fn another_template_replaces_instances_as_they_get_empty() {
    let gitlab = GitLab::start();
    let runner = |boot: &str, lease: &str| {
        let runner = entry(&gitlab, "rolling", 1).max_instances(2);
        runner.plugin_config("boot_time", boot).plugin_config("lease", lease)
    };
    let mut manager = Manager::start(runner("0s", "12h"));
    let job = held(&gitlab, "glrt-rolling-token");

    // A plugin that does not start changes nothing.
    manager.reconfigure(&Manager::setup().runner(runner("nonsense", "12h")));
    manager.wait_for_log("the changed plugin does not start", seconds(30));
    runs(&gitlab, "glrt-rolling-token");

    manager.reconfigure(&Manager::setup().runner(runner("100ms", "13h")));
    manager.wait_for_log("instances are made from another template", seconds(30));
    runs(&gitlab, "glrt-rolling-token");
    until("idle ones of before are gone", seconds(30), || manager.instances() == 2);
    assert!(!gitlab.audit(job.job).state.is_final());

    // Killed in the middle, with a job on an instance that is to go.
    manager.restart();
    manager.wait_until_up();
    runs(&gitlab, "glrt-rolling-token");
    let_go(&gitlab, &job);
    until("only the new one is left", seconds(30), || manager.instances() == 1);
    assert!(manager.is_running());
}

#[test]
fn another_group_takes_over_and_the_one_of_before_drains() {
    let gitlab = GitLab::start();
    let runner =
        |group: &str| entry(&gitlab, "moving", 1).max_instances(1).plugin_config("name", group);
    let mut manager = Manager::start(runner("old"));
    let job = held(&gitlab, "glrt-moving-token");
    manager.reconfigure(&Manager::setup().runner(runner("new")));
    manager.wait_for_log("instances come from another group", seconds(30));
    runs(&gitlab, "glrt-moving-token");
    assert_eq!(manager.instances(), 2);

    // The next process finds both, and goes on draining the old one.
    manager.restart();
    manager.wait_until_up();
    runs(&gitlab, "glrt-moving-token");
    assert_eq!(manager.instances(), 2);
    let_go(&gitlab, &job);
    manager.wait_for_log("the last of its instances is gone", seconds(60));
    until("only the new one is left", seconds(30), || manager.instances() == 1);

    // Changed while no manager was there.
    let job = held(&gitlab, "glrt-moving-token");
    manager.kill();
    manager.reconfigure(&Manager::setup().runner(runner("newest")));
    manager.restart();
    manager.wait_for_log("what is left of it drains", seconds(30));
    runs(&gitlab, "glrt-moving-token");
    let_go(&gitlab, &job);
    manager.wait_for_log("the last of its instances is gone", seconds(60));
    until("only the newest is left", seconds(30), || manager.instances() == 1);
}
