//! A plugin as it is on the wire, for those who examine plugins: nothing is filled in,
//! clamped or tidied, and what it prints is kept.

use std::path::Path;
use std::time::Duration;

use tonic::Request;

use super::client::{CallError, Client, bounded};
use super::failure::{self, StartError};
use super::launch::{Launch, Starting, fill_times};
use super::output::{self, Tail};
use super::process::Process;
use crate::contract::Settings;
use crate::guarding::Fate;
use crate::wire::health::HealthCheckRequest;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_client::HealthClient;
use crate::wire::{self, fleeting};

/// How much of each of a plugin's outputs is kept.
const KEPT_BYTES: usize = 4 << 20;

/// What `Init` said, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// Identity of the group.
    pub id: String,
    /// The most instances that it may have.
    pub max_size: u32,
    /// The plugin's version.
    pub version: String,
    /// How it was built.
    pub build_info: String,
    /// Whether it says that it can suspend and resume.
    pub suspend_resume: bool,
}

/// What `ConnectInfo` said, as it came.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectAnswer {
    /// Whether the answer has a connector at all.
    pub has_connector: bool,
    /// The protocol's word; empty is SSH.
    pub protocol: String,
    /// User to log in as.
    pub username: String,
    /// Password.
    pub password: String,
    /// Private key.
    pub key: Vec<u8>,
    /// Nanoseconds.
    pub keepalive: i64,
    /// Nanoseconds.
    pub timeout: i64,
    /// Address inside the provider's network.
    pub internal_addr: String,
    /// Address from outside.
    pub external_addr: String,
    /// Unix seconds; zero or less is never.
    pub expires: i64,
}

/// What a plugin printed so far; may be asked when the plugin is gone.
#[derive(Clone, Debug)]
pub struct Printed {
    stdout: Tail,
    stderr: Tail,
}

impl Printed {
    /// Its stdout after the handshake line, at most the last 4 MiB.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    /// Its stderr, at most the last 4 MiB.
    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.bytes()
    }
}

/// A started plugin. Dropping it kills it.
pub struct Probe {
    client: Client,
    process: Process,
    printed: Printed,
}

impl Probe {
    /// Starts the plugin up to the connection. No call is made.
    pub async fn start(launch: &Launch) -> Result<Self, StartError> {
        let printed = Printed { stdout: Tail::of(KEPT_BYTES), stderr: Tail::of(KEPT_BYTES) };
        let starting = Starting { launch, tail: &printed.stderr };
        match starting.open().await {
            Ok((process, stdout, client)) => {
                tokio::spawn(output::keep(stdout, printed.stdout.clone()));
                client.keep_streams();
                Ok(Self { client, process, printed })
            }
            Err(cause) => Err(StartError {
                binary: launch.binary.clone(),
                cause,
                stderr: printed.stderr.text(),
            }),
        }
    }

    /// What it printed, to be looked at whenever.
    pub fn printed(&self) -> Printed {
        self.printed.clone()
    }

    /// The plugin's private directory, which is its temporary one, too.
    pub fn directory(&self) -> &Path {
        self.process.directory()
    }

    /// `Init`, as often as one likes.
    pub async fn init(
        &self,
        config: &[u8],
        settings: &Settings,
        limit: Duration,
    ) -> Result<Description, CallError> {
        let mut connector = wire::connector_to_wire(&settings.connector);
        fill_times(&mut connector);
        let reply = self.client.init(config.to_vec(), connector, limit).await?;
        Ok(Description {
            suspend_resume: reply.capabilities.iter().any(|name| name == wire::SUSPEND_RESUME),
            id: reply.id,
            max_size: reply.max_size,
            version: reply.version,
            build_info: reply.build_info,
        })
    }

