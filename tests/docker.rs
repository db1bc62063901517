//! Jobs in containers: they run there, outlive plugin and manager, and leave nothing.

use std::collections::BTreeSet;

use support::{BUSYBOX, DEBIAN, Docker, GitLab, JobSpec, Runner, State, seconds, skip, until};

/// Containers, a GitLab that they reach, and a runner of the image; or what is missing.
fn rig(image: &str) -> Result<(Docker, GitLab, Runner), String> {
    let docker = Docker::find()?;
    if !docker.has(image) {
        return Err(format!("no image {image}: run tests/setup"));
    }
    let gitlab = docker.gitlab();
    let runner = docker.runner(&gitlab, image);
    Ok((docker, gitlab, runner))
}

#[test]
fn a_job_clones_and_its_artifacts_reach_the_next_one() {
    let (docker, gitlab, runner) = match rig(DEBIAN) {
        Ok(rig) => rig,
        Err(missing) => skip!("{missing}"),
    };
    let repository = gitlab.repository("project");
    repository.commit(&[("file", "from the repository\n")]);
    let manager = docker.setup().runner(runner.max_use_count(1)).start();
    let first = gitlab.enqueue(
        JobSpec::script(["cat file", "hostname > made", "echo $MAYFLY_INSTANCE"])
            .git(&repository)
            .artifacts(["made"]),
    );
    gitlab.wait_for(first, State::Success, seconds(60));
    let trace = gitlab.trace(first);
    assert!(trace.contains("from the repository") && trace.contains("mayfly-m"), "{trace}");
    let next = gitlab
        .enqueue(JobSpec::script(["echo made by $(cat made), not by $(hostname)"]).needs(first));
    gitlab.wait_for(next, State::Success, seconds(60));
    let trace = gitlab.trace(next);
    assert!(trace.contains("made by mayfly-m"), "{trace}");
    until("used containers are gone", seconds(20), || docker.containers().is_empty());
    drop(manager);
}

#[test]
fn jobs_and_instances_outlive_manager_and_plugin() {
    let (docker, gitlab, runner) = match rig(BUSYBOX) {
        Ok(rig) => rig,
        Err(missing) => skip!("{missing}"),
    };
    let mut manager = docker.setup().runner(runner.max_instances(1).idle_count(1)).start();
    let job = gitlab.enqueue(JobSpec::script(["echo begun", "sleep 6", "echo en''ded"]));
    gitlab.wait_for_trace(job, "begun", seconds(60));
    let containers = docker.containers();
    for plugin in manager.plugins() {
        plugin.kill();
    }
    until("the plugin is up again", seconds(30), || {
        manager.log().matches("plugin is up").count() == 2
    });
    manager.restart();
    gitlab.wait_for(job, State::Success, seconds(60));
    let trace = gitlab.trace(job);
    assert_eq!(trace.matches("ended").count(), 1, "{trace}");
    let next = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(next, State::Success, seconds(60));
    assert_eq!(docker.containers(), containers);
}

#[test]
fn a_container_that_is_killed_fails_its_job_with_the_cause() {
    let (docker, gitlab, runner) = match rig(BUSYBOX) {
        Ok(rig) => rig,
        Err(missing) => skip!("{missing}"),
    };
    let _manager = docker.setup().runner(runner.max_instances(1)).start();
    let job = gitlab.enqueue(JobSpec::script(["echo begun", "sleep 1000"]));
    gitlab.wait_for_trace(job, "begun", seconds(60));
    docker.run(&["kill", &docker.containers()[0]]);
    let audit = gitlab.wait_for(job, State::Failed, seconds(60));
    assert_eq!(audit.failure_reason.as_deref(), Some("runner_system_failure"));
    let next = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(next, State::Success, seconds(60));
    assert_eq!(docker.containers().len(), 1, "the dead one is gone");
}

#[test]
fn a_job_that_wants_too_much_memory_fails_alone() {
    let (docker, gitlab, runner) = match rig(BUSYBOX) {
        Ok(rig) => rig,
        Err(missing) => skip!("{missing}"),
    };
    let runner = runner.plugin_config("memory", "96m").max_instances(1).idle_count(1);
    let _manager = docker.setup().runner(runner).start();
    let greedy = gitlab
        .enqueue(JobSpec::script(["x=$(head -c 300000000 /dev/zero | tr '\\0' a)", "echo got it"]));
    let audit = gitlab.wait_for(greedy, State::Failed, seconds(60));
    assert_eq!(audit.failure_reason.as_deref(), Some("script_failure"));
    let next = gitlab.enqueue(JobSpec::script(["true"]));
    gitlab.wait_for(next, State::Success, seconds(60));
}

#[test]
fn twenty_jobs_have_twenty_containers() {
    let (docker, gitlab, runner) = match rig(BUSYBOX) {
        Ok(rig) => rig,
        Err(missing) => skip!("{missing}"),
    };
    let runner = runner.max_instances(20).max_use_count(1).set("request_concurrency", 10);
    let manager = docker.setup().set("concurrent", 20).runner(runner).start();
    let jobs = gitlab.enqueue_many(20, &JobSpec::script(["echo on-$(hostname)-", "sleep 2"]));
    let mut hosts = BTreeSet::new();
    for audit in gitlab.wait_for_all(&jobs, seconds(90)) {
        let trace = gitlab.trace(audit.job);
        assert_eq!(audit.state, State::Success, "{trace}");
        let host = trace.split("on-mayfly-").nth(1).and_then(|rest| rest.split("- ").next());
        hosts.insert(host.and_then(|rest| rest.lines().next()).unwrap_or_default().to_owned());
    }
    assert_eq!(hosts.len(), 20, "{hosts:?}\n{}", manager.log());
    until("used containers are gone", seconds(30), || docker.containers().is_empty());
}
