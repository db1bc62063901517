//! The provider's calls, each handed on to whom it concerns.
//!
//! Ids are `NAME/ID`: the provider's name here, its own id there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mayfly_plugin::host::CallError;
use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceStatus, Partial, Settings,
};
use tokio::task::JoinSet;

use crate::caps::Caps;
use crate::config::{Choice, Config};
use crate::ledger::Ledger;
use crate::opening;
use crate::provider::{Asked, Change, Provider};

/// Ids as the providers know them.
type ByProvider = Vec<(Arc<Provider>, Vec<String>)>;

/// The instance group of this plugin, empty until `init`.
#[derive(Default)]
pub(crate) struct MayflyGroup {
    fleet: OnceLock<Fleet>,
}

struct Fleet {
    providers: Vec<Arc<Provider>>,
    caps: Mutex<Caps>,
    /// Held from the count to the last ask: room must not be given away twice.
    asking: tokio::sync::Mutex<()>,
    /// No further provider is asked once so much time has passed.
    patience: Duration,
}

impl MayflyGroup {
    fn fleet(&self) -> Result<&Fleet, Error> {
        self.fleet.get().ok_or_else(|| Error::new("not initialized: Init must succeed first"))
    }
}

impl InstanceGroup for MayflyGroup {
    type Config = Config;

    const BUILD: BuildInfo = mayfly_plugin::build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let options = config.check()?;
        let ledger = Ledger::open(options.state_file.as_deref())?;
        let start = |choice: &Choice| {
            let remembered = ledger.remembered(&choice.name);
            Provider::start(choice, &options, &settings, &remembered).map(Arc::new)
        };
        let providers: Vec<Arc<Provider>> =
            options.providers.iter().map(start).collect::<Result<_, _>>()?;
        opening::await_providers(&providers).await?;
        let sizes = providers.iter().map(|provider| provider.size());
        let size = sizes.fold(0, u32::saturating_add);
        let size = size.min(options.limits.max_instances.unwrap_or(u32::MAX));
        let can_suspend = providers.iter().all(|provider| provider.suspends());
        let info = GroupInfo::new(format!("mayfly/{}", options.name), size);
        let fleet = Fleet {
            providers,
            caps: Mutex::new(Caps::new(options.limits, ledger)),
            asking: tokio::sync::Mutex::new(()),
            patience: options.call_timeout,
        };
        self.fleet.set(fleet).map_err(|_| Error::new("already initialized"))?;
        Ok(if can_suspend { info.with_suspend_resume() } else { info })
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        self.fleet()?.update().await
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        if n == 0 {
            return Ok(0);
        }
        self.fleet()?.increase(n).await
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let fleet = self.fleet()?;
        let (by_provider, strangers) = fleet.by_provider(instances);
        let mut deleted = change(Change::Delete, by_provider).await;
        if !strangers.is_empty() {
            tracing::warn!(?strangers, "no provider of this group has made these instances");
            deleted.succeeded.extend(strangers);
        }
        match deleted.error {
            Some(error) if deleted.succeeded.is_empty() => Err(Error::new(error)),
            Some(error) => {
                tracing::warn!(error, "not all of the instances are deleted");
                Ok(deleted.succeeded)
            }
            None => Ok(deleted.succeeded),
        }
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let (provider, id) = self.fleet()?.of(&instance)?;
        provider.connect_info(id).await.map_err(words)
    }

    /// A provider that cannot say how an instance is does not make it unhealthy.
    async fn heartbeat(&self, instance: String) -> Result<(), Error> {
        let (provider, id) = self.fleet()?.of(&instance)?;
        match provider.heartbeat(id).await {
            Err(error) if error.outcome_unknown() => {
                tracing::warn!(instance, %error, "nobody knows how the instance is");
                Ok(())
            }
            answer => answer.map_err(words),
        }
    }

    async fn suspend(&self, instances: Vec<String>) -> Result<Partial, Error> {
        self.fleet()?.switch(Change::Suspend, instances).await
    }

    async fn resume(&self, instances: Vec<String>) -> Result<Partial, Error> {
        self.fleet()?.switch(Change::Resume, instances).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        let mut stopping = JoinSet::new();
        for provider in &self.fleet()?.providers {
            let provider = Arc::clone(provider);
            stopping.spawn(async move { provider.stop().await });
        }
        stopping.join_all().await;
        Ok(())
    }
}

