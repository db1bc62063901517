//! A running job is never lost by our doing: kills, restarts, outages, dead plugins.

use std::time::{Duration, Instant};

use support::{
    Endpoint, Event, Fault, GitLab, JobSpec, Manager, Runner, Sshd, State, processes, seconds,
};

/// A line each 50 ms, and an exit code that nobody invents.
fn talking(lines: u32) -> JobSpec {
    let script = format!("for n in $(seq 1 {lines}); do echo line-$n-; sleep 0.05; done");
    JobSpec::script([script, "exit 23".into()]).variable("FF_TIMESTAMPS", "false")
}

/// Every line is there once, in order.
fn assert_whole(trace: &str, lines: u32) {
    let mut from = 0;
    for n in 1..=lines {
        let line = format!("line-{n}-\n");
        assert_eq!(trace.matches(&line).count(), 1, "{line} in {trace}");
        from += trace[from..].find(&line).expect("in order");
    }
}

fn everywhere(test: impl Fn(&GitLab, Runner)) {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    test(&gitlab, Runner::local(&gitlab).idle_count(1));
    if let Some(sshd) = Sshd::setup().machines(2).start() {
        let gitlab = GitLab::start();
        gitlab.set_update_interval(seconds(1));
        test(&gitlab, Runner::openssh(&gitlab, &sshd).idle_count(1));
    }
}

#[test]
fn a_running_job_survives_kill_9_of_the_manager() {
    everywhere(|gitlab, runner| {
        let mut manager = Manager::start(runner);
        let job = gitlab.enqueue(talking(100));
        gitlab.wait_for_trace(job, "line-5-", seconds(60));
        manager.kill();
        // Nothing of a plugin outlives it by more than moments.
        processes_gone(&manager, seconds(2));
        std::thread::sleep(seconds(1));
        manager.restart();
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        assert_eq!(
            (audit.exit_code, audit.failure_reason.as_deref()),
            (Some(23), Some("script_failure"))
        );
        assert_whole(&gitlab.trace(job), 100);
        let next = gitlab.enqueue(JobSpec::script(["echo next"]));
        gitlab.wait_for(next, State::Success, seconds(60));
    });
}

fn processes_gone(manager: &Manager, within: Duration) {
    support::wait::until("no plugin process is left", within, || {
        manager.plugin_processes().is_empty()
    });
}

#[test]
fn a_job_that_ended_while_no_manager_was_there_is_told_by_the_next() {
    everywhere(|gitlab, runner| {
        let mut manager = Manager::start(runner);
        let job = gitlab.enqueue(talking(20));
        gitlab.wait_for_trace(job, "line-1-", seconds(60));
        manager.kill();
        std::thread::sleep(seconds(3));
        manager.restart();
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        assert_eq!(audit.exit_code, Some(23));
        assert_whole(&gitlab.trace(job), 20);
    });
}

#[test]
fn many_kills_lose_nothing() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let mut manager = Manager::start(Runner::local(&gitlab).max_instances(2).capacity(2));
    let jobs = gitlab.enqueue_many(4, &talking(160));
    for job in &jobs {
        gitlab.wait_for_trace(*job, "line-1-", seconds(60));
    }
    for round in 0..5 {
        std::thread::sleep(Duration::from_millis(300 + 170 * round));
        manager.kill();
        manager.restart();
    }
    for job in jobs {
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        assert_eq!(audit.exit_code, Some(23), "{}", gitlab.trace(job));
        assert_whole(&gitlab.trace(job), 160);
    }
}

/// From its word that the job arrived on, the server counts on us.
#[test]
fn a_job_that_just_arrived_is_not_forgotten() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let mut manager = Manager::start(Runner::local(&gitlab).max_instances(1).idle_count(1));
    let first = gitlab.enqueue(JobSpec::script(["echo up"]));
    gitlab.wait_for(first, State::Success, seconds(60));
    for _ in 0..5 {
        manager.wait_until_up();
        let job = gitlab.enqueue(JobSpec::script(["echo up"]));
        gitlab.wait_for(job, State::Running, seconds(60));
        manager.kill();
        manager.restart();
        gitlab.wait_for_end(job, seconds(60));
    }
}

