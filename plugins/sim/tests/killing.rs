//! Nothing is left of a plugin that was killed in the middle of a call.
//! `local/tests/support/killing.rs` says how, and what `MAYFLY_KILL_POINTS` is.

mod support;

use mayfly_plugin::host::{Plugin, StartError};
use serde_json::json;
use support::killing::{Killable, nothing_is_left_after_a_refusal, nothing_is_left_after_kills};
use support::*;

impl Killable for Rig {
    async fn begin(&self) -> Result<Plugin, StartError> {
        self.try_start().await
    }

    fn marker(&self) -> String {
        format!("RIG={}", self.directory.path().display())
    }

    fn binary(&self) -> &'static str {
        "fleeting-plugin-sim"
    }

    /// The books stay.
    async fn left(&self) -> Vec<String> {
        let machines = self.machines().into_iter().map(|pid| format!("process {pid}"));
        machines.chain(files(&self.state_dir().join("instances"))).collect()
    }
}

fn files(below: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| [vec![path.display().to_string()], files(&path)].concat()).collect()
}

#[tokio::test]
async fn instances_with_processes() {
    let times = json!({"boot": "20ms", "delete": "20ms", "suspend": "20ms"});
    nothing_is_left_after_kills(&Rig::new(times)).await;
}

#[tokio::test]
async fn bad_credentials_and_a_provider_that_is_down() {
    for reason in ["AuthFailure: bad credentials", "connection refused"] {
        let fault = json!({"call": "init", "kind": "error", "reason": reason});
        let rig = Rig::faulty(fault);
        nothing_is_left_after_a_refusal(&rig).await;
    }
}
