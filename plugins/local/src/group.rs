//! The provider's calls: what hosts ask, answered from the registry.
//!
//! The registry on disk is the truth; memory only holds what is under way. No call waits
//! for an instance to start or to end.

mod creation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use instances::failed::Failed;
use instances::processes::Identity;
use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceState, InstanceStatus,
    Settings,
};
use tokio::io::AsyncReadExt as _;

use crate::config::{Config, Options, Surroundings};
use crate::credentials::Access;
use crate::deletion;
use crate::isolation::{Isolation, UidClaims, hidden_paths};
use crate::record::Record;
use crate::registry::{GroupLock, InstanceDir, Registry};

/// A server that does not greet within this is of no use to a job.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// How long the end of the plugin waits for deletions that are under way.
const DELETION_LIMIT: Duration = Duration::from_secs(5);

/// The instance group of this plugin, empty until `init`.
#[derive(Default)]
pub(crate) struct LocalGroup {
    group: OnceLock<Arc<Group>>,
}

struct Group {
    options: Options,
    isolation: Isolation,
    access: Access,
    hidden: Vec<std::path::PathBuf>,
    registry: Registry,
    state: Mutex<State>,
    _lock: GroupLock,
}

#[derive(Default)]
struct State {
    /// What the last update listed.
    listed: BTreeSet<String>,
    /// Deleted instances that an update has told of.
    told: BTreeSet<String>,
    /// Instances that a task is deleting now.
    ending: BTreeSet<String>,
    /// Facts that never change, to spare reading them at each update.
    facts: BTreeMap<String, Facts>,
}

#[derive(Clone, Copy)]
struct Facts {
    keeper: Identity,
    created: SystemTime,
}

impl LocalGroup {
    fn group(&self) -> Result<&Arc<Group>, Error> {
        self.group.get().ok_or_else(|| Error::new("not initialized: Init must succeed first"))
    }
}

impl InstanceGroup for LocalGroup {
    type Config = Config;

    const BUILD: BuildInfo = mayfly_plugin::build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let here = Surroundings::here();
        let options = config.check(&here)?;
        let access = Access::check(settings.connector)?;
        let isolation = Isolation::choose(options.isolation)?;
        access.check_user(here.is_root && isolation != Isolation::Full)?;
        let (registry, lock) = Registry::open(&options.root, &options.name)?;
        let hidden = hidden_paths(isolation, registry.root())?;
        if isolation == Isolation::Full {
            UidClaims::default().check()?;
        }
        registry.remove_unfinished();
        if isolation == Isolation::None {
            tracing::warn!("instances are not isolated: jobs can read what this user can");
        }
        let info = GroupInfo::new(
            format!("local{}", options.root.join(&options.name).display()),
            options.max_size,
        );
        tracing::info!(root = %registry.root().display(), %isolation, "serving local instances");
        let state = Mutex::default();
        let group = Group { options, isolation, access, hidden, registry, state, _lock: lock };
        self.group.set(Arc::new(group)).map_err(|_| Error::new("already initialized"))?;
        Ok(info)
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        self.group()?.update()
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        self.group()?.increase(n)
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let group = self.group()?;
        for instance in instances.iter().filter_map(|id| group.registry.instance(id)) {
            if instance.exists() {
                group.start_deletion(&mut group.state(), instance);
            }
        }
        Ok(instances)
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let group = self.group()?;
        Ok(group.access.connect_info(&group.living(&instance)?))
    }

    async fn shutdown(&self) -> Result<(), Error> {
        // What was told once is known to the host that ends this plugin.
        let group = self.group()?;
        let told = std::mem::take(&mut group.state().told);
        told.iter().for_each(|id| group.registry.forget(id));
        // What a deletion began it ends: the next plugin may be long in coming.
        let deadline = tokio::time::Instant::now() + DELETION_LIMIT;
        while !group.state().ending.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn heartbeat(&self, instance: String) -> Result<(), Error> {
        let record = self.group()?.living(&instance)?;
        match tokio::time::timeout(GREETING_LIMIT, greeting(&record.address)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::unhealthy()),
        }
    }
}

