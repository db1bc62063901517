//! `mayfly run` under a test's thumb: configured, started, signalled, restarted with the
//! same state, and at the end gone with everything that it started.

mod runner;
mod setup;
mod sim;
mod toml;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

pub use runner::Runner;
pub use setup::Setup;

use crate::processes::{self, Process};
use crate::wait::{look_until, seconds};
use setup::Home;

/// A guard ends a plugin within milliseconds; a busy machine may take longer.
const GUARD_LIMIT: Duration = Duration::from_secs(10);
/// Lines of the log that a failed test shows.
const SHOWN_LINES: usize = 80;

/// A manager that was started, and may have ended.
#[derive(Debug)]
pub struct Manager {
    setup: Setup,
    home: Home,
    child: Child,
    status: Option<ExitStatus>,
    starts: u32,
}

/// A manager that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed, on stdout and stderr.
    pub log: String,
}

impl Manager {
    /// An empty setup: add runners, then start.
    pub fn setup() -> Setup {
        Setup::default()
    }

    /// Starts a manager with one runner.
    pub fn start(runner: Runner) -> Self {
        Self::setup().runner(runner).start()
    }

    fn launch(setup: Setup) -> Self {
        let home = setup.write();
        let child = spawn(&setup, &home, 1);
        Self { setup, home, child, status: None, starts: 1 }
    }

    /// Starts it again, with the same configuration and state. Ends it first, if it runs,
    /// with SIGKILL.
    pub fn restart(&mut self) {
        if self.is_running() {
            self.kill();
        }
        self.starts += 1;
        self.child = spawn(&self.setup, &self.home, self.starts);
        self.status = None;
    }

    /// Writes another configuration into the same place; a restart reads it.
    pub fn reconfigure(&self, setup: &Setup) {
        let other = setup.write();
        let text = std::fs::read_to_string(&other.config).expect("the new configuration");
        let from = other.directory.path().display().to_string();
        let here = self.home.directory.path().display().to_string();
        std::fs::write(&self.home.config, text.replace(&from, &here)).expect("it is written");
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its directory: `config.toml`, `state`, `run`, and what plugins keep.
    pub fn directory(&self) -> &Path {
        self.home.directory.path()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> &Path {
        &self.home.config
    }

    /// Its state.
    pub fn state_dir(&self) -> &Path {
        &self.home.state
    }

    /// Its directory stays after the test, for people to look at.
    pub fn keep_files(&mut self) -> PathBuf {
        self.home.directory.disable_cleanup(true);
        self.directory().to_owned()
    }

    // Its end.

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid()) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGTERM: leaves running jobs to their agents.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGQUIT: runs jobs to their end.
    pub fn quit(&self) {
        self.signal(Signal::QUIT);
    }

    /// SIGINT: stops jobs.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_exit(GUARD_LIMIT);
    }

