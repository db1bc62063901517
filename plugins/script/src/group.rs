//! The provider's calls: what hosts ask, handed to the scripts of the configured mode.
//!
//! Only the last list is remembered, for how to log in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceStatus, Partial, Settings,
};

use crate::access::Access;
use crate::answer::{Entry, Group as Told, Login};
use crate::call::{Caller, Terms};
use crate::config::{Config, Mode};
use crate::count::Count;
use crate::environment::Environment;
use crate::ops::Ops;
use crate::run::Surroundings;
use crate::speech::Secrets;

/// The instance group of this plugin, empty until `init`.
#[derive(Default)]
pub(crate) struct ScriptGroup {
    group: OnceLock<Group>,
}

struct Group {
    provider: Provider,
    caller: Caller,
    access: Access,
    logins: Mutex<BTreeMap<String, Login>>,
}

enum Provider {
    Ops(Ops),
    Count(Arc<Count>),
}

impl ScriptGroup {
    fn group(&self) -> Result<&Group, Error> {
        self.group.get().ok_or_else(|| Error::new("not initialized: Init must succeed first"))
    }
}

impl InstanceGroup for ScriptGroup {
    type Config = Config;

    const BUILD: BuildInfo = mayfly_plugin::build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let options = config.check()?;
        let access = Access::new(settings.connector);
        let environment = Environment::choose(std::env::vars_os(), &config.pass_env, &config.env)?;
        let secrets = Secrets::default();
        environment.secrets().for_each(|secret| secrets.add(secret));
        access.secrets().for_each(|secret| secrets.add(&secret));
        let terms = Terms {
            group: options.name.clone(),
            settings: options.settings,
            directory: options.directory,
            timeouts: options.timeouts,
            parallel: options.parallel,
        };
        let caller = Caller::new(terms, Surroundings { environment, secrets });
        let (provider, told) = match options.mode {
            Mode::Ops { command, batch } => {
                let ops = Ops::new(caller.clone(), command, batch, options.parallel);
                let told = ops.init(options.max_size, access.told()).await?;
                (Provider::Ops(ops), told)
            }
            Mode::Count(scripts) => {
                let count = Count::open(caller.clone(), scripts, options.max_size)?;
                (Provider::Count(Arc::new(count)), Told::default())
            }
        };
        let id = told.id.unwrap_or_else(|| format!("script/{}", options.name));
        let max_size = told.max_size.map_or(options.max_size, |size| size.min(options.max_size));
        if id.is_empty() || max_size == 0 {
            return Err("init: id must not be empty and max_size at least 1".into());
        }
        let info = GroupInfo::new(id, max_size);
        let group = Group { provider, caller, access, logins: Mutex::default() };
        self.group.set(group).map_err(|_| Error::new("already initialized"))?;
        Ok(if told.suspend { info.with_suspend_resume() } else { info })
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        self.group()?.list().await
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        match &self.group()?.provider {
            Provider::Ops(ops) => ops.create(n).await,
            Provider::Count(count) => count.create(n).await,
        }
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        match &self.group()?.provider {
            Provider::Ops(ops) => ops.delete(instances).await,
            Provider::Count(count) => count.delete(instances).await,
        }
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let group = self.group()?;
        let login = group.login(&instance).await?;
        let info = group.access.connect_info(&login);
        info.map_err(|why| Error::new(format!("connect to {instance}: {why}")))
    }

    async fn heartbeat(&self, instance: String) -> Result<(), Error> {
        match &self.group()?.provider {
            Provider::Ops(ops) => ops.heartbeat(&instance).await,
            Provider::Count(_) => Err(Error::unsupported("heartbeat")),
        }
    }

    async fn suspend(&self, instances: Vec<String>) -> Result<Partial, Error> {
        match &self.group()?.provider {
            Provider::Ops(ops) => ops.suspend(instances).await,
            Provider::Count(_) => Err(Error::unsupported("suspend")),
        }
    }

    async fn resume(&self, instances: Vec<String>) -> Result<Partial, Error> {
        match &self.group()?.provider {
            Provider::Ops(ops) => ops.resume(instances).await,
            Provider::Count(_) => Err(Error::unsupported("resume")),
        }
    }
}

impl Group {
    async fn list(&self) -> Result<Vec<InstanceStatus>, Error> {
        let entries = match &self.provider {
            Provider::Ops(ops) => ops.list().await,
            Provider::Count(count) => count.list().await,
        }?;
        let statuses = entries.iter().map(|entry| entry.status.clone()).collect();
        entries.iter().for_each(|entry| self.hide(&entry.login));
        let logins = entries.into_iter().map(|Entry { status, login }| (status.id, login));
        *self.logins() = logins.collect();
        Ok(statuses)
    }

    /// What the script answers, and for the rest what it listed.
    async fn login(&self, instance: &str) -> Result<Login, Error> {
        let answered = match &self.provider {
            Provider::Ops(ops) => ops.connect(instance).await?,
            Provider::Count(count) => count.connect(instance).await?,
        };
        if let Some(login) = answered {
            self.hide(&login);
            return Ok(login);
        }
        let listed = self.logins().get(instance).cloned();
        match listed.filter(|login| login.address.is_some() || login.external_address.is_some()) {
            Some(login) => Ok(login),
            None => {
                self.list().await?;
                let login = self.logins().get(instance).cloned();
                login.ok_or_else(|| Error::new(format!("instance {instance} does not exist")))
            }
        }
    }

    fn hide(&self, login: &Login) {
        login.password.iter().chain(&login.key).for_each(|secret| self.caller.hide(secret));
    }

    fn logins(&self) -> MutexGuard<'_, BTreeMap<String, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
