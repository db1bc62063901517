//! The provider's calls: what hosts ask, answered from the daemon's own list.
//!
//! The daemon is the truth; memory only holds what is under way and what was promised. No
//! call waits for a container to start, to end, or for an image.

mod creation;
mod listing;
mod removal;
mod suspension;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use instances::login;
use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceStatus, Partial, Settings,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use crate::archive;
use crate::config::{Address, Config, Options, Reach, Surroundings};
use crate::credentials::Access;
use crate::daemon::{About, Container, Daemon, Owned, State as Stands};
use crate::image::Image;
use crate::lock::GroupLock;
use crate::spec;
use listing::State;

/// A server that does not greet within this is of no use to a job.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// Containers that are made, or ended, at the same time: more only wait for each other
/// in the daemon.
const AT_A_TIME: usize = 8;
/// Who logs in where nobody wants another name.
const USER: &str = "mayfly";

/// The instance group of this plugin, empty until `init`.
#[derive(Default)]
pub(crate) struct DockerGroup {
    group: OnceLock<Arc<Group>>,
}

struct Group {
    options: Options,
    access: Access,
    daemon: Arc<Daemon>,
    /// Host name of the daemon's machine, for published ports.
    host: String,
    arch: String,
    owned: Owned,
    image: Arc<Image>,
    /// The start of this plugin.
    boot: String,
    files: Files,
    state: Mutex<State>,
    /// Held while instances are counted and promised.
    counting: tokio::sync::Mutex<()>,
    creations: Semaphore,
    removals: Semaphore,
    _lock: GroupLock,
}

/// What goes into containers.
struct Files {
    whole: Bytes,
    keys: Bytes,
    /// Whether images must have the libraries of this binary.
    needs_libraries: bool,
}

impl DockerGroup {
    fn group(&self) -> Result<&Arc<Group>, Error> {
        self.group.get().ok_or_else(|| Error::new("not initialized: Init must succeed first"))
    }
}

impl InstanceGroup for DockerGroup {
    type Config = Config;