    /// Waits for its end. Panics with the log when the time is over.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> Ended {
        let status = look_until(timeout, || self.exit_status());
        let status = status.unwrap_or_else(|| {
            panic!("mayfly did not end within {timeout:?}:\n{}", self.log());
        });
        Ended { code: status.code(), log: self.log() }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("mayfly is a child of this test");
        }
        self.status
    }

    // What it says and starts.

    /// What it printed since its last start.
    pub fn log(&self) -> String {
        std::fs::read(log_path(&self.home, self.starts))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until its log contains a text; the log.
    pub fn wait_for_log(&mut self, text: &str, timeout: Duration) -> String {
        let found = look_until(timeout, || {
            let log = self.log();
            (log.contains(text) || !self.is_running()).then_some(log)
        });
        let log = found.unwrap_or_else(|| self.log());
        assert!(log.contains(text), "waited for {text:?} in the log:\n{log}");
        log
    }

    /// Waits until it says that it is up.
    pub fn wait_until_up(&mut self) {
        self.wait_for_log("mayfly is up", seconds(60));
    }

    /// The processes of its plugins and their guards. Instances are not among them.
    pub fn plugin_processes(&self) -> Vec<Process> {
        let own = self.pid();
        let mut found = processes::mentioning(&self.home.marker);
        found.retain(|process| process.pid != own);
        found
    }

    /// The plugins themselves, without guards.
    pub fn plugins(&self) -> Vec<Process> {
        let all = self.plugin_processes();
        let is_guard =
            |process: &Process| process.args.get(1).is_some_and(|arg| arg == "plugin-guard");
        let guards: Vec<i32> = all.iter().filter(|p| is_guard(p)).map(|p| p.pid).collect();
        let is_plugin = |process: &Process| {
            guards.contains(&process.parent)
                && process.args.get(1).is_none_or(|arg| arg != "plugin-exec")
        };
        all.into_iter().filter(is_plugin).collect()
    }

    /// The instances of the local provider that exist now.
    pub fn instances(&self) -> usize {
        let is_instance =
            |process: &&Process| process.args.get(1).is_some_and(|role| role == "instance");
        let directory = self.home.directory.path().display().to_string();
        processes::mentioning(&directory).iter().filter(is_instance).count()
    }

    /// Ready instances without a job, as `mayfly instance list` tells.
    pub fn free_slots(&self) -> usize {
        let output = std::process::Command::new(crate::binaries().mayfly())
            .args(["instance", "list", "--json", "--state-dir"])
            .arg(self.state_dir())
            .output()
            .expect("mayfly can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        let instances = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let is_free = |instance: &serde_json::Value| {
            instance["phase"] == "ready" && instance["used"].as_array().is_some_and(Vec::is_empty)
        };
        instances.filter(is_free).count()
    }

    /// The directories of plugins' sockets.
    pub fn socket_directories(&self) -> Vec<PathBuf> {
        let common = format!("mayfly-{}-", self.pid());
        let of_this = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            path.starts_with(&self.home.run) || name.starts_with(&common)
        };
        let entries = [self.home.run.as_path(), Path::new("/tmp")].map(std::fs::read_dir);
        entries
            .into_iter()
            .flatten()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .filter(of_this)
            .collect()
    }

    /// Waits until no plugin, no guard and no socket directory of it is left.
    pub fn assert_nothing_left(&self) {
        if let Err(left) = self.wait_until_nothing_left() {
            panic!("mayfly left behind:\n{left}\n{}", self.log());
        }
    }

    fn wait_until_nothing_left(&self) -> Result<(), String> {
        processes::wait_until_gone(GUARD_LIMIT, || self.plugin_processes()).map_err(|left| {
            left.iter().map(|process| format!("{process}\n")).collect::<String>()
        })?;
        let is_gone = || self.socket_directories().is_empty().then_some(());
        look_until(GUARD_LIMIT, is_gone).ok_or_else(|| format!("{:?}", self.socket_directories()))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Reaped: a zombie would keep its id.
        let _ = self.child.wait();
        let failed = std::thread::panicking();
        let check = self.setup.leave_nothing && !failed;
        let left = if check { self.wait_until_nothing_left() } else { Ok(()) };
        // Instances of the local provider outlive manager and plugin, but not the test. The
        // directory is also part of the marker.
        processes::kill_mentioning(&self.home.directory.path().display().to_string());
        if failed {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            eprintln!("--- the end of mayfly's log\n{shown}\n---");
        }
        if let Err(left) = left {
            panic!("mayfly left behind:\n{left}\n{}", self.log());
        }
    }
}

fn log_path(home: &Home, start: u32) -> PathBuf {
    home.directory.path().join(format!("log-{start}"))
}

fn spawn(setup: &Setup, home: &Home, start: u32) -> Child {
    let log = File::create(log_path(home, start)).expect("a file for the log");
    let both = log.try_clone().expect("the file twice");
    setup
        .command(home)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(both))
        .spawn()
        .expect("mayfly starts")
}
