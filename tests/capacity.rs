//! The maximum is a maximum, slots are slots, and idle capacity is what the policy says.

use std::time::{Duration, Instant};

use serde_json::json;
use support::{GitLab, JobSpec, Manager, Runner, State, seconds};

#[test]
fn twenty_jobs_on_four_instances_of_two_slots() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab)
        .max_instances(4)
        .capacity(2)
        .policy(json!({"periods": ["* * * * *"], "idle_count": 2, "idle_time": "500ms"}));
    let manager = Manager::setup().runner(runner).set("concurrent", 20).start();
    let jobs = gitlab.enqueue_many(20, &JobSpec::script(["echo up", "sleep 0.7"]));
    let begun = Instant::now();
    let (mut most_instances, mut most_jobs) = (0, 0);
    while jobs.iter().any(|job| !gitlab.audit(*job).state.is_final()) {
        assert!(begun.elapsed() < seconds(90), "not all jobs ended");
        most_instances = most_instances.max(manager.instances());
        // A job that has said something and not ended is running on an instance.
        let running = jobs.iter().filter(|job| {
            let audit = gitlab.audit(**job);
            audit.first_byte().is_some() && !audit.state.is_final()
        });
        most_jobs = most_jobs.max(running.count());
        std::thread::sleep(Duration::from_millis(20));
    }
    for job in &jobs {
        assert_eq!(gitlab.audit(*job).state, State::Success, "{}", gitlab.trace(*job));
    }
    assert!((2..=4).contains(&most_instances), "{most_instances} instances at once");
    assert!(most_jobs <= 8, "{most_jobs} jobs at once");
    support::wait::until("one instance with two idle slots is left", seconds(20), || {
        manager.instances() == 1
    });
    std::thread::sleep(seconds(2));
    assert_eq!(manager.instances(), 1, "it stays: {}", manager.log());
}

#[test]
fn idle_instances_wait_before_the_first_job_and_stay_at_their_count() {
    let gitlab = GitLab::start();
    let manager = Manager::start(Runner::local(&gitlab).max_instances(3).idle_count(2));
    support::wait::until("two idle instances are there", seconds(20), || manager.instances() == 2);
    let job = gitlab.enqueue(JobSpec::script(["sleep 3"]));
    gitlab.wait_for(job, State::Running, seconds(20));
    support::wait::until("the used one is replaced", seconds(20), || manager.instances() == 3);
    gitlab.wait_for(job, State::Success, seconds(20));
}

#[test]
fn an_instance_for_one_job_is_never_used_twice() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).max_instances(2).max_use_count(1);
    let manager = Manager::start(runner);
    let spec = JobSpec::script(["test ! -e ~/been-here", "touch ~/been-here"]);
    let jobs = gitlab.enqueue_many(6, &spec);
    for audit in gitlab.wait_for_all(&jobs, seconds(60)) {
        assert_eq!(audit.state, State::Success, "{}", gitlab.trace(audit.job));
    }
    support::wait::until("all used instances are gone", seconds(20), || manager.instances() == 0);
}

#[test]
fn a_job_that_gets_no_slot_in_time_fails_with_the_reason() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab)
        .plugin_config("boot_time", "1h")
        .autoscaler("instance_acquire_timeout", "2s");
    let _manager = Manager::start(runner);
    let job = gitlab.enqueue(JobSpec::script(["echo never"]));
    let audit = gitlab.wait_for(job, State::Failed, seconds(30));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"));
    let trace = gitlab.trace(job);
    assert!(trace.contains("no instance was ready within 2 s"), "{trace}");
}

#[test]
fn a_ready_command_that_fails_keeps_an_instance_from_jobs() {
    let gitlab = GitLab::start();
    let ready = "test -e ~/second-try || { touch ~/second-try; exit 1; }";
    let runner = Runner::local(&gitlab).autoscaler("instance_ready_command", ready);
    let _manager = Manager::start(runner);
    let job = gitlab.enqueue(JobSpec::script(["test -e ~/second-try"]));
    gitlab.wait_for(job, State::Success, seconds(60));
}

#[test]
fn instances_go_with_the_manager_where_the_configuration_says_so() {
    for (delete, left) in [(true, 0), (false, 1)] {
        let gitlab = GitLab::start();
        let runner = Runner::local(&gitlab)
            .max_instances(1)
            .idle_count(1)
            .autoscaler("delete_instances_on_shutdown", delete);
        let mut manager = Manager::setup().runner(runner).tolerate_leftovers().start();
        let job = gitlab.enqueue(JobSpec::script(["echo up"]));
        gitlab.wait_for(job, State::Success, seconds(60));
        manager.quit();
        assert_eq!(manager.wait_for_exit(seconds(40)).code, Some(0));
        assert_eq!(manager.instances(), left);
    }
}

#[test]
fn an_instance_of_before_without_a_record_is_replaced() {
    let gitlab = GitLab::start();
    let runner = Runner::local(&gitlab).max_instances(1).idle_count(1);
    let mut manager = Manager::setup().runner(runner).start();
    support::wait::until("an idle instance is there", seconds(20), || manager.instances() == 1);
    manager.wait_for_log("instance is ready", seconds(20));
    manager.kill();
    std::fs::remove_dir_all(manager.state_dir()).expect("the state is lost");
    manager.restart();
    manager.wait_for_log("reason=\"unrecorded\"", seconds(20));
    let job = gitlab.enqueue(JobSpec::script(["echo up"]));
    gitlab.wait_for(job, State::Success, seconds(60));
}
