//! Nothing is left of a plugin that was killed in the middle of a call, of the plugins
//! underneath and of their instances. `local/tests/support/killing.rs` says how, and what
//! `MAYFLY_KILL_POINTS` is.

mod support;

use mayfly_plugin::host::{Plugin, StartError};
use serde_json::json;
use support::killing::{Killable, nothing_is_left_after_kills};
use support::*;

impl Killable for Rig {
    async fn begin(&self) -> Result<Plugin, StartError> {
        self.try_start().await
    }

    fn marker(&self) -> String {
        self.marker()
    }

    fn binary(&self) -> &'static str {
        "fleeting-plugin-mayfly"
    }

    async fn left(&self) -> Vec<String> {
        let of = |provider| {
            let instances = self.directory.path().join(provider).join("instances");
            std::fs::read_dir(instances).into_iter().flatten().flatten()
        };
        let entries = of("first").chain(of("second"));
        entries.map(|entry| entry.path().display().to_string()).collect()
    }
}

#[tokio::test]
async fn providers_and_their_instances() {
    let times = json!({"boot": "20ms", "delete": "20ms", "suspend": "20ms"});
    let first = json!({"max_instances": 1, "config": times.clone()});
    let second = json!({"config": times});
    let mut rig = Rig::two(first, second, json!({"max_instance_hours_per_day": 100}));
    let file = rig.directory.path().join("kept/spent.json");
    rig.config["state_file"] = file.display().to_string().into();
    nothing_is_left_after_kills(&rig).await;
    let text = std::fs::read_to_string(file).expect("written");
    assert!(text.ends_with('}') && text.contains("spent_ms"), "{text}");
}
