//! Container jobs on an instance whose Docker has little room: what is in the way is named,
//! what nobody needs is removed, and no job runs where it cannot.

use serde_json::json;
use support::{
    BUSYBOX, GitLab, JobSpec, Manager, OwnDocker, Runner, SmallDisk, State, seconds, skip, until,
};

/// A daemon on a small disk, and what uses it. Dropped in this order.
struct Rig {
    manager: Manager,
    gitlab: GitLab,
    docker: OwnDocker,
    disk: SmallDisk,
}

impl Rig {
    fn new() -> Result<Self, String> {
        let disk = SmallDisk::make(500)?;
        let docker = OwnDocker::start(&disk.path())?;
        let gitlab = GitLab::start();
        let local = Runner::local(&gitlab)
            .plugin_config("isolation", "none")
            .autoscaler("instance_acquire_timeout", "5s");
        let runner = docker.in_containers(local, BUSYBOX, json!({}));
        let manager = Manager::setup().runner(runner).start();
        Ok(Self { manager, gitlab, docker, disk })
    }

    fn run(&self, script: &str, state: State) -> (String, Option<String>) {
        let job = self.gitlab.enqueue(JobSpec::script([script]));
        let audit = self.gitlab.wait_for(job, state, seconds(60));
        (self.gitlab.trace(job), audit.failure_reason)
    }
}

#[test]
fn a_disk_that_is_full_is_told_and_cleaned_and_avoided() {
    let rig = match Rig::new() {
        Ok(rig) => rig,
        Err(missing) => skip!("{missing}"),
    };
    rig.run("true", State::Success);

    // A script that fills the disk fails for want of space, not by its own fault.
    let (trace, reason) = rig.run("dd if=/dev/zero of=/fill bs=1M", State::Failed);
    assert_eq!(reason.as_deref(), Some("runner_system_failure"), "{trace}");
    assert!(trace.contains("the instance has no space left"), "{trace}");

    // Its container is gone, and the next job has room again.
    rig.run("true", State::Success);

    // Images that no job used go first.
    let import = "dd if=/dev/urandom of=/big bs=1M count=140 2>/dev/null";
    for name in ["one", "two"] {
        rig.docker.run(&["run", "--name", name, BUSYBOX, "sh", "-c", import]);
        rig.docker.run(&["commit", name, &format!("unused/{name}")]);
        rig.docker.run(&["rm", name]);
    }
    let fill = rig.disk.fill(140);
    let images = || rig.docker.run(&["images", "--format", "{{.Repository}}"]);
    rig.run("true", State::Success);
    until("an unused image went", seconds(20), || images().matches("unused/").count() < 2);
    assert!(images().contains(BUSYBOX), "{}", images());
    std::fs::remove_file(fill).expect("it was there");

    // Where nothing helps, jobs go elsewhere; here there is no other place.
    for image in images().lines().filter(|name| name.starts_with("unused/")) {
        rig.docker.run(&["rmi", image]);
    }
    let fill = rig.disk.fill(440);
    let (trace, reason) = rig.run("true", State::Failed);
    assert_eq!(reason.as_deref(), Some("runner_system_failure"), "{trace}");
    let log = rig.manager.log();
    assert!(log.contains("the instance is short of space"), "{log}");
    std::fs::remove_file(fill).expect("it was there");
    rig.run("true", State::Success);
}
