//! A manager that is about to be started: its configuration, environment and arguments.

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Ended, Manager, Runner, toml};
use crate::binaries::binaries;
use crate::wait::seconds;

/// Everything of a manager before its start.
#[derive(Clone, Debug)]
pub struct Setup {
    globals: Map<String, Value>,
    runners: Vec<Runner>,
    config_text: Option<String>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) arguments: Vec<String>,
    pub(super) leave_nothing: bool,
    program: Option<PathBuf>,
}

/// The files of one manager; they go with this value.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) directory: TempDir,
    pub(super) config: PathBuf,
    pub(super) state: PathBuf,
    /// Where the manager makes the directories of plugins' sockets.
    pub(super) run: PathBuf,
    /// Is in the environment of everything that the manager starts.
    pub(super) marker: String,
}

impl Default for Setup {
    fn default() -> Self {
        let globals = json!({"concurrent": 10, "check_interval": 1, "shutdown_timeout": 20});
        Self {
            globals: globals.as_object().cloned().unwrap_or_default(),
            runners: Vec::new(),
            config_text: None,
            environment: Vec::new(),
            arguments: Vec::new(),
            leave_nothing: true,
            program: None,
        }
    }
}

impl Setup {
    /// One more `[[runners]]` entry.
    #[must_use]
    pub fn runner(mut self, runner: Runner) -> Self {
        self.runners.push(runner);
        self
    }

    /// A key of the configuration's head, such as `concurrent`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.globals.insert(key.into(), value.into());
        self
    }

    /// The configuration as a text, instead of entries and keys. `{dir}` is replaced by
    /// the manager's own directory.
    #[must_use]
    pub fn config_text(mut self, text: &str) -> Self {
        self.config_text = Some(text.into());
        self
    }

    /// A variable of the manager's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// One more argument of `mayfly run`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// error, warn, info, debug or trace.
    #[must_use]
    pub fn log_level(self, level: &str) -> Self {
        self.env("MAYFLY_LOG", level)
    }

    /// Plugins may be left behind: the test does not end with a check for them.
    #[must_use]
    pub fn tolerate_leftovers(mut self) -> Self {
        self.leave_nothing = false;
        self
    }

    /// Another `mayfly`: one with another agent beside it.
    #[must_use]
    pub fn program(mut self, mayfly: PathBuf) -> Self {
        self.program = Some(mayfly);
        self
    }

    /// Starts the manager.
    pub fn start(self) -> Manager {
        Manager::launch(self)
    }

    /// Starts a manager that ends by itself, and waits for that.
    pub fn run_to_end(self) -> Ended {
        // A plugin's start takes a minute at most.
        const PATIENCE_SECONDS: u64 = 90;
        let mut manager = self.start();
        manager.wait_for_exit(seconds(PATIENCE_SECONDS))
    }

    /// Makes the manager's directory. Other users may look into it, as the users of
    /// instances must, but not at the configuration and the state.
    pub(super) fn write(&self) -> Home {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new()
            .prefix("mayfly-test-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a directory for the manager");
        let at = |name: &str| directory.path().join(name);
        for name in ["state", "run", "home"] {
            std::fs::DirBuilder::new().mode(0o700).create(at(name)).expect("a directory");
        }
        let text = match &self.config_text {
            Some(text) => text.replace("{dir}", &directory.path().display().to_string()),
            None => {
                let entries = self.runners.iter().map(|runner| runner.render(directory.path()));
                toml::lines(&self.globals) + &entries.collect::<String>()
            }
        };
        std::fs::write(at("config.toml"), text).expect("the configuration is written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(at("config.toml"), private).expect("its mode is set");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Home {
            config: at("config.toml"),
            state: at("state"),
            run: at("run"),
            marker: format!("{}-{number}-{}", std::process::id(), directory.path().display()),
            directory,
        }
    }

    /// `mayfly run`, not started yet.
    pub(super) fn command(&self, home: &Home) -> std::process::Command {
        let mayfly = self.program.clone().unwrap_or_else(|| binaries().mayfly());
        let mut command = std::process::Command::new(mayfly);
        let is_ours = |name: &str| name.starts_with("MAYFLY_") || name.starts_with("CONFIG_");
        for (name, _) in std::env::vars() {
            if is_ours(&name) {
                command.env_remove(name);
            }
        }
        command
            .arg("run")
            .args(&self.arguments)
            .arg("--config")
            .arg(&home.config)
            .arg("--state-dir")
            .arg(&home.state)
            .env("HOME", home.directory.path().join("home"))
            .env("XDG_RUNTIME_DIR", &home.run)
            // Variables of this family are handed on to plugins.
            .env("MAYFLY_PLUGIN_TEST", &home.marker)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
