//! The host on GitLab's library, and what it says that it saw.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::program::HOST;

/// What the host saw, step by step.
#[derive(Debug)]
pub(super) struct Seen {
    steps: Vec<Value>,
}

/// Runs the host; `go/host/main.go` says what the drives are. The marker is in the
/// environment of host and plugin. `None`, and told, where there is no Go. Panics with the
/// host's words when a step went wrong.
pub(super) fn drive(drive: &str, plugin: &Path, config: &Value, marker: &str) -> Option<Seen> {
    let host = HOST.build()?;
    let mut command = Command::new(host);
    command.arg(drive).arg(plugin).arg(config.to_string()).env("MAYFLY_PLUGIN_TEST", marker);
    let output = command.output().expect("the host can be run");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stderr}{stdout}", output.status);
    assert!(!stderr.contains("failed to exit gracefully"), "{command:?}: {stderr}");
    let parse = |line: &str| serde_json::from_str(line).expect("a line of JSON");
    Some(Seen { steps: stdout.lines().map(parse).collect() })
}

impl Seen {
    /// All that it said of these steps.
    pub(super) fn all(&self, step: &str) -> Vec<&Value> {
        self.steps.iter().filter(|said| said["step"] == step).collect()
    }

    /// What it said of the one step of this name.
    pub(super) fn one(&self, step: &str) -> &Value {
        match self.all(step)[..] {
            [said] => said,
            _ => panic!("{step} is not there once: {:#?}", self.steps),
        }
    }
}
