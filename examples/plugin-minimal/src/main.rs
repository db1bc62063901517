//! A whole provider plugin: hands out machines that exist already, by SSH.
//!
//! ```toml
//! [runners.autoscaler]
//!   plugin = "fleeting-plugin-minimal"
//!   max_instances = 2
//! [runners.autoscaler.plugin_config]
//!   machines = ["10.0.0.5", "10.0.0.6:2222"]
//!   taken = "/var/lib/fleeting-plugin-minimal" # a directory
//! [runners.autoscaler.connector_config]
//!   username = "ci"
//!   key_path = "/etc/gitlab-runner/id_ed25519"
//! ```
//!
//! The `taken` directory stands for a cloud's API: it has one file for each machine that
//! is handed out. Like a cloud it outlives this process, which may end and be started
//! again at any time and must find everything as it was.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceState, InstanceStatus,
    Settings, build_info,
};

/// The `plugin_config` table.
#[derive(Debug, serde::Deserialize)]
struct Config {
    machines: Vec<String>,
    taken: PathBuf,
}

#[derive(Default)]
struct Minimal(OnceLock<(Config, Settings)>);

fn main() -> ExitCode {
    mayfly_plugin::serve(Minimal::default())
}

impl InstanceGroup for Minimal {
    type Config = Config;
    const BUILD: BuildInfo = build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        std::fs::create_dir_all(&config.taken)?;
        let max_size = u32::try_from(config.machines.len()).unwrap_or(u32::MAX);
        self.0.set((config, settings)).map_err(|_| "init came twice")?;
        Ok(GroupInfo::new("minimal", max_size))
    }

    // Always the whole list. A machine that takes time to boot would be `Creating` first.
    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        let taken = self.config()?.machines.iter().filter(|machine| self.is_taken(machine));
        Ok(taken.map(|machine| InstanceStatus::new(machine, InstanceState::Running)).collect())
    }

    // Fewer than asked for is an answer, not an error.
    async fn increase(&self, n: u32) -> Result<u32, Error> {
        let config = self.config()?;
        let free = config.machines.iter().filter(|machine| !self.is_taken(machine));
        let mut made = 0;
        for machine in free.take(n as usize) {
            std::fs::write(config.taken.join(machine), "")?;
            made += 1;
        }
        Ok(made)
    }

    // An instance that is gone already counts as deleted.
    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        for machine in instances.iter().filter(|machine| self.is_taken(machine)) {
            std::fs::remove_file(self.config()?.taken.join(machine))?;
        }
        Ok(instances)
    }

    // User and key are the operator's. A plugin that makes credentials puts them here,
    // into what the operator left open.
    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let (_, settings) = self.0.get().ok_or("init has not come yet")?;
        if !self.is_taken(&instance) {
            return Err(format!("there is no instance {instance}").into());
        }
        Ok(ConnectInfo::new(settings.connector.clone()).internal(instance))
    }
}

impl Minimal {
    fn config(&self) -> Result<&Config, Error> {
        self.0.get().map(|(config, _)| config).ok_or("init has not come yet".into())
    }

    fn is_taken(&self, machine: &str) -> bool {
        self.config().is_ok_and(|config| config.taken.join(machine).exists())
    }
}
