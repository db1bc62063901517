//! Our plugins, each with a configuration for one instance at least.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Docker, binaries, processes, seconds, until};
use tempfile::TempDir;

use super::host::{Host, Seen};

/// How long it may take until all of a plugin and its instances are gone.
const GONE: Duration = seconds(60);

/// A plugin that is tried.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) config: Value,
    /// What it says of an instance that it does not know.
    pub(super) unknown: &'static str,
    /// Whether it can suspend, configured like this.
    pub(super) suspends: bool,
    /// Where it keeps what it keeps.
    kept: TempDir,
    docker: Option<Docker>,
}

/// Names of all that are tried, in the order of `docs/plugins/matrix.md`.
pub(super) const NAMES: [&str; 7] =
    ["docker", "local", "mayfly", "script", "sim", "minimal", "static-test"];

impl Case {
    /// The plugin of this name, or what is missing for it.
    pub(super) fn of(name: &'static str) -> Result<Self, String> {
        let kept = directory();
        let path = |name: &str| kept.path().join(name).display().to_string();
        let sim =
            |name: &str| json!({"state_dir": path(name), "instances": "none", "suspend": "0s"});
        let docker = if name == "docker" { Some(Docker::find()?) } else { None };
        let (config, unknown, suspends) = match name {
            "docker" => (
                docker.as_ref().map_or(Value::Null, |it| it.plugin_config("mayfly-test/busybox")),
                "instance no-such-instance does not exist",
                true,
            ),
            "local" => (
                json!({"root": path("instances"), "name": "go", "max_size": 3}),
                "instance no-such-instance does not exist",
                false,
            ),
            "mayfly" => {
                let plugin = binaries().plugin("sim");
                let provider = |name| json!({"name": name, "plugin": plugin, "config": sim(name)});
                (
                    json!({"providers": [provider("first"), provider("second")]}),
                    "instance no-such-instance does not exist: its id begins with no provider of \
                     this group",
                    true,
                )
            }
            "script" => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("go/provider.sh");
                std::fs::create_dir(kept.path().join("things")).expect("made");
                (
                    json!({"mode": "ops", "command": script, "env": {"THINGS": path("things")}}),
                    "connect: instance no-such-instance does not exist",
                    true,
                )
            }
            "sim" => (sim("group"), "instance no-such-instance is not running", true),
            "minimal" => (
                json!({"machines": ["192.0.2.1:2222"], "taken": path("taken")}),
                "there is no instance no-such-instance",
                false,
            ),
            "static-test" => {
                let machine = json!({"user": "ci", "addr": "192.0.2.1:2222", "password": "word"});
                (
                    json!({"instances": {"interop-machine": machine}}),
                    "there is no machine \"no-such-instance\"",
                    false,
                )
            }
            other => panic!("there is no case for {other}"),
        };
        Ok(Self { name, config, unknown, suspends, kept, docker })
    }

    pub(super) fn binary(&self) -> PathBuf {
        match &self.docker {
            Some(docker) => docker.plugin(),
            None => binaries().plugin(self.name),
        }
    }

    /// `None`, and told, where there is no Go.
    pub(super) fn drive(&self, host: Host, drive: &str) -> Option<Seen> {
        host.drive(drive, &self.binary(), &self.config, &self.marker())
    }

    /// Text that all processes of this case have.
    pub(super) fn marker(&self) -> String {
        self.kept.path().display().to_string()
    }

    /// Whether a path is where this case keeps things.
    pub(super) fn keeps(&self, path: &Path) -> bool {
        path.starts_with(self.kept.path())
    }

    /// A file of this case.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.kept.path().join(name)
    }

    /// No process of host, plugin or instances is left, no container, and no file of an
    /// instance.
    pub(super) fn assert_gone(&self, ids: &[&str]) {
        let marker = self.marker();
        // An id has its provider's name in front where there are several.
        let ids: Vec<&str> = ids.iter().map(|id| id.rsplit('/').next().unwrap_or(id)).collect();
        // Ids of simulations are as short as words of other processes.
        let texts = ids.iter().copied().filter(|_| self.name == "local");
        for text in texts.chain([marker.as_str()]) {
            let gone = processes::wait_until_gone(GONE, || processes::mentioning(text));
            assert_eq!(gone, Ok(()), "{}", self.name);
        }
        if let Some(docker) = &self.docker {
            until("all containers are gone", GONE, || docker.containers().is_empty());
        }
        let left = files(self.kept.path());
        let is_of_instance =
            |path: &PathBuf| ids.iter().any(|id| path.file_name().is_some_and(|name| name == *id));
        assert!(!left.iter().any(is_of_instance), "{}: {left:?}", self.name);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // Instances outlive plugin and host, but not a test that failed.
        processes::kill_mentioning(&self.marker());
    }
}

/// Users of instances must be able to look into it.
fn directory() -> TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new().permissions(mode).tempdir().expect("a directory")
}

fn files(below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let inner = if path.is_dir() { files(&path) } else { Vec::new() };
            std::iter::once(path).chain(inner)
        })
        .collect()
}
