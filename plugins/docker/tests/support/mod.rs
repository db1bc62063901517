//! A rig for one plugin and its group on a real Docker daemon, and an SSH client.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

#[path = "../../../local/tests/support/killing.rs"]
pub(crate) mod killing;
#[path = "../../../local/tests/support/logs.rs"]
mod logs;
#[path = "../../../local/tests/support/shared.rs"]
mod shared;
#[path = "../../../local/tests/support/ssh.rs"]
mod ssh;
#[expect(unreachable_pub, reason = "a library has it, too")]
#[path = "../../../../tests/support/static_build.rs"]
mod static_build;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{ConnectInfo, InstanceState, InstanceStatus, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use logs::{await_log, logs};
pub(crate) use ssh::{Client, drain};

pub(crate) use shared::{kill, processes_with, until};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const LOG_LEVEL: tracing::Level = tracing::Level::DEBUG;
pub(crate) const BUSYBOX: &str = "mayfly-test/busybox";
pub(crate) const DEBIAN: &str = "mayfly-test/debian";

/// One daemon for tests.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    pub(crate) directory: PathBuf,
}

impl Docker {
    /// The one that `tests/setup` started; `None`, with the reason printed, where there is
    /// none. With `CI` set, that is a failure.
    pub(crate) fn shared() -> Option<Self> {
        let docker = Self { directory: root().join("target/docker") };
        if docker.answers() {
            return Some(docker);
        }
        let missing = format!("no Docker daemon at {}: run tests/setup", docker.host());
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: {missing}");
        println!("skipped: {missing}");
        None
    }

    pub(crate) fn script(&self, command: &str) {
        let status =
            Command::new(root().join("tests/dockerd")).arg(command).arg(&self.directory).status();
        assert!(status.expect("the script runs").success(), "tests/dockerd {command}");
    }

    /// Where it listens with TLS.
    pub(crate) fn tls_host(&self) -> String {
        let number = std::fs::read_to_string(self.directory.join("number")).expect("started");
        let number: u16 = number.trim().parse().expect("a number");
        format!("tcp://127.0.0.1:{}", 23760 + number)
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.directory.display())
    }

    fn answers(&self) -> bool {
        let output = Command::new("docker").args(["-H", &self.host(), "version"]).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// What a `docker` command prints, trimmed. Panics if it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker").args(["-H", &self.host()]).args(arguments).output();
        let output = output.expect("there is a docker command");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A daemon of a test's own, which may be stopped; it goes with this value.
pub(crate) struct OwnDocker {
    pub(crate) docker: Docker,
    _directory: TempDir,
}

impl OwnDocker {
    /// Starts one with this configuration; `None` where there cannot be one.
    pub(crate) fn start(configuration: &Value) -> Option<Self> {
        Docker::shared()?;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("daemon.json");
        std::fs::write(file, configuration.to_string()).expect("written");
        let docker = Docker { directory: directory.path().to_owned() };
        let own = Self { docker, _directory: directory };
        own.docker.script("start");
        Some(own)
    }
}

impl Drop for OwnDocker {
    fn drop(&mut self) {
        let script = root().join("tests/dockerd");
        // Not `script`, which panics.
        let _ = Command::new(script).arg("remove").arg(&self.docker.directory).status();
    }
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::canonicalize(root).expect("the repository")
}

/// One group on a daemon, and the host's side of one plugin at a time.
pub(crate) struct Rig {
    pub(crate) docker: Docker,
    pub(crate) config: Value,
    pub(crate) settings: Settings,
    pub(crate) binary: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    directory: TempDir,
}

impl Rig {
    /// A group of busybox containers; `None` where there is no daemon.
    pub(crate) fn new(extra: Value) -> Option<Self> {
        Docker::shared().map(|docker| Self::on(docker, extra))
    }

    pub(crate) fn on(docker: Docker, extra: Value) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut config = json!({
            "name": format!("t{}-{number}", std::process::id()),
            "host": docker.host(), "image": BUSYBOX, "pull": "never",
        });
        for (key, value) in extra.as_object().expect("a table") {
            config[key] = value.clone();
        }
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            docker,
            config,
            settings: Settings::default(),
            binary: static_build::static_binaries().join("fleeting-plugin-docker"),
            environment: Vec::new(),
            directory,
        }
    }

    fn guard(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../local/tests/support/guard")
    }

    pub(crate) fn name(&self) -> &str {
        self.config["name"].as_str().expect("a name")
    }

    pub(crate) async fn try_start(&self) -> Result<Plugin, StartError> {
        let mut launch = Launch::new(&self.binary);
        launch.guard = self.guard();
        launch.environment.retain(|(name, _)| !name.to_string_lossy().starts_with("DOCKER_"));
        launch.environment.push(("RIG".into(), self.directory.path().into()));
        for (name, value) in &self.environment {
            launch.environment.push((name.into(), value.into()));
        }
        Plugin::start(&launch, self.config.to_string().as_bytes(), &self.settings).await
    }

    pub(crate) async fn start(&self) -> Plugin {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Why the plugin does not start.
    pub(crate) async fn refusal(&self) -> String {
        match self.try_start().await {
            Ok(_) => panic!("started with {}", self.config),
            Err(error) => error.to_string(),
        }
    }

    /// Kills the plugin, as a machine that fails does, and waits until it is gone.
    pub(crate) async fn kill_plugin(&self, plugin: Plugin) {
        let marker = self.marker();
        let is_plugin = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.trim_end_matches('\0').ends_with("fleeting-plugin-docker"))
        };
        let pid = processes_with(&marker).into_iter().find(is_plugin).expect("the plugin runs");
        kill(pid);
        plugin.ended().await;
    }

    /// Text in the environment of the plugin.
    pub(crate) fn marker(&self) -> String {
        format!("RIG={}", self.directory.path().display())
    }

    /// How many of them run.
    pub(crate) fn started(&self) -> usize {
        let filter = format!("label=mayfly.group={}", self.name());
        self.docker.run(&["ps", "-q", "--filter", &filter]).lines().count()
    }

    /// Names of the group's containers, whatever their state.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=mayfly.group={}", self.name());
        let format = "{{.Names}}";
        let listed = self.docker.run(&["ps", "-a", "--filter", &filter, "--format", format]);
        listed.lines().map(str::to_owned).collect()
    }
}

