//! `fleeting-plugin-static-test`: hands out machines from a fixed list, for tests over
//! OpenSSH and benchmarks.
//!
//! Who has which machine is kept in a file, since machines outlive this process. A
//! machine that was handed out runs at once; a deleted one goes back to the list as it
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceState, InstanceStatus,
    Settings, build_info,
};
use serde::Deserialize;

/// `plugin_config`.
#[derive(Default, Deserialize)]
struct Config {
    /// Machines by the id that they get as instances; handed out in this order.
    instances: BTreeMap<String, Login>,
    /// Where it is kept which of them are handed out; without it, only in memory.
    state_file: Option<PathBuf>,
}

#[derive(Clone, Default, Deserialize)]
struct Login {
    user: String,
    /// `host:port`.
    addr: String,
    /// File of a private key.
    key_path: Option<PathBuf>,
    #[serde(default)]
    password: String,
}

#[derive(Default)]
struct Static(Mutex<Group>);

#[derive(Default)]
struct Group {
    config: Config,
    settings: Settings,
    handed_out: BTreeSet<String>,
    /// Given back since the last list. A host that sees the same id again before it saw it
    /// gone takes it for the one that it deleted.
    given_back: BTreeSet<String>,
}

fn main() -> ExitCode {
    mayfly_plugin::serve(Static::default())
}

impl InstanceGroup for Static {
    type Config = Config;
    const BUILD: BuildInfo = build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let max_size = u32::try_from(config.instances.len()).unwrap_or(u32::MAX);
        if max_size == 0 {
            return Err("instances: is empty, list at least one machine".into());
        }
        let mut handed_out: BTreeSet<String> = match &config.state_file {
            Some(file) if file.exists() => {
                serde_json::from_slice(&std::fs::read(file)?).map_err(|e| e.to_string())?
            }
            _ => BTreeSet::new(),
        };
        handed_out.retain(|id| config.instances.contains_key(id));
        *self.group() = Group { config, settings, handed_out, ..Group::default() };
        Ok(GroupInfo::new("static-test", max_size))
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        let running = |id: &String| InstanceStatus::new(id, InstanceState::Running);
        let mut group = self.group();
        group.given_back.clear();
        Ok(group.handed_out.iter().map(running).collect())
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        let mut group = self.group();
        let is_free = |id: &&String| !group.handed_out.contains(*id);
        let free = group.config.instances.keys().filter(is_free);
        // Those that were given back just now come last.
        let mut free: Vec<String> = free.cloned().collect();
        free.sort_by_key(|id| group.given_back.contains(id));
        let next: Vec<String> = free.into_iter().take(n as usize).collect();
        if next.is_empty() {
            return Err("all machines are handed out".into());
        }
        let count = next.len();
        group.handed_out.extend(next);
        group.keep()?;
        Ok(u32::try_from(count).unwrap_or(n))
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let mut group = self.group();
        group.handed_out.retain(|id| !instances.contains(id));
        group.given_back.extend(instances.iter().cloned());
        group.keep()?;
        Ok(instances)
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let group = self.group();
        let login = group.config.instances.get(&instance);
        let login = login.ok_or_else(|| format!("there is no machine {instance:?}"))?;
        let mut connector = group.settings.connector.clone();
        if connector.username.is_empty() {
            connector.username.clone_from(&login.user);
        }
        if connector.key.is_empty() && connector.password.is_empty() {
            connector.password.clone_from(&login.password);
            if let Some(path) = &login.key_path {
                connector.key = std::fs::read(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            }
        }
        Ok(ConnectInfo::new(connector).internal(&login.addr).external(&login.addr))
    }
}

impl Static {
    fn group(&self) -> MutexGuard<'_, Group> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    fn keep(&self) -> Result<(), Error> {
        let Some(file) = &self.config.state_file else {
            return Ok(());
        };
        // Whole or not at all: this process may be killed at any time.
        let new = file.with_extension("new");
        let text = serde_json::to_vec(&self.handed_out).map_err(|error| error.to_string())?;
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, file)?)
    }
}
