//! Runners whose instances are containers of the daemon that `tests/setup` started.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binaries::binaries;
use crate::gitlab::GitLab;
use crate::manager::{Manager, Runner, Setup};
use crate::static_build::static_binaries;

/// In the names of what is made ahead of jobs.
const AHEAD: &str = "-ahead-";

/// The containers of one test; they go with this value.
pub struct Docker {
    host: String,
    /// Where containers find this machine.
    gateway: IpAddr,
    group: String,
    /// The manager with a static agent beside it.
    programs: TempDir,
}

impl Docker {
    /// A group of containers, or what is missing for it.
    pub fn find() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        let directory = root.join("target/docker");
        let host = format!("unix://{}/docker.sock", directory.display());
        let answers = Command::new("docker").args(["-H", &host, "version"]).output();
        if !answers.is_ok_and(|output| output.status.success()) {
            return Err(format!("no Docker daemon at {host}: run tests/setup"));
        }
        let programs = tempfile::tempdir_in(static_binaries()).expect("a directory");
        for program in [binaries().mayfly(), static_binaries().join("mayfly-agent")] {
            let name = program.file_name().expect("a file");
            std::fs::hard_link(&program, programs.path().join(name))
                .or_else(|_| std::fs::copy(&program, programs.path().join(name)).map(drop))
                .expect("the program is there twice");
        }
        let bridge = std::fs::read_to_string(directory.join("number")).unwrap_or_default();
        let bridge = bridge.trim().parse().map_err(|_| "no network: run tests/setup")?;
        let gateway = IpAddr::from([10, 213, bridge, 1]);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { host, gateway, group: format!("m{}-{number}", std::process::id()), programs })
    }

    /// A GitLab that containers can reach.
    pub fn gitlab(&self) -> GitLab {
        GitLab::start_at(self.gateway)
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        Path::new(self.host.trim_start_matches("unix://"))
    }

    /// The number of the group whose members may use it.
    pub fn socket_group(&self) -> u32 {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(self.socket()).expect("the daemon's socket").gid()
    }

    /// Removes a name of an image, if it is there and not in use.
    pub fn forget(&self, image: &str) {
        let _ = Command::new("docker").args(["-H", &self.host, "rmi", image]).output();
    }

    /// Whether the daemon has an image.
    pub fn has(&self, image: &str) -> bool {
        !self.run(&["images", "-q", image]).is_empty()
    }

    /// The plugin, in a build that runs in every image.
    pub fn plugin(&self) -> PathBuf {
        static_binaries().join("fleeting-plugin-docker")
    }

    /// Its configuration for containers of an image.
    pub fn plugin_config(&self, image: &str) -> Value {
        json!({
            "host": self.host, "name": self.group, "image": image, "pull": "never", "max_size": 50,
        })
    }

    /// A runner whose instances are containers of an image.
    pub fn runner(&self, gitlab: &GitLab, image: &str) -> Runner {
        let config = self.plugin_config(image);
        let keys = config.as_object().cloned().unwrap_or_default();
        let runner = Runner::new(gitlab, self.plugin());
        keys.into_iter().fold(runner, |runner, (key, value)| runner.plugin_config(&key, value))
    }

    /// The same runner with its jobs in containers of this daemon, by default of an image.
    pub fn in_containers(&self, runner: Runner, image: &str, keys: Value) -> Runner {
        in_containers_of(&self.host, runner, image, keys)
    }

    /// What jobs of a manager's instances have here: containers and networks, by name.
    pub fn of_jobs(&self, manager: &Manager) -> Vec<String> {
        self.of_instances(manager).into_iter().filter(|name| !name.contains(AHEAD)).collect()
    }

    /// The same of what was made ahead of jobs.
    pub fn ahead_of_jobs(&self, manager: &Manager) -> Vec<String> {
        self.of_instances(manager).into_iter().filter(|name| name.contains(AHEAD)).collect()
    }

    fn of_instances(&self, manager: &Manager) -> Vec<String> {
        // Every instance of a manager that ever was is in its history.
        let history = manager.state_dir().join("history/current.jsonl");
        let history = std::fs::read_to_string(history).unwrap_or_default();
        let listed = |what: &[&str], name: &str| {
            let format = format!("{name}\t{{{{.Label \"mayfly.instance\"}}}}");
            self.run(&[what, &["--filter", "label=mayfly.slot", "--format", &format]].concat())
        };
        let all = [listed(&["ps", "-a"], "{{.Names}}"), listed(&["network", "ls"], "{{.Name}}")];
        let of_us = |line: &str| {
            let (name, instance) = line.split_once('\t')?;
            history.contains(instance).then(|| name.to_owned())
        };
        all.join("\n").lines().filter_map(of_us).collect()
    }

    /// A manager whose agent runs in every image.
    pub fn setup(&self) -> Setup {
        Manager::setup().program(self.mayfly())
    }

    fn mayfly(&self) -> PathBuf {
        self.programs.path().join("mayfly")
    }

    /// Names of the group's containers, whatever their state.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=mayfly.group={}", self.group);
        let format = "{{.Names}}";
        let names = self.run(&["ps", "-a", "--filter", &filter, "--format", format]);
        names.lines().map(str::to_owned).collect()
    }

    /// What a `docker` command prints, trimmed. Panics if it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        command(&self.host, arguments)
    }
}

/// A runner with its jobs in containers of a daemon; `keys` are of `[runners.docker]`.
pub(crate) fn in_containers_of(host: &str, runner: Runner, image: &str, keys: Value) -> Runner {
    let mut table = json!({ "host": host, "image": image, "pull_policy": "never" });
    for (key, value) in keys.as_object().into_iter().flatten() {
        table[key] = value.clone();
    }
    runner.set("executor", "docker-autoscaler").set("docker", table)
}

/// What a `docker` command prints, trimmed. Panics if it fails.
pub(crate) fn command(host: &str, arguments: &[&str]) -> String {
    let output = Command::new("docker").args(["-H", host]).args(arguments).output();
    let output = output.expect("there is a docker command");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Drop for Docker {
    fn drop(&mut self) {
        for name in self.containers() {
            let removal = ["-H", &self.host, "rm", "-f", "-v", &name];
            // A plugin may be at it.
            let _ = Command::new("docker").args(removal).output();
        }
    }
}
