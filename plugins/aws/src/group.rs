//! The provider: what hosts ask, answered by the Auto Scaling groups in their order.
//!
//! Changes of capacity go one at a time. Nothing is ended that the groups' complete list
//! does not show as theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceStatus, Partial, Settings,
    build_info,
};
use tokio::sync::Mutex;

use crate::access::Access;
use crate::capacity::Book;
use crate::checks::{self, Repair};
use crate::cloud::Cloud;
use crate::config::{Config, Options};
use crate::fleet::{self, Fleet};
use crate::lease::{self, Lease};
use crate::machines;
use crate::notices::{self, Notices};
use crate::scaling::{self, Group};
use crate::standing::{self, Step, Want};
use crate::suspending;

/// The plugin; ready after `init`.
#[derive(Default)]
pub(crate) struct AwsGroup {
    ready: OnceLock<Ready>,
}

struct Ready {
    cloud: Arc<Cloud>,
    options: Options,
    access: Access,
    fleet: Mutex<Fleet>,
    lease: Option<Mutex<Lease>>,
    notices: Arc<Notices>,
    /// Reads notices until this is dropped or aborted.
    reader: Option<tokio::task::AbortHandle>,
}

impl AwsGroup {
    fn ready(&self) -> Result<&Ready, Error> {
        self.ready.get().ok_or_else(|| "not initialized".into())
    }
}

impl InstanceGroup for AwsGroup {
    type Config = Config;
    const BUILD: BuildInfo = build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let options = config.check()?;
        let access = Access::check(settings.connector)?;
        let cloud = Arc::new(Cloud::open(&options.login).await?);
        let groups = scaling::describe(&cloud, &options.groups).await?;
        for group in &groups {
            lease::may_take(group, options.owner.as_deref(), SystemTime::now())?;
        }
        for group in &groups {
            examine(&cloud, group, options.repair).await?;
        }
        let lease = match &options.owner {
            Some(owner) => Some(Mutex::new(Lease::take(&cloud, &groups, owner).await?)),
            None => None,
        };
        let notices = Arc::new(Notices::default());
        let reader = options.queue_url.clone().map(|queue| {
            let reading = notices::read(Arc::clone(&cloud), queue, Arc::clone(&notices));
            tokio::spawn(reading).abort_handle()
        });
        let sizes = groups.iter().map(|group| group.max);
        let mut info = GroupInfo::new(
            format!("aws/{}/{}", cloud.region, options.groups[0]),
            sizes.fold(0, u32::saturating_add),
        );
        if options.suspend.is_some() {
            info = info.with_suspend_resume();
        }
        let now = SystemTime::now();
        let books = groups.iter().map(|group| Book::new(group.desired, group.counted(), now));
        let fleet = Mutex::new(Fleet { books: books.collect(), cool_down: options.cool_down });
        let ready = Ready { cloud, options, access, fleet, lease, notices, reader };
        self.ready.set(ready).map_err(|_| "already initialized")?;
        Ok(info)
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        let ready = self.ready()?;
        let cloud = &ready.cloud;
        let groups = scaling::describe(cloud, &ready.options.groups).await?;
        let ids: Vec<String> =
            groups.iter().flat_map(|group| &group.members).map(|one| one.id.clone()).collect();
        ready.notices.instances_are(&ids);
        let machines = machines::describe(cloud, &ids).await?;
        let mut listed = Vec::new();
        let mut steps: BTreeMap<(&str, Step), Vec<String>> = BTreeMap::new();
        for group in &groups {
            for member in &group.members {
                let machine = machines.get(&member.id);
                let Some((state, step)) = standing::stand(member.life, machine) else { continue };
                listed.push(InstanceStatus::new(&member.id, state));
                if let Some(step) = step {
                    steps.entry((&group.name, step)).or_default().push(member.id.clone());
                }
            }
        }
        suspending::take(cloud, steps).await;
        // Whoever holds it changes what would be looked at.
        if let Ok(mut fleet) = ready.fleet.try_lock() {
            fleet.look_for_shortages(cloud, &groups).await;
        }
        if let Some(lease) = &ready.lease {
            lease.lock().await.renew(cloud, &groups).await;
        }
        Ok(listed)
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        let ready = self.ready()?;
        let mut fleet = ready.fleet.lock().await;
        let groups = scaling::describe(&ready.cloud, &ready.options.groups).await?;
        let placed = fleet.place(&ready.cloud, &groups, n).await;
        if placed.accepted == 0 && n > 0 {
            return Err(Error::new(format!("no instance can be made: {}", placed.refusals())));
        }
        if placed.accepted < n {
            let (asked, accepted) = (n, placed.accepted);
            tracing::warn!(asked, accepted, "fewer instances than asked: {}", placed.refusals());
        }
        Ok(placed.accepted)
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let ready = self.ready()?;
        let mut fleet = ready.fleet.lock().await;
        let groups = scaling::describe(&ready.cloud, &ready.options.groups).await?;
        fleet.end(&ready.cloud, &groups, instances).await
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let ready = self.ready()?;
        let ids = std::slice::from_ref(&instance);
        let mut machines = machines::describe(&ready.cloud, ids).await?;
        let ours = |group: &String| ready.options.groups.contains(group);
        match machines.remove(&instance) {
            Some(machine) if machine.group.as_ref().is_some_and(ours) => {
                ready.access.connect_info(&ready.cloud, &instance, &machine).await
            }
            _ => Err(format!("there is no instance {instance:?} in the groups").into()),
        }
    }

    async fn heartbeat(&self, instance: String) -> Result<(), Error> {
        let ready = self.ready()?;
        if ready.notices.about(&instance).is_some() {
            return Err(Error::unhealthy());
        }
        match machines::is_fit(&ready.cloud, &instance).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::unhealthy()),
            Err(failure) => {
                // Not to know is no reason to end an instance.
                tracing::warn!(instance, "health is not known, taken for good: {failure}");
                Ok(())
            }
        }
    }

    async fn suspend(&self, instances: Vec<String>) -> Result<Partial, Error> {
        let ready = self.ready()?;
        let Some(how) = ready.options.suspend else { return Err(Error::unsupported("suspend")) };
        self.want(instances, Want::Suspended(how)).await
    }

    async fn resume(&self, instances: Vec<String>) -> Result<Partial, Error> {
        if self.ready()?.options.suspend.is_none() {
            return Err(Error::unsupported("resume"));
        }
        self.want(instances, Want::Running).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        if let Some(reader) = &self.ready()?.reader {
            reader.abort();
        }
        Ok(())
    }
}