    const BUILD: BuildInfo = mayfly_plugin::build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let options = config.check(&Surroundings::here())?;
        let access = Access::check(settings.connector)?;
        let daemon = Arc::new(Daemon::new(&options.address, options.certificates.as_ref())?);
        let about = daemon.meet().await?;
        check_fit(&about, daemon.host())?;
        let lock = GroupLock::take(&options.name, &options.owner, daemon.host()).await?;
        let image = Arc::new(Image::new(Arc::clone(&daemon), &options));
        image.check().await?;
        let files = Files::pack(access.trusted().to_owned()).await?;
        let info = GroupInfo::new(format!("docker/{}", options.name), options.max_size)
            .with_suspend_resume();
        tracing::info!(
            host = daemon.host(),
            docker = about.version,
            image = options.image,
            owner = options.owner,
            "serving containers"
        );
        let group = Arc::new(Group {
            host: host_name(&options),
            arch: about.arch,
            owned: spec::owned(&options.name, &options.owner),
            boot: format!("{:016x}", rand::random::<u64>()),
            state: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
            creations: Semaphore::new(AT_A_TIME),
            removals: Semaphore::new(AT_A_TIME),
            options,
            access,
            daemon,
            image,
            files,
            _lock: lock,
        });
        // Begins to remove what an earlier plugin left half made.
        group.update().await?;
        self.group.set(group).map_err(|_| Error::new("already initialized"))?;
        Ok(info)
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        self.group()?.update().await
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        self.group()?.increase(n).await
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        self.group()?.decrease(instances).await
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let group = self.group()?;
        let container = group.usable(&instance).await?;
        group.trust_own_key(&container).await?;
        let address = group.address(&container).ok_or_else(|| {
            Error::new(format!(
                "instance {instance} has no address: look at its networks and at reach"
            ))
        })?;
        let user = container.labels.get(spec::USER_LABEL).map_or(USER, String::as_str);
        let info = group.access.connect_info(user, &group.arch);
        // Hosts take the internal one unless told otherwise; both must work.
        Ok(info.internal(address.clone()).external(address))
    }

    async fn heartbeat(&self, instance: String) -> Result<(), Error> {
        let group = self.group()?;
        let container = group.usable(&instance).await?;
        let address = group.address(&container).ok_or_else(Error::unhealthy)?;
        match tokio::time::timeout(GREETING_LIMIT, greeting(&address)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::unhealthy()),
        }
    }

    async fn suspend(&self, instances: Vec<String>) -> Result<Partial, Error> {
        self.group()?.suspend(instances).await
    }

    async fn resume(&self, instances: Vec<String>) -> Result<Partial, Error> {
        self.group()?.resume(instances).await
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

    fn address(&self, container: &Container) -> Option<String> {
        let network = self.options.container.networks.first().map(String::as_str);
        spec::address(container, &self.options.reach, &self.host, network)
    }

    async fn find(&self, id: &str) -> Result<Option<Container>, Error> {
        let listed = self.daemon.list(&self.owned, Some(id)).await?;
        Ok(listed.into_iter().find(|container| container.name == id))
    }

    /// An instance that runs.
    async fn usable(&self, id: &str) -> Result<Container, Error> {
        match self.find(id).await? {
            None => Err(Error::new(format!("instance {id} does not exist"))),
            Some(container) if container.state == Stands::Running => Ok(container),
            Some(_) => Err(Error::unhealthy()),
        }
    }

    /// Lets the key of this start into an instance that was made by an earlier one.
    async fn trust_own_key(&self, container: &Container) -> Result<(), Error> {
        let made_by = container.labels.get(spec::BOOT_LABEL);
        if made_by == Some(&self.boot) || self.state().knows_key(&container.name) {
            return Ok(());
        }
        self.daemon.upload(&container.id, self.files.keys.clone()).await?;
        self.state().set_knows_key(&container.name);
        Ok(())
    }

    /// Who logs in to new instances.
    fn user(&self) -> &str {
        let configured = || {
            let user = self.options.container.user.as_deref()?;
            user.split(':').next().filter(|name| login::is_user_name(name))
        };
        self.access.user_name().or_else(configured).unwrap_or(USER)
    }

    /// Who everything in new instances runs as.
    fn runs_as(&self) -> Option<&str> {
        self.options.container.user.as_deref().or_else(|| self.access.user_name())
    }
}

impl Files {
    async fn pack(trusted: String) -> Result<Self, Error> {
        let packing = tokio::task::spawn_blocking(move || {
            let binary = archive::own_binary()?;
            Ok::<_, std::io::Error>(Self {
                whole: archive::whole(&binary, &trusted)?,
                keys: archive::keys_only(&trusted)?,
                needs_libraries: archive::is_dynamic(&binary),
            })
        });
        let files = packing.await.map_err(|error| Error::new(error.to_string()))??;
        if files.needs_libraries {
            tracing::warn!(
                "this plugin is linked dynamically: it serves images with glibc as new as this \
                 machine's only; `make build` makes one for all images"
            );
        }
        Ok(files)
    }
}

/// The server inside is this very binary.
fn check_fit(about: &About, host: &str) -> Result<(), Error> {
    let own = login::own_arch();
    if about.os == "linux" && about.arch == own {
        return Ok(());
    }
    Err(Error::new(format!(
        "the Docker daemon at {host} runs {}/{} containers, this plugin was built for linux/{own}: \
         use the plugin's build for that machine",
        about.os, about.arch
    )))
}

fn host_name(options: &Options) -> String {
    match (&options.reach, &options.address) {
        (_, Address::Tcp { host, .. }) => host.clone(),
        (Reach::Published { bind }, _) if bind != "0.0.0.0" && bind != "::" => bind.clone(),
        _ => "127.0.0.1".into(),
    }
}
