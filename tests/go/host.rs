//! The host on GitLab's library, and what it says that it saw.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::program::Program;

/// The host on GitLab's library at one time: `go/host/main.go` says how it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    program: Program,
    /// Date and commit of the library.
    pub(super) library: &'static str,
    /// Whether it knows Heartbeat, Suspend and Resume.
    pub(super) knows_health: bool,
}

/// All calls, go-plugin 1.8.
pub(super) const OF_2026: Host = Host {
    program: Program { folder: "", package: "./host", name: "host", flags: &[] },
    library: "2026-06-30 (`ef4ba33`)",
    knows_health: true,
};

/// No Heartbeat, Suspend, Resume; go-plugin 1.6.
pub(super) const OF_2025: Host = Host {
    program: Program {
        folder: "",
        package: "./host",
        name: "host-2025-03-31",
        flags: &["-modfile=fleeting-2025-03-31.mod", "-tags=fleeting_2025_03_31"],
    },
    library: "2025-03-31 (`30f1dda`)",
    knows_health: false,
};

/// The newest first.
pub(super) const ALL: [Host; 2] = [OF_2026, OF_2025];

/// What the host saw, step by step.
#[derive(Debug)]
pub(super) struct Seen {
    steps: Vec<Value>,
}

impl Host {
    /// Runs it; `go/host/main.go` says what the drives are. The marker is in the environment
    /// of host and plugin. `None`, and told, where there is no Go. Panics with the host's
    /// words when a step went wrong.
    pub(super) fn drive(
        self,
        drive: &str,
        plugin: &Path,
        config: &Value,
        marker: &str,
    ) -> Option<Seen> {
        let host = self.program.build()?;
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