    /// `Update`: ids and the numbers of their states, in the plugin's order.
    pub async fn update(&self, limit: Duration) -> Result<Vec<(String, i32)>, CallError> {
        let mut group = self.client.group.clone();
        bounded("Update", limit, fleeting::Empty {}, |request| async move {
            let mut stream = group.update(request).await?.into_inner();
            let mut listed = Vec::new();
            while let Some(message) = stream.message().await? {
                listed.push((message.instance, message.state));
            }
            Ok(tonic::Response::new(listed))
        })
        .await
    }

    /// `Increase`: what it said it made.
    pub async fn increase(&self, n: u32, limit: Duration) -> Result<u32, CallError> {
        let mut group = self.client.group.clone();
        let request = fleeting::IncreaseRequest { n };
        bounded("Increase", limit, request, |r| async move { group.increase(r).await })
            .await
            .map(|reply| reply.succeeded)
    }

    /// `Decrease`: the ids that it said it took.
    pub async fn decrease(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Vec<String>, CallError> {
        self.client.decrease(instances, limit).await
    }

    /// `ConnectInfo`.
    pub async fn connect_info(
        &self,
        instance: &str,
        limit: Duration,
    ) -> Result<ConnectAnswer, CallError> {
        let mut group = self.client.group.clone();
        let request = fleeting::ConnectInfoRequest { instance: instance.to_owned() };
        let reply =
            bounded("ConnectInfo", limit, request, |r| async move { group.connect_info(r).await })
                .await?;
        let has_connector = reply.connector.is_some();
        let connector = reply.connector.unwrap_or_default();
        Ok(ConnectAnswer {
            has_connector,
            protocol: connector.protocol,
            username: connector.username,
            password: connector.password,
            key: connector.key,
            keepalive: connector.keepalive,
            timeout: connector.timeout,
            internal_addr: reply.internal_addr,
            external_addr: reply.external_addr,
            expires: reply.expires,
        })
    }

    /// `Heartbeat`; a plugin without the call is [`CallError::Unsupported`].
    pub async fn heartbeat(&self, instance: &str, limit: Duration) -> Result<(), CallError> {
        let mut group = self.client.group.clone();
        let request = fleeting::HeartbeatRequest { instance: instance.to_owned() };
        bounded("Heartbeat", limit, request, |r| async move { group.heartbeat(r).await })
            .await
            .map(|_| ())
    }

    /// `Suspend`: the ids that it took, and its error.
    pub async fn suspend(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<crate::Partial, CallError> {
        self.client.suspend(instances, limit).await
    }

    /// `Resume`: the ids that it took, and its error.
    pub async fn resume(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<crate::Partial, CallError> {
        self.client.resume(instances, limit).await
    }

    /// Whether go-plugin's health service says that `service` serves.
    pub async fn serves(&self, service: &str, limit: Duration) -> Result<bool, CallError> {
        let mut health = HealthClient::new(self.client.channel.clone());
        let request = HealthCheckRequest { service: service.to_owned() };
        let reply = bounded("Health.Check", limit, request, |r: Request<_>| async move {
            health.check(r).await
        })
        .await?;
        Ok(reply.status == i32::from(ServingStatus::Serving))
    }

    /// The provider's own `Shutdown`; a plugin without it is fine.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), CallError> {
        self.client.shutdown(limit).await
    }

    /// go-plugin's `Controller.Shutdown`; its answer means nothing.
    pub async fn end(&self, limit: Duration) {
        self.client.end(limit).await;
    }

    /// The exit status once it has ended, or a phrase such as `was ended by signal 9`.
    pub async fn ended(&self) -> Result<i32, String> {
        match self.process.ended().await {
            Fate::Exited(status) => Ok(status),
            fate => Err(failure::how(fate)),
        }
    }

    /// Sends SIGINT to the plugin, as a terminal does.
    pub fn interrupt(&self) {
        self.process.signal(rustix::process::Signal::INT);
    }

    /// Sends SIGTERM to the plugin, as a service manager does.
    pub fn terminate(&self) {
        self.process.signal(rustix::process::Signal::TERM);
    }

    /// Ends the plugin and all of its process group by SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }
}
