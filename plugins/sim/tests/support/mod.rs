//! A rig for one plugin in a directory of its own, under a host.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

#[path = "../../../local/tests/support/killing.rs"]
pub(crate) mod killing;
#[path = "../../../local/tests/support/shared.rs"]
mod shared;
#[path = "../../../local/tests/support/ssh.rs"]
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{InstanceState, InstanceStatus, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use ssh::Client;

pub(crate) use shared::{kill, processes_with, sleepers, unique_seconds, until};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const RUNNING: InstanceState = InstanceState::Running;

/// One directory for a group, and the host's side of one plugin at a time.
pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    pub(crate) config: Value,
}

impl Rig {
    /// A group with this `plugin_config`, its directory aside.
    pub(crate) fn new(mut config: Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        config["state_dir"] = directory.path().join("group").display().to_string().into();
        Self { directory, config }
    }

    /// One whose instances are nothing.
    pub(crate) fn hollow(mut config: Value) -> Self {
        config["instances"] = "none".into();
        Self::new(config)
    }

    /// A hollow one with one fault.
    pub(crate) fn faulty(fault: Value) -> Self {
        Self::hollow(json!({"faults": [fault]}))
    }

    fn guard(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../local/tests/support/guard")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("group")
    }

    pub(crate) fn instance_dir(&self, id: &str) -> PathBuf {
        self.state_dir().join("instances").join(id)
    }

    pub(crate) async fn try_start(&self) -> Result<Plugin, StartError> {
        let mut launch = Launch::new(env!("CARGO_BIN_EXE_fleeting-plugin-sim"));
        launch.guard = self.guard();
        launch.environment.push(("RIG".into(), self.directory.path().into()));
        Plugin::start(&launch, self.config.to_string().as_bytes(), &Settings::default()).await
    }

    pub(crate) async fn start(&self) -> Plugin {
        self.try_start().await.expect("started")
    }

    /// Kills the plugin, as a machine that fails does, and waits until it is gone.
    pub(crate) async fn kill_plugin(&self, plugin: Plugin) {
        let marker = format!("RIG={}", self.directory.path().display());
        let is_plugin = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.trim_end_matches('\0').ends_with("fleeting-plugin-sim"))
        };
        let pid = processes_with(&marker).into_iter().find(is_plugin).expect("the plugin runs");
        kill(pid);
        plugin.ended().await;
    }

    /// What a command about the group prints.
    pub(crate) fn ask(&self, command: &str, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_fleeting-plugin-sim"))
            .arg(command)
            .arg(self.state_dir())
            .args(arguments)
            .output()
            .expect("it runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} {arguments:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn ledger(&self) -> Value {
        serde_json::from_str(&self.ask("ledger", &["--json"])).expect("an object")
    }

    /// Processes of instances.
    pub(crate) fn machines(&self) -> Vec<i32> {
        processes_with(&format!("MAYFLY_SIM_INSTANCE={}", self.state_dir().display()))
    }

    /// Nothing is left of the instances but the books.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.machines(), Vec::<i32>::new());
        let left = std::fs::read_dir(self.state_dir().join("instances")).expect("readable");
        assert_eq!(left.count(), 0);
    }
}

/// Instances outlive plugins, but not tests.
impl Drop for Rig {
    fn drop(&mut self) {
        self.machines().into_iter().for_each(|pid| {
            let _ = kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
        });
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

pub(crate) async fn running(plugin: &Plugin) -> Vec<String> {
    in_state(plugin, RUNNING).await
}

pub(crate) async fn state_of(plugin: &Plugin, id: &str) -> Option<InstanceState> {
    list(plugin).await.into_iter().find(|one| one.id == id).map(|one| one.state)
}

/// Creates so many and waits until all run; their ids.
pub(crate) async fn add(plugin: &Plugin, n: u32) -> Vec<String> {
    let before = running(plugin).await;
    assert_eq!(plugin.increase(n, LIMIT).await.expect("created"), n);
    until(async || {
        let mut now = running(plugin).await;
        now.retain(|id| !before.contains(id));
        (now.len() == n as usize).then_some(now)
    })
    .await
}

/// Deletes everything that is listed and waits until it is gone.
pub(crate) async fn delete_all(plugin: &Plugin) {
    let ids: Vec<String> = list(plugin).await.into_iter().map(|one| one.id).collect();
    plugin.decrease(ids, LIMIT).await.expect("deleted");
    until(async || {
        let left = list(plugin).await;
        left.iter().all(|one| one.state == InstanceState::Deleted).then_some(())
    })
    .await;
}

pub(crate) async fn login(plugin: &Plugin, id: &str) -> Client {
    let info = plugin.connect_info(id, LIMIT).await.expect("connect info");
    Client::dial(&info).await.expect("login")
}
