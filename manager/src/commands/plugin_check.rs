//! `mayfly plugin check`: drives a plugin through every call of the protocol, as the
//! manager would, and says what it answers.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mayfly_plugin::host::{Launch, Plugin};
use mayfly_plugin::{InstanceState, Settings};
use serde_json::json;

use super::{Exit, block_on};
use crate::cli::LogFlags;
use crate::{plugin, telemetry};

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(60);
/// How long a created instance may take to run, and a deleted one to go.
const CHANGE: Duration = Duration::from_secs(600);

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Name or path of the plugin
    plugin: String,
    /// Its plugin_config, a JSON file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also create an instance, and delete it again
    #[arg(long)]
    create: bool,
    /// Print JSON, one object per call
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags, log: &LogFlags) -> Exit {
    telemetry::init(log, Some("warn"), false);
    let binary = match plugin::find(&flags.plugin, plugin::beside().as_deref()) {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Plugin;
        }
    };
    let config = match &flags.config {
        None => b"{}".to_vec(),
        Some(path) => match std::fs::read(path) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("error: cannot read {}: {error}", path.display());
                return Exit::Config;
            }
        },
    };
    match block_on(Check { flags, good: true }.run(Launch::new(binary), &config)) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            Exit::State
        }
    }
}

struct Check<'a> {
    flags: &'a Flags,
    good: bool,
}

impl Check<'_> {
    async fn run(mut self, launch: Launch, config: &[u8]) -> Exit {
        let plugin = match Plugin::start(&launch, config, &Settings::default()).await {
            Ok(plugin) => plugin,
            Err(error) => {
                eprintln!("error: {error}");
                return Exit::Plugin;
            }
        };
        let info = plugin.info();
        self.say(
            "Init",
            Ok(json!({
                "id": info.id, "max_size": info.max_size, "version": info.version,
                "build_info": info.build_info, "suspend_resume": info.suspend_resume,
            })),
        );
        self.list(&plugin).await;
        if self.flags.create {
            self.one_instance(&plugin).await;
        }
        plugin.stop(CALL).await;
        self.say("Shutdown", Ok(json!({})));
        if self.good { Exit::Success } else { Exit::Failed }
    }

    async fn list(&mut self, plugin: &Plugin) -> Vec<(String, InstanceState)> {
        let list = plugin.update(CALL).await;
        let instances: Vec<_> = list
            .as_ref()
            .map(|list| list.iter().map(|i| (i.id.clone(), i.state)).collect())
            .unwrap_or_default();
        let shown: Vec<_> = instances
            .iter()
            .map(|(id, state)| json!({"id": id, "state": format!("{state:?}")}))
            .collect();
        self.say("Update", list.map(|_| json!(shown)).map_err(|error| error.to_string()));
        instances
    }

    async fn one_instance(&mut self, plugin: &Plugin) {
        let before = self.list(plugin).await;
        let accepted = plugin.increase(1, CALL).await;
        self.say("Increase", accepted.as_ref().map(|n| json!(n)).map_err(ToString::to_string));
        if accepted.unwrap_or(0) == 0 {
            return;
        }
        let is_new = |id: &str| before.iter().all(|(known, _)| known != id);
        let deadline = tokio::time::Instant::now() + CHANGE;
        let id = loop {
            let listed = plugin.update(CALL).await.unwrap_or_default();
            let new = listed.iter().find(|i| is_new(&i.id) && i.state == InstanceState::Running);
            if let Some(instance) = new {
                break instance.id.clone();
            }
            if tokio::time::Instant::now() >= deadline {
                return self.say("Update", Err("the new instance did not come up".into()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.list(plugin).await;
        let info = plugin.connect_info(&id, CALL).await;
        self.say("ConnectInfo", info.map(|info| json!({
            "instance": id, "internal": info.internal_addr, "external": info.external_addr,
            "user": info.connector.username, "os": info.connector.os, "arch": info.connector.arch,
            "key": !info.connector.key.is_empty(), "password": !info.connector.password.is_empty(),
        })).map_err(|error| error.to_string()));
        let healthy = plugin.heartbeat(&id, CALL).await;
        self.say(
            "Heartbeat",
            healthy.map(|()| json!({"healthy": true})).map_err(|e| e.to_string()),
        );
        if plugin.info().suspend_resume {
            let suspended = plugin.suspend(vec![id.clone()], CALL).await;
            self.say("Suspend", suspended.map(|p| json!(p.succeeded)).map_err(|e| e.to_string()));
            let resumed = plugin.resume(vec![id.clone()], CALL).await;
            self.say("Resume", resumed.map(|p| json!(p.succeeded)).map_err(|e| e.to_string()));
        }
        let deleted = plugin.decrease(vec![id.clone()], CALL).await;
        self.say("Decrease", deleted.map(|ids| json!(ids)).map_err(|error| error.to_string()));
        while plugin
            .update(CALL)
            .await
            .is_ok_and(|list| list.iter().any(|i| i.id == id && i.state != InstanceState::Deleted))
        {
            if tokio::time::Instant::now() >= deadline {
                return self.say("Update", Err("the deleted instance did not go".into()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.list(plugin).await;
    }

    fn say(&mut self, call: &str, answer: Result<serde_json::Value, String>) {
        self.good &= answer.is_ok();
        if self.flags.json {
            let line = match answer {
                Ok(answer) => json!({"call": call, "ok": true, "answer": answer}),
                Err(error) => json!({"call": call, "ok": false, "error": error}),
            };
            println!("{line}");
            return;
        }
        match answer {
            Ok(answer) => println!("ok      {call:12} {answer}"),
            Err(error) => println!("FAILED  {call:12} {error}"),
        }
    }
}
