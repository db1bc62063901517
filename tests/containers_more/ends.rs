//! Ends that nobody planned: of agents, of the daemon, and of scripts that do not want to.

use serde_json::json;
use support::{
    BUSYBOX, ContainerJobs, GitLab, JobSpec, Manager, OwnDocker, Runner, State, processes, seconds,
    until,
};

use super::needed;

#[test]
fn a_killed_agent_fails_its_job_and_its_containers_go() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner.max_instances(1)));
    let spec =
        JobSpec::script(["echo be''gun", "sleep 1000"]).variable("FF_NETWORK_PER_BUILD", "1");
    let job = rig.gitlab.enqueue(spec);
    rig.gitlab.wait_for_trace(job, "begun", seconds(60));
    assert!(!rig.docker.of_jobs(&rig.manager).is_empty());
    rig.kill_agents();
    rig.gitlab.wait_for(job, State::Failed, seconds(60));
    let audit = rig.gitlab.audit(job);
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"), "{audit}");
    rig.run(JobSpec::script(["echo next"]), State::Success);
    rig.nothing_is_left(seconds(20));
}

#[test]
fn a_container_that_somebody_removes_is_no_failure_of_its_script() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner));
    let job = rig.gitlab.enqueue(JobSpec::script(["echo be''gun", "sleep 1000"]));
    rig.gitlab.wait_for_trace(job, "begun", seconds(60));
    let made = rig.docker.of_jobs(&rig.manager);
    assert_eq!(made.len(), 1, "{made:?}");
    rig.docker.run(&["rm", "-f", "-v", &made[0]]);
    let audit = rig.gitlab.wait_for(job, State::Failed, seconds(30));
    let trace = rig.gitlab.trace(job);
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"), "{trace}");
    assert!(trace.contains("container was removed while its script ran"), "{trace}");
}

#[test]
fn a_daemon_that_goes_away_is_named_and_used_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let docker = needed!(OwnDocker::start(directory.path()));
    let gitlab = GitLab::start();
    let local = Runner::local(&gitlab).plugin_config("isolation", "none").max_instances(1);
    let manager = Manager::start(docker.in_containers(local, BUSYBOX, json!({})));
    let begun = || {
        let spec = JobSpec::script(["trap 'exit 0' TERM", "echo be''gun", "sleep 1000 & wait"]);
        let job = gitlab.enqueue(spec);
        gitlab.wait_for_trace(job, "begun", seconds(60));
        job
    };
    let told = |job| {
        let audit = gitlab.wait_for(job, State::Failed, seconds(60));
        let trace = gitlab.trace(job);
        assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"), "{trace}");
        let is_named = ["went away", "was stopped"].iter().any(|text| trace.contains(text));
        assert!(trace.contains("the Docker daemon") && is_named, "{trace}");
    };
    // It is stopped, and ends its containers before itself.
    let job = begun();
    assert!(docker.script("stop"));
    told(job);
    assert!(docker.script("start"));
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(60));

    // It dies, and its containers live on.
    let job = begun();
    let file = directory.path().join("pid");
    let pid = std::fs::read_to_string(&file).expect("its pid").trim().parse().expect("a number");
    processes::Process::read(pid).expect("it runs").kill();
    told(job);
    until("the daemon is gone", seconds(10), || processes::Process::read(pid).is_none());
    // Where nobody reaps orphans, a zombie passes for the daemon, or for its containerd.
    for left in [file, directory.path().join("exec/containerd/containerd.pid")] {
        std::fs::remove_file(left).expect("removed");
    }
    assert!(docker.script("start"));
    let next = gitlab.enqueue(JobSpec::script(["echo next"]));
    gitlab.wait_for(next, State::Success, seconds(60));
    let left = docker.run(&["ps", "-a", "--filter", "label=mayfly.job", "-q"]);
    assert_eq!(left, "");
    drop(manager);
}

/// A script that beats on, whatever it is told.
const STUBBORN: [&str; 3] = [
    "trap '' TERM",
    "(trap '' TERM; while :; do echo x >> /tmp/beat; sleep 0.1; done) &",
    "echo be''gun; while :; do sleep 1; done",
];
/// Tells whether anything of it is left.
const LOOK: [&str; 4] = [
    "echo status $CI_JOB_STATUS",
    "before=$(wc -c < /tmp/beat)",
    "sleep 1",
    "echo beat $(($(wc -c < /tmp/beat) - before)) times",
];

#[test]
fn a_stubborn_script_ends_and_nothing_of_it_runs_beside_after_script() {
    let rig = needed!(ContainerJobs::local(json!({}), |runner| runner));
    let spec = JobSpec::script(STUBBORN).after_script(LOOK);

    // Its own timeout: after_script runs.
    let (job, trace) = rig.run(spec.clone().variable("RUNNER_SCRIPT_TIMEOUT", "2s"), State::Failed);
    let audit = rig.gitlab.audit(job);
    assert!(trace.contains("status failed") && trace.contains("beat 0 times"), "{trace}");
    assert!(audit.took().is_some_and(|took| took < seconds(20)), "{audit}");

    // Canceled: after_script runs.
    let job = rig.gitlab.enqueue(spec.clone());
    rig.gitlab.wait_for_trace(job, "begun", seconds(60));
    let canceled = std::time::Instant::now();
    rig.gitlab.cancel(job);
    rig.gitlab.wait_for_end(job, seconds(60));
    let trace = rig.gitlab.trace(job);
    assert!(trace.contains("status canceled") && trace.contains("beat 0 times"), "{trace}");
    assert!(canceled.elapsed() < seconds(20), "{trace}");

    // The job's timeout: nothing more of it runs.
    let (job, trace) = rig.run(spec.timeout(seconds(4)), State::Failed);
    let audit = rig.gitlab.audit(job);
    assert_eq!(audit.failure_reason.as_deref(), Some("job_execution_timeout"), "{trace}");
    assert!(!trace.contains("times"), "{trace}");
    assert!(audit.took().is_some_and(|took| took < seconds(20)), "{audit}");
    rig.nothing_is_left(seconds(20));
}