/// Containers outlive plugins, but not tests.
impl Drop for Rig {
    fn drop(&mut self) {
        if !self.docker.answers() {
            return;
        }
        for name in self.containers() {
            let arguments = ["-H", &self.docker.host(), "rm", "-f", "-v", &name];
            // The plugin may be at it.
            let _ = Command::new("docker").args(arguments).output();
        }
    }
}

pub(crate) async fn list(plugin: &Plugin) -> Vec<InstanceStatus> {
    plugin.update(LIMIT).await.expect("a list")
}

/// Ids in this state.
pub(crate) async fn in_state(plugin: &Plugin, state: InstanceState) -> Vec<String> {
    let listed = list(plugin).await;
    listed.into_iter().filter(|one| one.state == state).map(|one| one.id).collect()
}

pub(crate) async fn state_of(plugin: &Plugin, id: &str) -> Option<InstanceState> {
    list(plugin).await.into_iter().find(|one| one.id == id).map(|one| one.state)
}

/// Makes so many and waits until all run; their ids.
pub(crate) async fn add(plugin: &Plugin, n: u32) -> Vec<String> {
    let before = in_state(plugin, InstanceState::Running).await;
    assert_eq!(plugin.increase(n, LIMIT).await.expect("accepted"), n);
    until(async || {
        let mut running = in_state(plugin, InstanceState::Running).await;
        running.retain(|id| !before.contains(id));
        (running.len() == n as usize).then_some(running)
    })
    .await
}

pub(crate) async fn add_one(plugin: &Plugin) -> String {
    add(plugin, 1).await.remove(0)
}

/// Waits until no list shows an instance.
pub(crate) async fn await_gone(plugin: &Plugin, id: &str) {
    until(async || {
        let state = state_of(plugin, id).await;
        matches!(state, None | Some(InstanceState::Deleted)).then_some(())
    })
    .await;
}

pub(crate) async fn info(plugin: &Plugin, id: &str) -> ConnectInfo {
    plugin.connect_info(id, LIMIT).await.expect("connect info")
}

pub(crate) async fn login(plugin: &Plugin, id: &str) -> Client {
    Client::dial(&info(plugin, id).await).await.expect("login")
}
