//! Containers of the docker-autoscaler executor under bad conditions: other users, deaths,
//! stubborn scripts, odd images, private registries, and much of everything.

#[expect(dead_code, reason = "only the registry's test pushes such")]
#[path = "install/artifact.rs"]
mod artifact;
#[path = "containers_more/ends.rs"]
mod ends;
#[path = "containers_more/images.rs"]
mod images;
#[path = "containers_more/much.rs"]
mod much;
#[expect(dead_code, reason = "Docker pushes here by itself")]
#[path = "install/registry.rs"]
mod registry;
#[path = "containers_more/users.rs"]
mod users;

use serde_json::{Value, json};
use support::{Docker, GitLab, JobId, JobSpec, Manager, Runner, State, seconds, until};

const BUSYBOX: &str = "mayfly-test/busybox";
const DEBIAN: &str = "mayfly-test/debian";

/// The daemon of the tests, a server, and a manager whose instances use both.
struct Rig {
    docker: Docker,
    gitlab: GitLab,
    manager: Manager,
}

impl Rig {
    /// Instances of the local provider; or what is missing.
    fn local(docker_keys: Value, change: impl Fn(Runner) -> Runner) -> Result<Self, String> {
        let docker = Docker::find()?;
        let gitlab = docker.gitlab();
        let local = Runner::local(&gitlab).plugin_config("isolation", "none");
        Ok(Self::start(docker, gitlab, change(local), docker_keys))
    }

    fn start(docker: Docker, gitlab: GitLab, runner: Runner, docker_keys: Value) -> Self {
        let runner = docker.in_containers(runner, BUSYBOX, docker_keys);
        let manager = docker.setup().set("concurrent", 50).runner(runner).start();
        Self { docker, gitlab, manager }
    }

    fn run(&self, spec: JobSpec, state: State) -> (JobId, String) {
        let job = self.gitlab.enqueue(spec);
        self.gitlab.wait_for(job, state, seconds(60));
        (job, self.gitlab.trace(job))
    }

    /// Runs a job that fails, for this reason; its log.
    fn fails(&self, spec: JobSpec, reason: &str) -> String {
        let (job, trace) = self.run(spec, State::Failed);
        let found = self.gitlab.audit(job).failure_reason;
        assert_eq!(found.as_deref(), Some(reason), "{trace}");
        trace
    }

    /// All of the jobs that have ended is gone from the daemon.
    fn nothing_is_left(&self) {
        until("containers and networks of jobs are gone", seconds(20), || {
            self.docker.of_jobs(&self.manager).is_empty()
        });
    }
}

/// What a test needs, or it is skipped.
macro_rules! needed {
    ($found:expr) => {
        match $found {
            Ok(found) => found,
            Err(missing) => support::skip!("{missing}"),
        }
    };
}
use needed;

trait InContainers {
    fn key(self, key: &'static str, value: Value) -> Self;
    fn image(self, name: &str) -> Self;
}

impl InContainers for JobSpec {
    fn key(self, key: &'static str, value: Value) -> Self {
        self.payload(move |payload| payload[key] = value.clone())
    }

    fn image(self, name: &str) -> Self {
        self.key("image", json!({ "name": name }))
    }
}
