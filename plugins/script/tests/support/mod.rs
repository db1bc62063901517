//! A rig for one plugin whose provider is a script that a test writes, under a host.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

#[path = "../../../local/tests/support/killing.rs"]
pub(crate) mod killing;
pub(crate) mod schema;
#[path = "../../../local/tests/support/shared.rs"]
mod shared;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_plugin::host::{Launch, Plugin, StartError};
use mayfly_plugin::{InstanceState, InstanceStatus, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use shared::{kill, processes_with, sleepers, unique_seconds, until};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const RUNNING: InstanceState = InstanceState::Running;

/// Keeps what it was asked, then does what the test wrote for the operation; what the test
/// did not write is not offered. A count script has four arguments.
const SCRIPT: &str = r#"#!/bin/sh
directory=${0%/*}
operation=$1
[ $# -eq 1 ] || operation=scale
request=$(cat)
kept=$directory/asked/$operation.$$
printf '%s\n' "$request" >"$kept.json"
printf '%s\n' "$@" >"$kept.arguments"
[ -f "$directory/on/$operation" ] || exit 64
. "$directory/on/$operation"
"#;

/// One directory for a provider, and the host's side of one plugin at a time.
pub(crate) struct Rig {
    directory: TempDir,
    pub(crate) config: Value,
    pub(crate) settings: Settings,
    environment: Vec<(String, String)>,
}

impl Rig {
    /// A group of the mode `ops`, with more of `plugin_config`.
    pub(crate) fn ops(more: Value) -> Self {
        Self::new(&["command"], json!({"mode": "ops"}), more)
    }

    /// A group of the mode `count`, with more of `plugin_config`.
    pub(crate) fn count(more: Value) -> Self {
        Self::new(&["scale", "list"], json!({"mode": "count"}), more)
    }

    fn new(scripts: &[&str], mut config: Value, more: Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["asked", "on"] {
            fs::create_dir(directory.path().join(name)).expect("made");
        }
        write_program(&directory.path().join("provider.sh"), SCRIPT);
        // The least that a host's guard must do: run the plugin, tell how it ended.
        let guard = "#!/bin/sh\n\"$3\" </dev/null 2>>\"${0%/*}/log\"\necho \"exit $?\" >&0\n";
        write_program(&directory.path().join("guard"), guard);
        let table = config.as_object_mut().expect("a table");
        table.insert("directory".into(), directory.path().display().to_string().into());
        if scripts.contains(&"scale") {
            let state = directory.path().join("state/told.json").display().to_string();
            table.insert("state_file".into(), state.into());
        }
        table.extend(scripts.iter().map(|key| ((*key).to_owned(), "provider.sh".into())));
        table.extend(more.as_object().expect("a table").clone());
        Self { directory, config, settings: Settings::default(), environment: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the script does for an operation, in the language of the shell.
    pub(crate) fn on(&self, operation: &str, lines: &str) -> &Self {
        let unfinished = self.path(&format!("on/.{operation}"));
        fs::write(&unfinished, lines).expect("written");
        fs::rename(unfinished, self.path(&format!("on/{operation}"))).expect("renamed");
        self
    }

    /// The script lists these, all of them running, with an address and credentials.
    pub(crate) fn lists(&self, ids: &[&str]) -> &Self {
        let entry = |id: &&str| {
            json!({"id": id, "state": "running", "address": "10.0.0.1", "user": "ci",
                "password": "listed-secret"})
        };
        let list = json!({"instances": ids.iter().map(entry).collect::<Vec<_>>()});
        self.on("list", &format!("echo '{list}'"))
    }

    /// A variable of the plugin's own environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) async fn try_start(&self) -> Result<Plugin, StartError> {
        let mut launch = Launch::new(env!("CARGO_BIN_EXE_fleeting-plugin-script"));
        launch.guard = self.path("guard");
        let marker = self.directory.path().display().to_string();
        launch.environment.push(("MAYFLY_PLUGIN_RIG".into(), marker.into()));
        for (name, value) in &self.environment {
            launch.environment.push((name.into(), value.into()));
        }
        Plugin::start(&launch, self.config.to_string().as_bytes(), &self.settings).await
    }

    pub(crate) async fn start(&self) -> Plugin {
        self.try_start().await.expect("started")
    }

    /// Why it does not start.
    pub(crate) async fn refusal(&self) -> String {
        match self.try_start().await {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    }

    /// What the script was asked, by operation, in no order.
    pub(crate) fn asked(&self, operation: &str) -> Vec<Value> {
        self.kept(operation, "json").iter().map(|text| parse(text)).collect()
    }

    /// The arguments of calls of an operation, one per line.
    pub(crate) fn arguments(&self, operation: &str) -> Vec<String> {
        self.kept(operation, "arguments")
    }

    fn kept(&self, operation: &str, kind: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("asked")).expect("readable").flatten();
        let is_wanted = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("{operation}.")) && name.ends_with(&format!(".{kind}"))
        };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_wanted).collect();
        paths.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).expect("a time"));
        paths.iter().map(|path| fs::read_to_string(path).expect("readable")).collect()
    }

    /// Forgets what was asked so far.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.path("asked")).expect("removed");
        fs::create_dir(self.path("asked")).expect("made");
    }

    /// The plugin's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Kills the plugin, as a machine that fails does, and waits until it is gone.
    pub(crate) async fn kill_plugin(&self, plugin: Plugin) {
        let is_plugin = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.trim_end_matches('\0').ends_with("fleeting-plugin-script"))
        };
        let pid = self.processes().into_iter().find(is_plugin).expect("the plugin runs");
        kill(pid);
        plugin.ended().await;
    }

    /// Everything that the plugin started, and itself.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_with(&format!("MAYFLY_PLUGIN_RIG={}", self.directory.path().display()))
    }
}

/// Nothing outlives a test.
impl Drop for Rig {
    fn drop(&mut self) {
        self.processes().into_iter().for_each(|pid| {
            let _ = kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
        });
    }
}

/// Writes a program by renaming it: nobody executes it while it is open.
pub(crate) fn write_program(path: &Path, text: &str) {
    // Written by another process: what this one has open for writing, a process that another
    // test's thread begins just now would hold for a moment, and the program would be busy.
    let mut shell = std::process::Command::new("sh")
        .args(["-ec", "cat >\"$1.new\"; chmod 755 \"$1.new\"; mv \"$1.new\" \"$1\"", "sh"])
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = shell.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("written");
    drop(input);
    assert!(shell.wait().expect("ended").success());
}

pub(crate) fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(crate) async fn list(plugin: &Plugin) -> Vec<InstanceStatus> {
    plugin.update(LIMIT).await.expect("a list")
}

/// Says what is missing for this test, and fails where the environment has `CI`.
pub(crate) fn skipped(missing: &str) {
    use std::io::Write as _;
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {missing}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing}");
}
