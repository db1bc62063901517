//! A manager whose jobs run in containers of the daemon of the tests, and a server with them.

use std::time::Duration;

use serde_json::Value;

use crate::docker::Docker;
use crate::gitlab::{GitLab, JobId, JobSpec, State};
use crate::manager::{Manager, Runner};
use crate::processes::{Process, mentioning};
use crate::wait::{seconds, until};

/// The image of jobs that name none.
pub const BUSYBOX: &str = "mayfly-test/busybox";
/// One with git and a real shell; it may be missing.
pub const DEBIAN: &str = "mayfly-test/debian";

/// The daemon of the tests, a server, and a manager whose instances use both.
pub struct ContainerJobs {
    /// The daemon.
    pub docker: Docker,
    /// The server.
    pub gitlab: GitLab,
    /// The manager.
    pub manager: Manager,
}

impl ContainerJobs {
    /// Instances of the local provider; or what is missing. `docker_keys` are of
    /// `[runners.docker]`.
    pub fn local(docker_keys: Value, change: impl Fn(Runner) -> Runner) -> Result<Self, String> {
        let docker = Docker::find()?;
        let gitlab = docker.gitlab();
        // Containers isolate; and the daemon sees the files of such instances where they are.
        let local = Runner::local(&gitlab).plugin_config("isolation", "none");
        Ok(Self::start(docker, gitlab, change(local), docker_keys))
    }

    /// Instances of any runner.
    pub fn start(docker: Docker, gitlab: GitLab, runner: Runner, docker_keys: Value) -> Self {
        let runner = docker.in_containers(runner, BUSYBOX, docker_keys);
        let manager = docker.setup().set("concurrent", 50).runner(runner).start();
        Self { docker, gitlab, manager }
    }

    /// Runs a job to this state; its log.
    pub fn run(&self, spec: JobSpec, state: State) -> (JobId, String) {
        let job = self.gitlab.enqueue(spec);
        self.gitlab.wait_for(job, state, seconds(60));
        (job, self.gitlab.trace(job))
    }

    /// Runs a job that fails, for this reason; its log.
    pub fn fails(&self, spec: JobSpec, reason: &str) -> String {
        let (job, trace) = self.run(spec, State::Failed);
        let found = self.gitlab.audit(job).failure_reason;
        assert_eq!(found.as_deref(), Some(reason), "{trace}");
        trace
    }

    /// Kills the agents of the manager's instances, and their children that drive containers.
    pub fn kill_agents(&self) {
        let directory = self.manager.directory().display().to_string();
        let is_agent = |process: &Process| {
            process.args.iter().any(|arg| arg == "job" || arg == "containers")
                && process.exe.to_string_lossy().contains("agent")
        };
        let agents: Vec<_> = mentioning(&directory).into_iter().filter(is_agent).collect();
        assert!(agents.len() >= 2, "{agents:?}");
        agents.iter().for_each(Process::kill);
    }

    /// All of the jobs that have ended is gone from the daemon by then.
    pub fn nothing_is_left(&self, limit: Duration) {
        until("containers and networks of jobs are gone", limit, || {
            self.docker.of_jobs(&self.manager).is_empty()
        });
    }
}
