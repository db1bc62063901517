//! Containers that are made before the jobs are there that need them: taken where they fit,
//! thrown away where not, and never left behind.

use serde_json::json;
use support::{BUSYBOX, ContainerJobs, JobSpec, Runner, State, seconds, until};

use super::images::Derived;
use super::needed;

/// What the log of a job says that took one.
const TAKEN: &str = "made ahead of the job";

fn one_slot(runner: Runner) -> Runner {
    runner.max_instances(1).idle_count(1).capacity(1)
}

trait Rig {
    /// Runs two jobs that are alike: the next one is taken for another of them.
    fn two_of_a_kind(&self, spec: &JobSpec);
    fn wait_for_ahead(&self);
    fn nothing_waits(&self);
}

impl Rig for ContainerJobs {
    fn two_of_a_kind(&self, spec: &JobSpec) {
        for _ in 0..2 {
            let (_, trace) = self.run(spec.clone(), State::Success);
            assert!(!trace.contains(TAKEN), "{trace}");
        }
        self.wait_for_ahead();
    }

    fn wait_for_ahead(&self) {
        until("a container waits for its job", seconds(20), || {
            let format = ["ps", "--filter", "label=mayfly.ahead", "--format", "{{.Names}}"];
            let running = self.docker.run(&format);
            let ours = self.docker.ahead_of_jobs(&self.manager);
            ours.iter().any(|name| running.lines().any(|line| line == name))
        });
    }

    fn nothing_waits(&self) {
        until("what was made ahead is gone", seconds(20), || {
            self.docker.ahead_of_jobs(&self.manager).is_empty()
        });
    }
}

#[test]
fn the_third_job_of_a_kind_takes_what_was_made_ahead() {
    let mut rig = needed!(ContainerJobs::local(json!({}), one_slot));
    let spec = |word: &str| {
        JobSpec::script(["echo it says $WORD", "echo kept > /tmp/kept", "sleep 1"])
            .after_script(["cat /tmp/kept"])
            .variable("WORD", word)
    };
    rig.two_of_a_kind(&spec("first"));
    for word in ["third", "fourth"] {
        let (_, trace) = rig.run(spec(word), State::Success);
        let expected = [TAKEN, &format!("it says {word}"), " kept"];
        assert!(expected.iter().all(|text| trace.contains(*text)), "{trace}");
        rig.wait_for_ahead();
    }
    rig.nothing_is_left(seconds(10));
    // An orderly end removes it before the instance goes.
    rig.manager.quit();
    rig.manager.wait_for_exit(seconds(30));
    rig.nothing_waits();
}

#[test]
fn a_network_is_made_ahead_too_and_services_join_it() {
    let rig = needed!(ContainerJobs::local(json!({}), one_slot));
    let serve = "mkdir /w; echo served > /w/index.html; exec httpd -f -p 80 -h /w";
    let service = json!({
        "name": BUSYBOX, "alias": "web", "command": ["sh", "-c", serve],
        "variables": [{ "key": "HEALTHCHECK_TCP_PORT", "value": "80" }],
    });
    let spec = JobSpec::script(["wget -qO- http://web/"])
        .variable("FF_NETWORK_PER_BUILD", "true")
        .key("services", json!([service]));
    rig.two_of_a_kind(&spec);
    let names = rig.docker.ahead_of_jobs(&rig.manager);
    let (builds, networks): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| name.ends_with("-build"));
    let ids = |kind: &str, name: &str| rig.docker.run(&[kind, "inspect", "-f", "{{.Id}}", name]);
    let network = ids("network", networks[0]);
    let build = ids("container", builds[0]);
    let (_, trace) = rig.run(spec.clone(), State::Success);
    assert!(trace.contains(TAKEN) && trace.contains(" served"), "{trace}");
    rig.nothing_is_left(seconds(10));
    rig.wait_for_ahead();
    let all = rig.docker.run(&["ps", "-a", "-q", "--no-trunc"])
        + &rig.docker.run(&["network", "ls", "-q", "--no-trunc"]);
    assert!(!all.contains(&network) && !all.contains(&build), "{all}");

    // Somebody removes all that does not run; and what does.
    for name in rig.docker.ahead_of_jobs(&rig.manager) {
        let kind = if name.ends_with("-build") { "container" } else { "network" };
        rig.docker.run(&[kind, "rm", "-f", &name]);
    }
    let (_, trace) = rig.run(spec, State::Success);
    assert!(!trace.contains(TAKEN) && trace.contains(" served"), "{trace}");
}

