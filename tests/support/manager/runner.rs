//! One `[[runners]]` entry of a test's configuration.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::toml;
use crate::binaries::binaries;
use crate::gitlab::GitLab;
use crate::sshd::Sshd;

/// One `[[runners]]` entry, fast enough for tests unless a method says otherwise.
#[derive(Clone, Debug)]
pub struct Runner {
    entry: Map<String, Value>,
    own: Map<String, Value>,
    autoscaler: Map<String, Value>,
    plugin_config: Map<String, Value>,
    connector: Map<String, Value>,
    policies: Vec<Value>,
    /// A key of `plugin_config` whose value is this path below the manager's directory.
    kept: Option<(&'static str, &'static str)>,
}

impl Runner {
    /// A runner of this server whose instances come from any plugin: a name or a path.
    pub fn new(gitlab: &GitLab, plugin: impl AsRef<Path>) -> Self {
        let entry = json!({
            "name": "test", "url": gitlab.url(), "id": 1, "token": gitlab.token(),
            "executor": "instance", "request_concurrency": 2,
        });
        let autoscaler = json!({
            "plugin": plugin.as_ref().display().to_string(),
            "capacity_per_instance": 1, "max_instances": 2,
            "update_interval": "1s", "update_interval_when_expecting": "100ms",
        });
        Self {
            entry: table(entry),
            own: Map::new(),
            autoscaler: table(autoscaler),
            plugin_config: Map::new(),
            connector: Map::new(),
            policies: Vec::new(),
            kept: None,
        }
    }

    /// A runner whose instances are process trees on this machine.
    pub fn local(gitlab: &GitLab) -> Self {
        Self::new(gitlab, binaries().plugin("local")).keep("root", "instances")
    }

    /// A runner whose instances are the machines of an OpenSSH server.
    pub fn openssh(gitlab: &GitLab, sshd: &Sshd) -> Self {
        Self::new(gitlab, binaries().plugin("static-test"))
            .keep("state_file", "handed-out.json")
            .plugin_config("instances", sshd.instances())
    }

    /// This key of `plugin_config` is this path below the manager's directory.
    #[must_use]
    pub(super) fn keep(mut self, key: &'static str, path: &'static str) -> Self {
        self.kept = Some((key, path));
        self
    }

    /// A key of `[[runners]]`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.entry.insert(key.into(), value.into());
        self
    }

    /// A key of `[runners.mayfly]`.
    #[must_use]
    pub fn own(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.own.insert(key.into(), value.into());
        self
    }

    /// A key of `[runners.autoscaler]`.
    #[must_use]
    pub fn autoscaler(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.autoscaler.insert(key.into(), value.into());
        self
    }

    /// A key of `[runners.autoscaler.plugin_config]`.
    #[must_use]
    pub fn plugin_config(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.plugin_config.insert(key.into(), value.into());
        self
    }

    /// A key of `[runners.autoscaler.connector_config]`.
    #[must_use]
    pub fn connector(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.connector.insert(key.into(), value.into());
        self
    }

    /// One more `[[runners.autoscaler.policy]]`.
    #[must_use]
    pub fn policy(mut self, policy: Value) -> Self {
        self.policies.push(policy);
        self
    }

    /// Its name in log and metrics.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.set("name", name)
    }

    /// Its authentication token, and an id that goes with it.
    #[must_use]
    pub fn token(self, token: &str, id: u64) -> Self {
        self.set("token", token).set("id", id)
    }

    /// The most instances.
    #[must_use]
    pub fn max_instances(self, n: u32) -> Self {
        self.autoscaler("max_instances", n)
    }

    /// Jobs at a time on one instance.
    #[must_use]
    pub fn capacity(self, n: u32) -> Self {
        self.autoscaler("capacity_per_instance", n)
    }

    /// Jobs after which an instance is replaced.
    #[must_use]
    pub fn max_use_count(self, n: u32) -> Self {
        self.autoscaler("max_use_count", n)
    }

    /// So many idle slots, always.
    #[must_use]
    pub fn idle_count(self, n: u32) -> Self {
        self.policy(json!({"periods": ["* * * * *"], "idle_count": n, "idle_time": "20m0s"}))
    }

    /// Instances stay so long without a job, and none is kept ready.
    #[must_use]
    pub fn idle_time(self, time: Duration) -> Self {
        let millis = format!("{}ms", time.as_millis());
        self.policy(json!({"periods": ["* * * * *"], "idle_count": 0, "idle_time": millis}))
    }

    /// The entry's lines.
    pub(super) fn render(&self, dir: &Path) -> String {
        let mut autoscaler = self.autoscaler.clone();
        let mut plugin_config = self.plugin_config.clone();
        if let Some((key, file)) = self.kept {
            let path = dir.join(file).display().to_string();
            plugin_config.entry(key).or_insert(path.into());
        }
        autoscaler.insert("plugin_config".into(), plugin_config.into());
        if !self.connector.is_empty() {
            autoscaler.insert("connector_config".into(), self.connector.clone().into());
        }
        if !self.policies.is_empty() {
            autoscaler.insert("policy".into(), self.policies.clone().into());
        }
        let mut text = format!("\n[[runners]]\n{}", toml::lines(&self.entry));
        if !self.own.is_empty() {
            text.push_str(&format!("[runners.mayfly]\n{}", toml::lines(&self.own)));
        }
        text + &format!("[runners.autoscaler]\n{}", toml::lines(&autoscaler))
    }
}

fn table(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(table) => table,
        other => panic!("{other} is no table"),
    }
}