/// The next manager reads the log from its start, and learns by a refusal that the server
/// has some of it: of the rest there is more than it may have at once.
#[test]
fn a_large_log_whose_beginning_the_server_has_is_told_whole_by_the_next() {
    everywhere(|gitlab, runner| {
        let mut manager = Manager::start(runner);
        let script = ["seq 1 10000", "sleep 3", "seq 10001 200000", "exit 23"];
        let spec = JobSpec::script(script).variable("FF_TIMESTAMPS", "false");
        let job = gitlab.enqueue(spec);
        gitlab.wait_for_trace(job, "\n10000\n", seconds(60));
        manager.kill();
        std::thread::sleep(seconds(5));
        manager.restart();
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        assert_eq!(audit.exit_code, Some(23));
        let trace = gitlab.trace(job);
        let rest: String = (10_001..=200_000).map(|n| format!("{n}\n")).collect();
        assert!(rest.len() > 1 << 20 && trace.contains(&rest), "{} bytes", trace.len());
    });
}

#[test]
fn sigterm_leaves_jobs_running_and_the_next_start_goes_on() {
    everywhere(|gitlab, runner| {
        let mut manager = Manager::start(runner);
        let job = gitlab.enqueue(talking(60));
        gitlab.wait_for_trace(job, "line-3-", seconds(60));
        let begun = Instant::now();
        manager.terminate();
        assert_eq!(manager.wait_for_exit(seconds(10)).code, Some(0));
        assert!(begun.elapsed() < seconds(5), "{:?}", begun.elapsed());
        manager.restart();
        gitlab.wait_for(job, State::Failed, seconds(60));
        assert_whole(&gitlab.trace(job), 60);
    });
}

/// While the ending waits for a job without an instance, the loop still runs: a job that
/// was left to its agent must keep its instance.
#[test]
fn an_orderly_end_never_deletes_under_a_job() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let runner = Runner::local(&gitlab)
        .max_instances(2)
        .max_use_count(1)
        .plugin_config("boot_time", "3s")
        .idle_time(seconds(0));
    let mut manager = Manager::start(runner);
    let job = gitlab.enqueue(talking(160));
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    let waits = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(waits, State::Running, seconds(10));
    manager.terminate();
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(0));
    assert!(!manager.log().contains("deleting instance"), "{}", manager.log());
    manager.restart();
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(23), "{}", gitlab.trace(job));
    assert_whole(&gitlab.trace(job), 160);
    gitlab.wait_for(waits, State::Success, seconds(60));
}

#[test]
fn sigquit_lets_jobs_end_and_takes_no_more() {
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let job = gitlab.enqueue(talking(40));
    gitlab.wait_for_trace(job, "line-1-", seconds(60));
    manager.quit();
    let late = gitlab.enqueue(JobSpec::script(["echo late"]));
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(0));
    assert_eq!(gitlab.audit(job).exit_code, Some(23));
    assert_whole(&gitlab.trace(job), 40);
    assert_eq!(gitlab.audit(late).state, State::Queued);
}

#[test]
fn sigint_stops_jobs_with_a_reason() {
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let job = gitlab.enqueue(talking(4000));
    gitlab.wait_for_trace(job, "line-1-", seconds(60));
    manager.interrupt();
    assert_eq!(manager.wait_for_exit(seconds(30)).code, Some(130));
    let audit = gitlab.audit(job);
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_interrupted"), "{audit:?}");
}

#[test]
fn a_plugin_that_dies_is_started_again() {
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::local(&gitlab).max_instances(1).max_use_count(1));
    let first = gitlab.enqueue(JobSpec::script(["echo first"]));
    gitlab.wait_for(first, State::Success, seconds(60));
    for plugin in manager.plugins() {
        plugin.kill();
    }
    manager.wait_for_log("plugin ended, starting it again", seconds(10));
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(30));
}

#[test]
fn a_plugin_that_dies_under_a_job_does_not_disturb_it() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let job = gitlab.enqueue(talking(60));
    gitlab.wait_for_trace(job, "line-1-", seconds(60));
    for plugin in manager.plugins() {
        plugin.kill();
    }
    gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(gitlab.audit(job).exit_code, Some(23));
    assert_whole(&gitlab.trace(job), 60);
}

