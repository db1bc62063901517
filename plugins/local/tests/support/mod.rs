//! A rig for one plugin in a directory of its own, under a host, and an SSH client.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

pub(crate) mod killing;
mod shared;
mod ssh;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{ConnectInfo, InstanceState, InstanceStatus, Settings};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) use ssh::{Client, drain};

pub(crate) use shared::{kill, processes_with, sleepers, unique_seconds, until};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A way to run instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Full,
    User,
    None,
}

pub(crate) const MODES: [Mode; 3] = [Mode::Full, Mode::User, Mode::None];

impl Mode {
    pub(crate) fn isolation(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::User => "user",
            Self::None => "none",
        }
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One directory for instances and the host's side of one plugin at a time.
pub(crate) struct Rig {
    pub(crate) mode: Mode,
    pub(crate) isolation: String,
    pub(crate) directory: TempDir,
    pub(crate) max_size: u32,
    pub(crate) extra: String,
    pub(crate) environment: Vec<(String, String)>,
}

impl Rig {
    /// A rig for `mode`; `None`, with the reason printed, where the kernel refuses it.
    pub(crate) async fn new(mode: Mode) -> Option<Self> {
        let rig = Self::unchecked(mode);
        match rig.start().await {
            Ok(_) => Some(rig),
            Err(error) if error.to_string().contains("is not possible here") => {
                println!("skipped {mode:?}: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn unchecked(mode: Mode) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("opened");
        for name in ["root", "home"] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).expect("made");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("set");
        }
        Self {
            mode,
            isolation: mode.isolation().into(),
            directory,
            max_size: 4,
            extra: String::new(),
            environment: Vec::new(),
        }
    }

    /// A test's own, or the usual one.
    fn guard(&self) -> PathBuf {
        let own = self.directory.path().join("guard");
        let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/guard");
        if own.exists() { own } else { usual() }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn instance_dir(&self, id: &str) -> PathBuf {
        self.root().join("local").join(id)
    }

    pub(crate) fn config(&self) -> String {
        format!(
            r#"{{"root": "{}", "isolation": "{}", "max_size": {}{}}}"#,
            self.root().display(),
            self.isolation,
            self.max_size,
            self.extra,
        )
    }

    pub(crate) async fn start(&self) -> Result<Plugin, StartError> {
        self.start_with(&Settings::default()).await
    }

    pub(crate) async fn start_with(&self, settings: &Settings) -> Result<Plugin, StartError> {
        let mut launch = Launch::new(env!("CARGO_BIN_EXE_fleeting-plugin-local"));
        launch.guard = self.guard();
        launch.environment.retain(|(name, _)| name != "HOME" && name != "XDG_STATE_HOME");
        launch.environment.push(("HOME".into(), self.home().into()));
        launch.environment.push(("TOP_SECRET".into(), "hunter2".into()));
        for (name, value) in &self.environment {
            launch.environment.push((name.into(), value.into()));
        }
        Plugin::start(&launch, self.config().as_bytes(), settings).await
    }

    /// Starts a plugin and one running instance.
    pub(crate) async fn one(&self) -> (Plugin, String) {
        let plugin = self.start().await.expect("started");
        let id = self.add(&plugin).await;
        (plugin, id)
    }

    /// Adds one instance and waits until it runs.
    pub(crate) async fn add(&self, plugin: &Plugin) -> String {
        let before = ids(&update(plugin).await);
        assert_eq!(plugin.increase(1, LIMIT).await.expect("increase"), 1);
        let id = ids(&update(plugin).await).into_iter().find(|id| !before.contains(id));
        let id = id.expect("a new instance is listed at once");
        self.await_running(plugin, &id).await;
        id
    }

    pub(crate) async fn await_running(&self, plugin: &Plugin, id: &str) {
        let log = self.instance_dir(id).join("log");
        let mut last = String::new();
        let state = until(async || {
            last = std::fs::read_to_string(&log).unwrap_or(last.clone());
            let state = state_of(plugin, id).await;
            (state != Some(InstanceState::Creating)).then_some(state)
        })
        .await;
        assert_eq!(state, Some(InstanceState::Running), "log: {last}");
    }
}

/// Instances outlive plugins, but not tests.
impl Drop for Rig {
    fn drop(&mut self) {
        let directory = self.directory.path().display().to_string();
        for pid in processes_with(&directory).into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

pub(crate) async fn update(plugin: &Plugin) -> Vec<InstanceStatus> {
    plugin.update(LIMIT).await.expect("update")
}

pub(crate) fn ids(listed: &[InstanceStatus]) -> Vec<String> {
    let gone = InstanceState::Deleted;
    listed.iter().filter(|one| one.state != gone).map(|one| one.id.clone()).collect()
}

pub(crate) async fn state_of(plugin: &Plugin, id: &str) -> Option<InstanceState> {
    update(plugin).await.into_iter().find(|one| one.id == id).map(|one| one.state)
}

/// Waits until an instance is reported deleted or not at all.
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

/// Runs this file's tests once more as an ordinary user.
pub(crate) fn again_as_nobody(except: &str) {
    if !is_root() {
        println!("skipped: the tests run as an ordinary user already");
        return;
    }
    let tests = std::env::current_exe().expect("known");
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let may_run = Command::new("setpriv").args(nobody).arg(&tests).arg("--list").output();
    if !may_run.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: an ordinary user cannot run {}: {may_run:?}", tests.display());
        return;
    }
    let status = Command::new("setpriv")
        .args(nobody)
        .arg(&tests)
        .args(["--skip", except, "--nocapture"])
        .env("HOME", "/nonexistent")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("TMPDIR")
        .status()
        .expect("runs");
    assert!(status.success(), "as an ordinary user: {status}");
}

/// Children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// The keeper of an instance.
pub(crate) fn keeper(rig: &Rig, id: &str) -> i32 {
    let text = std::fs::read_to_string(rig.instance_dir(id).join("keeper")).expect("keeper");
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    digits
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|pid| pid.parse().ok())
        .expect("pid")
}

/// The plugin process of a rig: the only one with its environment that holds no instance.
pub(crate) fn plugin_pid(rig: &Rig) -> i32 {
    let home = format!("HOME={}", rig.home().display());
    let name = "fleeting-plugin-local";
    let is_plugin = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.trim_end_matches('\0').ends_with(name))
    };
    processes_with(&home).into_iter().find(is_plugin).expect("the plugin runs")
}

pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
