//! A user's home with nothing of this machine's in it, and `mayfly` run there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::binaries;
use tempfile::TempDir;

pub(crate) struct Home {
    directory: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The object that it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), variables: Vec::new() }
    }

    /// A variable of all commands.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.push((name, value.into()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The install directory.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.path("plugins")
    }

    /// A configuration whose runners use these plugins.
    pub(crate) fn configure(&self, plugins: &[&str]) {
        let mut text = "concurrent = 1\n".to_owned();
        for (plugin, n) in plugins.iter().zip(1..) {
            text.push_str(&format!(
                "[[runners]]\nname = \"r{n}\"\nurl = \"https://gitlab.example.com\"\nid = {n}\ntoken = \"glrt-0123456789abcdef{n}\"\nexecutor = \"instance\"\n[runners.autoscaler]\nplugin = \"{plugin}\"\nmax_instances = 1\n"
            ));
        }
        let file = self.path("config.toml");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries().mayfly());
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("FLEETING_PLUGIN_PATH", self.plugins())
            .env("CONFIG_FILE", self.path("config.toml"))
            .env("MAYFLY_STATE_DIR", self.path("state"))
            .envs(self.variables.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("mayfly can be run")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, "")
    }

    /// Runs it with this on its stdin.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Ended {
        use std::io::Write as _;
        let mut child = self.spawn(arguments);
        // One that does not read it may have ended.
        let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs what must succeed.
    pub(crate) fn good(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended
    }

    /// What a command says that fails.
    pub(crate) fn bad(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        ended.stderr
    }

    /// Nothing of a plugin is there, whole or in part.
    pub(crate) fn assert_nothing_installed(&self) {
        let left: Vec<PathBuf> = files(&self.plugins())
            .into_iter()
            .filter(|path| !path.ends_with(".mayfly-installing") && !path.ends_with("mayfly.lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}