#[test]
fn a_plugin_that_is_stopped_ends_with_its_manager_all_the_same() {
    let gitlab = GitLab::start();
    let mut manager = Manager::start(Runner::local(&gitlab));
    // The kernel hangs up on the group while the guard cleans up: who is first differs.
    for _ in 0..20 {
        manager.wait_until_up();
        for plugin in manager.plugins() {
            plugin.stop();
        }
        manager.kill();
        manager.assert_nothing_left();
        manager.restart();
    }
}

#[test]
fn a_lost_instance_is_a_system_failure_with_its_cause() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let job = gitlab.enqueue(talking(4000));
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    let directory = manager.directory().display().to_string();
    let keepers = processes::mentioning(&directory);
    let is_instance =
        |process: &&processes::Process| process.args.get(1).is_some_and(|role| role == "instance");
    for keeper in keepers.iter().filter(is_instance) {
        keeper.kill();
    }
    let audit = gitlab.wait_for(job, State::Failed, seconds(90));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"));
    let trace = gitlab.trace(job);
    assert!(trace.contains("line-3-") && trace.contains("was lost while the job ran"), "{trace}");
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(60));
}

#[test]
fn a_cut_connection_costs_a_job_nothing() {
    let Some(sshd) = Sshd::setup().machines(1).start() else { return };
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let _manager = Manager::start(Runner::openssh(&gitlab, &sshd).max_instances(1));
    let job = gitlab.enqueue(talking(120));
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    for _ in 0..3 {
        sshd.cut_connections();
        std::thread::sleep(seconds(1));
    }
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.exit_code, Some(23), "{}", gitlab.trace(job));
    assert_whole(&gitlab.trace(job), 120);
}

#[test]
fn an_instance_is_reached_again_while_the_plugin_hangs() {
    let Some(sshd) = Sshd::setup().machines(1).start() else { return };
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let mut manager = Manager::start(Runner::openssh(&gitlab, &sshd).max_instances(1));
    let job = gitlab.enqueue(talking(600));
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    // A plugin that does not answer is given two minutes; the job needs far less.
    manager.plugins().iter().for_each(processes::Process::stop);
    sshd.cut_connections();
    manager.wait_for_log("connection to the instance is lost", seconds(60));
    let audit = gitlab.wait_for(job, State::Failed, seconds(100));
    assert_eq!(audit.exit_code, Some(23), "{}", gitlab.trace(job));
    assert_whole(&gitlab.trace(job), 600);
}

#[test]
fn an_outage_of_the_server_loses_no_byte_and_no_result() {
    let faults = [Fault::status(500), Fault::status(503), Fault::retry_after(429, "99999999")];
    for fault in faults {
        let gitlab = GitLab::start();
        gitlab.set_update_interval(seconds(1));
        let _manager = Manager::start(Runner::local(&gitlab).max_instances(1));
        let job = gitlab.enqueue(talking(40));
        gitlab.wait_for_trace(job, "line-3-", seconds(60));
        gitlab.fail_for(seconds(4), Endpoint::Any, fault);
        gitlab.wait_for(job, State::Failed, seconds(90));
        assert_eq!(gitlab.audit(job).exit_code, Some(23));
        assert_whole(&gitlab.trace(job), 40);
        let next = gitlab.enqueue(JobSpec::script(["echo next"]));
        gitlab.wait_for(next, State::Success, seconds(60));
    }
}

#[test]
fn a_server_that_wants_the_log_again_gets_it() {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let _manager = Manager::start(Runner::local(&gitlab).max_instances(1));
    let job = gitlab.enqueue(talking(40));
    gitlab.wait_for_trace(job, "line-3-", seconds(60));
    gitlab.corrupt_trace(job);
    gitlab.wait_for(job, State::Failed, seconds(60));
    let audit = gitlab.audit(job);
    assert!(audit.count(|event| matches!(event, Event::LogDiffers)) >= 1, "{audit:?}");
    assert_whole(&gitlab.trace(job), 40);
}