impl Fleet {
    fn caps(&self) -> MutexGuard<'_, Caps> {
        self.caps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All providers' lists; none where of one of them nothing is known: a list without its
    /// instances would say that they are gone.
    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        let mut listing = JoinSet::new();
        for provider in &self.providers {
            let provider = Arc::clone(provider);
            listing.spawn(async move { provider.list().await });
        }
        listing.join_all().await;
        let running: Vec<_> = self.providers.iter().map(|provider| provider.running()).collect();
        let known = self.providers.iter();
        let known = known.map(|provider| (provider.name.clone(), provider.remembered())).collect();
        self.caps().ledger.look(&running, known);
        let mut all = Vec::new();
        for provider in &self.providers {
            let listed = provider.listed()?.into_iter();
            all.extend(
                listed.map(|one| InstanceStatus::new(outer(&provider.name, &one.id), one.state)),
            );
        }
        Ok(all)
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        let _one_at_a_time = self.asking.lock().await;
        let begun = Instant::now();
        if self.providers.iter().any(|provider| provider.is_to_list()) {
            self.update().await?;
        }
        let existing = self.providers.iter().map(|provider| provider.instances());
        let existing = existing.fold(0, u32::saturating_add);
        let allowed = self.caps().allow(n, existing)?;
        let (mut accepted, mut refusals) = (0, Vec::new());
        for provider in &self.providers {
            if accepted == allowed || begun.elapsed() >= self.patience {
                break;
            }
            let (why, is_over) = match provider.ask(allowed - accepted).await {
                Asked::Accepted(more) => {
                    accepted += more;
                    continue;
                }
                Asked::Refused(why) => (why, false),
                // They may come: asking another one could make twice as many.
                Asked::Unknown(why) => (why, true),
            };
            tracing::debug!(provider = provider.name, why, "provider makes no instance");
            refusals.push(format!("{}: {why}", provider.name));
            if is_over {
                break;
            }
        }
        if accepted == 0 && !refusals.is_empty() {
            return Err(Error::new(format!("no instance is made: {}", refusals.join("; "))));
        }
        Ok(accepted)
    }

    /// The provider of an instance, and its id there.
    fn of<'a>(&self, instance: &'a str) -> Result<(&Arc<Provider>, &'a str), Error> {
        let parts = instance.split_once('/');
        let found = parts.and_then(|(name, id)| {
            let provider = self.providers.iter().find(|provider| provider.name == name)?;
            Some((provider, id))
        });
        found.ok_or_else(|| {
            let why = "its id begins with no provider of this group";
            Error::new(format!("instance {instance} does not exist: {why}"))
        })
    }

    /// Ids by provider, and those of nobody.
    fn by_provider(&self, instances: Vec<String>) -> (ByProvider, Vec<String>) {
        let mut grouped: BTreeMap<&str, (Arc<Provider>, Vec<String>)> = BTreeMap::new();
        let mut strangers = Vec::new();
        for instance in instances {
            let Ok((provider, id)) = self.of(&instance) else {
                strangers.push(instance);
                continue;
            };
            let entry = grouped.entry(&provider.name);
            entry.or_insert_with(|| (Arc::clone(provider), Vec::new())).1.push(id.to_owned());
        }
        (grouped.into_values().collect(), strangers)
    }

    async fn switch(&self, to: Change, instances: Vec<String>) -> Result<Partial, Error> {
        let (by_provider, strangers) = self.by_provider(instances);
        let mut partial = change(to, by_provider).await;
        if !strangers.is_empty() && partial.error.is_none() {
            partial.error = Some(format!("instance {} does not exist", strangers[0]));
        }
        Ok(partial)
    }
}

/// The id of an instance of a provider to the outside.
fn outer(provider: &str, id: &str) -> String {
    format!("{provider}/{id}")
}

/// Changes instances of several providers side by side; the ids that succeeded, and what
/// stopped the rest.
async fn change(change: Change, by_provider: ByProvider) -> Partial {
    let mut changing = JoinSet::new();
    for (provider, ids) in by_provider {
        changing.spawn(async move {
            let answer = provider.change(change, ids).await;
            (provider, answer)
        });
    }
    let (mut succeeded, mut errors) = (Vec::new(), Vec::new());
    for (provider, answer) in changing.join_all().await {
        let name = &provider.name;
        let answer = answer.unwrap_or_else(|error| Partial {
            succeeded: Vec::new(),
            error: Some(error.to_string()),
        });
        succeeded.extend(answer.succeeded.iter().map(|id| outer(name, id)));
        errors.extend(answer.error.map(|error| format!("{name}: {error}")));
    }
    Partial { succeeded, error: (!errors.is_empty()).then(|| errors.join("; ")) }
}

/// What the provider said, in its own words: hosts know some of them.
fn words(error: CallError) -> Error {
    match error {
        CallError::Refused { message, .. } => Error::new(message),
        CallError::Unsupported { call } => Error::unsupported(call),
        other => Error::new(other.to_string()),
    }
}