async fn greeting(address: &str) -> std::io::Result<()> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.read_exact(&mut [0; 4]).await.map(drop)
}

impl Group {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(self: &Arc<Self>) -> Result<Vec<InstanceStatus>, Error> {
        if let Err(failed) = self.registry.renew_lease() {
            tracing::warn!(error = %failed, "cannot renew the lease of instances");
        }
        let instances = self.registry.list()?;
        let mut state = self.state();
        let mut statuses: Vec<InstanceStatus> = instances
            .iter()
            .map(|instance| {
                let seen = self.observe(&mut state, instance);
                InstanceStatus::new(instance.id(), seen)
            })
            .collect();
        let listed: BTreeSet<String> = instances.iter().map(|one| one.id().to_owned()).collect();
        let mut gone: BTreeSet<String> = state.listed.difference(&listed).cloned().collect();
        let told = std::mem::take(&mut state.told);
        for id in self.registry.gone() {
            // A host that asks again has heard the answer before.
            if told.contains(&id) {
                self.registry.forget(&id);
            } else {
                state.told.insert(id.clone());
                gone.insert(id);
            }
        }
        let deleted = |id| InstanceStatus::new(id, InstanceState::Deleted);
        statuses.extend(gone.iter().map(deleted));
        state.facts.retain(|id, _| listed.contains(id));
        state.listed = listed;
        Ok(statuses)
    }

    /// Where an instance stands. One that is dead or was about to be deleted by an
    /// earlier plugin is deleted now.
    fn observe(self: &Arc<Self>, state: &mut State, instance: &InstanceDir) -> InstanceState {
        if state.ending.contains(instance.id()) {
            return InstanceState::Deleting;
        }
        let Some(facts) = facts(state, instance) else {
            self.start_deletion(state, instance.clone());
            return InstanceState::Deleting;
        };
        if instance.is_deleting() || !facts.keeper.is_alive() {
            report_end(instance);
            self.start_deletion(state, instance.clone());
            return InstanceState::Deleting;
        }
        // An instance from the future is one whose clock was set back: it has booted.
        let has_booted = SystemTime::now()
            .duration_since(facts.created)
            .map_or(true, |age| age >= self.options.boot_time);
        if instance.is_ready() && has_booted {
            InstanceState::Running
        } else {
            InstanceState::Creating
        }
    }

    /// Deletes in the background; does nothing if that is under way.
    fn start_deletion(self: &Arc<Self>, state: &mut State, instance: InstanceDir) {
        if !state.ending.insert(instance.id().to_owned()) {
            return;
        }
        if let Err(failed) = instance.set_deleting() {
            // Only a plugin that starts in between would not know.
            tracing::debug!(error = %failed, "cannot mark an instance as deleting");
        }
        let group = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(failed) = deletion::delete(&instance) {
                tracing::error!(instance = instance.id(), error = %failed, "cannot delete, will try again");
            }
            group.state().ending.remove(instance.id());
        });
    }

    /// The record of an instance that can be used.
    fn living(&self, id: &str) -> Result<Record, Error> {
        let gone = || Error::new(format!("instance {id} does not exist"));
        let instance = self.registry.instance(id).filter(InstanceDir::exists).ok_or_else(gone)?;
        let is_alive = instance.keeper().is_some_and(Identity::is_alive);
        if instance.is_deleting() || !is_alive {
            return Err(Error::unhealthy());
        }
        instance.record().map_err(|_: Failed| gone())
    }
}

fn facts(state: &mut State, instance: &InstanceDir) -> Option<Facts> {
    if let Some(facts) = state.facts.get(instance.id()) {
        return Some(*facts);
    }
    let created = Duration::from_millis(instance.record().ok()?.created_unix_ms);
    let facts = Facts { keeper: instance.keeper()?, created: SystemTime::UNIX_EPOCH + created };
    state.facts.insert(instance.id().to_owned(), facts);
    Some(facts)
}

fn report_end(instance: &InstanceDir) {
    let (id, log) = (instance.id(), instance.log_tail());
    if instance.is_ready() {
        tracing::warn!(instance = id, log, "instance ended by itself");
    } else {
        tracing::error!(instance = id, log, "instance did not start");
    }
}