impl AwsGroup {
    /// Notes what is wanted; lists carry it out step by step.
    async fn want(&self, instances: Vec<String>, want: Want) -> Result<Partial, Error> {
        let ready = self.ready()?;
        let groups = scaling::describe(&ready.cloud, &ready.options.groups).await?;
        let (ours, foreign) = fleet::split(&groups, instances);
        if !ours.is_empty() {
            machines::want(&ready.cloud, &ours, want.as_str()).await?;
        }
        let error = (!foreign.is_empty())
            .then(|| format!("not in the groups, or ending: {}", foreign.join(", ")));
        Ok(Partial { succeeded: ours, error })
    }
}

/// Looks at a group's settings: repairs, tells or refuses them.
async fn examine(cloud: &Cloud, group: &Group, repair: bool) -> Result<(), Error> {
    for finding in checks::check(group) {
        let text = &finding.text;
        match finding.repair {
            Some(how) if repair => {
                carry_out(cloud, group, how).await?;
                tracing::info!("repaired: {text}");
            }
            Some(how) => {
                let command = how.command(&group.name);
                let text = format!("{text}. Write repair = true, or run: {command}");
                match finding.fatal {
                    true => return Err(text.into()),
                    false => tracing::warn!("{text}"),
                }
            }
            None if finding.fatal => return Err(text.as_str().into()),
            None => tracing::warn!("{text}"),
        }
    }
    Ok(())
}

async fn carry_out(cloud: &Cloud, group: &Group, repair: Repair) -> Result<(), Error> {
    match repair {
        Repair::Protect => scaling::protect(cloud, group).await?,
        Repair::Suspend(process) => scaling::set_process(cloud, &group.name, process, true).await?,
        Repair::Resume(process) => scaling::set_process(cloud, &group.name, process, false).await?,
    }
    Ok(())
}
