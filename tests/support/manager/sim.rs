//! Runners on the simulated cloud, and what its ledger says afterwards.

use std::process::Command;

use serde_json::{Value, json};

use super::{Manager, Runner};
use crate::binaries::binaries;
use crate::gitlab::GitLab;

/// The group's directory below the manager's.
const DIRECTORY: &str = "cloud";

impl Runner {
    /// A runner whose instances are those of a simulated cloud, with this `plugin_config`,
    /// its directory aside.
    pub fn sim(gitlab: &GitLab, config: Value) -> Self {
        let runner = Self::new(gitlab, binaries().plugin("sim")).keep("state_dir", DIRECTORY);
        let Value::Object(config) = config else { panic!("{config} is no table") };
        config.into_iter().fold(runner, |runner, (key, value)| runner.plugin_config(&key, value))
    }
}

impl Manager {
    /// The ledger of its simulated cloud; what is wrong by it is held against this limit.
    pub fn ledger(&self, max_instances: u32) -> Value {
        let max_instances = max_instances.to_string();
        let text = self.ask_cloud("ledger", &["--json", "--max-instances", &max_instances]);
        serde_json::from_str(&text).expect("the ledger is an object")
    }

    /// What exists in its simulated cloud: id, state and more of each.
    pub fn cloud(&self) -> Vec<Value> {
        let text = self.ask_cloud("list", &["--json"]);
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    }

    /// Ends instances of its simulated cloud from outside.
    pub fn kill_in_cloud(&self, instances: &str) {
        self.ask_cloud("kill", &[instances]);
    }

    /// Panics if there ever were more instances than this.
    pub fn assert_never_more_than(&self, max_instances: u32) {
        let ledger = self.ledger(max_instances);
        assert_eq!(ledger["over_max_instances"], json!(0), "{ledger}\n{}", self.log());
    }

    fn ask_cloud(&self, command: &str, arguments: &[&str]) -> String {
        let output = Command::new(binaries().plugin("sim"))
            .arg(command)
            .arg(self.directory().join(DIRECTORY))
            .args(arguments)
            .output()
            .expect("the plugin's binary runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {complaint}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