#[test]
fn what_does_not_fit_is_thrown_away() {
    let rig = needed!(ContainerJobs::local(json!({}), one_slot));
    let alike = JobSpec::script(["true"]);
    rig.two_of_a_kind(&alike);
    let other = alike.clone().variable("FF_NETWORK_PER_BUILD", "true");
    let (_, trace) = rig.run(other, State::Success);
    assert!(!trace.contains(TAKEN), "{trace}");
    rig.nothing_is_left(seconds(10));
    rig.nothing_waits();

    // Another image under the same name.
    let old = Derived::of(&rig.docker, BUSYBOX, "echo old > /image", &[]);
    let new = Derived::of(&rig.docker, BUSYBOX, "echo new > /image", &[]);
    let spec = JobSpec::script(["echo it is $(cat /image)"]).image(&old.name);
    rig.two_of_a_kind(&spec);
    rig.docker.run(&["tag", &new.name, &old.name]);
    let (_, trace) = rig.run(spec, State::Success);
    assert!(trace.contains("it is new") && !trace.contains(TAKEN), "{trace}");
    rig.nothing_is_left(seconds(10));
}

#[test]
fn nothing_waits_where_it_is_switched_off() {
    let off = |runner: Runner| one_slot(runner).own("containers_ahead", false);
    let rig = needed!(ContainerJobs::local(json!({}), off));
    for _ in 0..4 {
        let (_, trace) = rig.run(JobSpec::script(["true"]), State::Success);
        assert!(!trace.contains(TAKEN), "{trace}");
    }
    assert!(rig.docker.ahead_of_jobs(&rig.manager).is_empty());
}

#[test]
fn it_is_switched_off_for_the_next_jobs() {
    let on = |runner: Runner| one_slot(runner).own("containers_ahead", true);
    let mut rig = needed!(ContainerJobs::local(json!({}), on));
    let spec = JobSpec::script(["true"]);
    rig.two_of_a_kind(&spec);
    let config = std::fs::read_to_string(rig.manager.config_path()).expect("the configuration");
    let off = config.replace("containers_ahead = true", "containers_ahead = false");
    assert_ne!(off, config);
    std::fs::write(rig.manager.config_path(), off).expect("written");
    rig.manager.wait_for_log("was read again and holds now", seconds(20));
    // One is being asked for already, and one takes what is there.
    for _ in 0..2 {
        rig.run(spec.clone(), State::Success);
    }
    let (_, trace) = rig.run(spec, State::Success);
    assert!(!trace.contains(TAKEN), "{trace}");
    rig.nothing_waits();
}

#[test]
fn a_killed_manager_or_agent_leaves_nothing_that_waits() {
    let mut rig = needed!(ContainerJobs::local(json!({}), one_slot));
    let spec = JobSpec::script(["true"]).variable("FF_NETWORK_PER_BUILD", "true");
    rig.two_of_a_kind(&spec);
    rig.manager.kill();
    rig.nothing_waits();

    rig.manager.restart();
    rig.two_of_a_kind(&spec);
    rig.kill_agents();
    let (_, trace) = rig.run(spec, State::Success);
    assert!(!trace.contains(TAKEN), "{trace}");
    rig.nothing_is_left(seconds(10));
    rig.wait_for_ahead();
    rig.manager.quit();
    rig.manager.wait_for_exit(seconds(30));
    rig.nothing_waits();
}
