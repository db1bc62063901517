//! A rig for one plugin with real plugins underneath, in a directory of its own.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

#[path = "../../../local/tests/support/killing.rs"]
pub(crate) mod killing;
#[path = "../../../local/tests/support/logs.rs"]
mod logs;
#[path = "../../../local/tests/support/shared.rs"]
mod shared;
#[path = "../../../local/tests/support/ssh.rs"]
mod ssh;

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{InstanceState, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use logs::{await_log, logs};
pub(crate) use ssh::Client;

pub(crate) use shared::{kill, processes_with, until};

pub(crate) const LOG_LEVEL: tracing::Level = tracing::Level::DEBUG;
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// One directory for everything, and the host's side of one plugin at a time.
pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    pub(crate) config: Value,
}

impl Rig {
    /// A group of these providers, with more of `plugin_config`.
    pub(crate) fn new(providers: &[(&str, &str, Value)], more: Value) -> Self {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let directory = tempfile::Builder::new().permissions(mode).tempdir().expect("a directory");
        let mut config = more;
        let entry = |(name, plugin, extra): &(&str, &str, Value)| {
            let kept = directory.path().join(name).display().to_string();
            let usual = match *plugin {
                "sim" => json!({"state_dir": kept, "instances": "none"}),
                _ => json!({"root": kept, "name": name, "isolation": "none"}),
            };
            let mut config = usual;
            let mut entry = extra.clone();
            let own = entry["config"].as_object().cloned().unwrap_or_default();
            config.as_object_mut().expect("a table").extend(own);
            let binary = beside(&format!("fleeting-plugin-{plugin}")).display().to_string();
            let env = json!({"MAYFLY_PLUGIN_PROVIDER": name});
            for (key, value) in
                [("name", json!(name)), ("plugin", json!(binary)), ("config", config), ("env", env)]
            {
                entry[key] = value;
            }
            entry
        };
        config["providers"] = providers.iter().map(entry).collect();
        Self { directory, config }
    }

    /// Two simulated clouds, `first` and `second`.
    pub(crate) fn two(first: Value, second: Value, more: Value) -> Self {
        Self::new(&[("first", "sim", first), ("second", "sim", second)], more)
    }

    /// Gives a provider, by its place, a binary of its own, which is not there yet.
    pub(crate) fn without_binary(&mut self, place: usize) -> PathBuf {
        let plugin = &mut self.config["providers"][place]["plugin"];
        let name = plugin.as_str().and_then(|path| path.rsplit('/').next()).expect("a path");
        let own = self.directory.path().join(format!("bin-{place}")).join(name);
        std::fs::create_dir(own.parent().expect("a directory")).expect("made");
        *plugin = own.display().to_string().into();
        own
    }

    /// Keeps the books in a file; its path.
    pub(crate) fn with_state_file(&mut self) -> PathBuf {
        let file = self.directory.path().join("kept/books.json");
        self.config["state_file"] = file.display().to_string().into();
        file
    }

    /// Text in the environment of the plugin and of all that it starts.
    pub(crate) fn marker(&self) -> String {
        format!("MAYFLY_PLUGIN_RIG={}", self.directory.path().display())
    }

    pub(crate) async fn try_start(&self) -> Result<Plugin, StartError> {
        let mut launch = Launch::new(env!("CARGO_BIN_EXE_fleeting-plugin-mayfly"));
        launch.guard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../local/tests/support/guard");
        launch.environment.push(("MAYFLY_PLUGIN_RIG".into(), self.directory.path().into()));
        Plugin::start(&launch, self.config.to_string().as_bytes(), &Settings::default()).await
    }

    pub(crate) async fn start(&self) -> Plugin {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Why it does not start.
    pub(crate) async fn refusal(&self) -> String {
        match self.try_start().await {
            Ok(_) => panic!("started with {}", self.config),
            Err(error) => error.to_string(),
        }
    }

    /// All that runs for this rig: plugins, guards, instances.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_with(&self.directory.path().display().to_string())
    }

    /// The process of the plugin itself, or of that of a provider.
    pub(crate) fn process(&self, provider: Option<&str>) -> Option<i32> {
        let is_alone = |pid: &i32| {
            // A guard has arguments.
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.trim_end_matches('\0').split('\0').count() == 1
                && line.contains("/fleeting-plugin-")
        };
        let marked: Vec<i32> =
            processes_with(&self.marker()).into_iter().filter(is_alone).collect();
        let variable = "MAYFLY_PLUGIN_PROVIDER=";
        let children = processes_with(&match provider {
            Some(name) => format!("{variable}{name}\0"),
            None => variable.into(),
        });
        marked.into_iter().find(|pid| children.contains(pid) == provider.is_some())
    }

    /// Kills the plugin, as a machine that fails does, and waits until it is gone.
    pub(crate) async fn kill_plugin(&self, plugin: Plugin) {
        kill(self.process(None).expect("the plugin runs"));
        plugin.ended().await;
    }

    /// Stops the process of a provider, or lets it go on.
    pub(crate) fn signal(&self, provider: &str, signal: Signal) {
        let pid = self.process(Some(provider)).expect("it runs");
        kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("told");
    }

    /// Waits until nothing runs for this rig.
    pub(crate) async fn await_nothing(&self) {
        until(async || self.processes().is_empty().then_some(())).await;
    }
}

/// Nothing outlives a test.
impl Drop for Rig {
    fn drop(&mut self) {
        for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Another binary of this build.
fn beside(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_fleeting-plugin-mayfly"));
    let own = built.parent().map(PathBuf::from);
    let directory = std::env::var_os("MAYFLY_BIN_DIR").map(PathBuf::from).or(own);
    let path = directory.expect("a directory").join(name);
    assert!(path.is_file(), "there is no {}: run cargo build -p {name}", path.display());
    path
}

/// Puts the real binary of that name where it was missing or broken.
pub(crate) fn install(binary: &Path) {
    let real = beside(binary.file_name().and_then(|name| name.to_str()).expect("a name"));
    put(binary, |new| std::os::unix::fs::symlink(&real, new));
}

/// Puts a program there that ends at once.
pub(crate) fn break_binary(binary: &Path) {
    put(binary, |new| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(new, "#!/bin/sh\nexit 3\n")?;
        std::fs::set_permissions(new, std::fs::Permissions::from_mode(0o755))
    });
}

fn put(binary: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) {
    let new = binary.with_extension("new");
    make(&new).and_then(|()| std::fs::rename(&new, binary)).expect("put there");
}

/// Runs a command of the simulated cloud.
pub(crate) fn sim(arguments: &[&str]) {
    let done = std::process::Command::new(beside("fleeting-plugin-sim")).args(arguments).output();
    let done = done.expect("it runs");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Waits until a line of the log has all of these texts.
pub(crate) async fn await_log_line(parts: &[&str]) {
    until(async || {
        let logs = logs().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        logs.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    })
    .await;
}

/// Ids that are listed and not gone, in order.
pub(crate) async fn ids(plugin: &Plugin) -> Vec<String> {
    let listed = plugin.update(LIMIT).await.expect("a list");
    let there = listed.into_iter().filter(|one| one.state != InstanceState::Deleted);
    let mut ids: Vec<String> = there.map(|one| one.id).collect();
    ids.sort();
    ids
}

/// Waits until all instances, so many, run; their ids.
pub(crate) async fn await_running(plugin: &Plugin, n: usize) -> Vec<String> {
    until(async || {
        let listed = plugin.update(LIMIT).await.expect("a list");
        let running = listed.iter().filter(|one| one.state == InstanceState::Running);
        (running.count() == n).then_some(())
    })
    .await;
    ids(plugin).await
}

/// How many of these ids are of a provider.
pub(crate) fn of(provider: &str, ids: &[String]) -> usize {
    ids.iter().filter(|id| id.starts_with(&format!("{provider}/"))).count()
}
