//! Starting a plugin up to a successful `Init`, and stopping it as go-plugin does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::process::{Pid, geteuid, getpgid};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::ChildStdout;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint, Uri};

use super::client::{CallError, Client};
use super::failure::{self, StartCause, StartError};
use super::gate::Gate;
use super::output::{self, FirstLine, Tail};
use super::process::{Process, Started};
use crate::contract::{ConnectInfo, GroupInfo, InstanceStatus, Partial, Settings};
use crate::environment::is_for_providers;
use crate::guarding::Fate;
use crate::handshake::{self, Address};
use crate::wire::{self, fleeting};

/// go-plugin's own start timeout.
const START_LIMIT: Duration = Duration::from_secs(60);
/// GitLab Runner gives `Init` and the first `Update` together a minute.
const INIT_LIMIT: Duration = Duration::from_secs(60);
/// Exit and end of stdout come in any order; the other may be this late.
const SETTLE: Duration = Duration::from_millis(250);
/// How long a plugin may take to end after `Controller.Shutdown`, as in go-plugin.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Keepalive for instances when the operator sets none (fleeting's default).
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(30);
/// Connection timeout when the operator sets none (fleeting's default).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// How to start one plugin binary.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Absolute path of the plugin.
    pub binary: PathBuf,
    /// The plugin's whole environment; the handshake's variables are added.
    pub environment: Vec<(OsString, OsString)>,
    /// Deadline on the handshake line.
    pub start_limit: Duration,
    /// Deadline on `Init`.
    pub init_limit: Duration,
    /// A binary whose `main` calls `run_guard_if_asked`: this process's own, unless set.
    pub guard: PathBuf,
    gate: Option<Gate>,
}

impl Launch {
    /// Starts `binary` with the part of this process's environment that plugins need.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            environment: std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(is_for_providers))
                .collect(),
            start_limit: START_LIMIT,
            init_limit: INIT_LIMIT,
            guard: PathBuf::from("/proc/self/exe"),
            gate: None,
        }
    }

    /// Adds a variable to the plugin's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Asks `ask` before each start, restarts among them: an error, which says what is wrong
    /// with the binary and what to do, is a [`StartCause::Refused`]. It may block.
    #[must_use]
    pub fn only_if(mut self, ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.gate = Some(Gate::new(ask));
        self
    }
}

/// A running plugin whose `Init` succeeded. Dropping it kills it.
pub struct Plugin {
    client: Client,
    process: Process,
    info: GroupInfo,
}

impl Plugin {
    /// Starts the plugin and initializes it with `config`, a JSON object.
    pub async fn start(
        launch: &Launch,
        config: &[u8],
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let tail = Tail::default();
        let mut starting = Starting { launch, tail: &tail };
        starting.run(config, settings).await.map_err(|cause| StartError {
            binary: launch.binary.clone(),
            cause,
            stderr: tail.text(),
        })
    }

    /// What `Init` said about the group.
    pub fn info(&self) -> &GroupInfo {
        &self.info
    }

    /// Lists the group's instances; a partial list is an error.
    pub async fn update(&self, limit: Duration) -> Result<Vec<InstanceStatus>, CallError> {
        self.client.update(limit).await
    }

    /// Asks for `n` more instances; how many were accepted, never more than `n`.
    pub async fn increase(&self, n: u32, limit: Duration) -> Result<u32, CallError> {
        self.client.increase(n, limit).await
    }

    /// Asks to delete instances; the accepted ids.
    pub async fn decrease(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Vec<String>, CallError> {
        self.client.decrease(instances, limit).await
    }

    /// Credentials and addresses of one instance.
    pub async fn connect_info(
        &self,
        instance: &str,
        limit: Duration,
    ) -> Result<ConnectInfo, CallError> {
        self.client.connect_info(instance.to_owned(), limit).await
    }

    /// Ok if the instance is fit for work, or the plugin cannot tell.
    pub async fn heartbeat(&self, instance: &str, limit: Duration) -> Result<(), CallError> {
        self.client.heartbeat(instance.to_owned(), limit).await
    }

    /// Suspends instances; nothing is sent to a plugin without the capability.
    pub async fn suspend(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Partial, CallError> {
        self.capable("Suspend")?;
        self.client.suspend(instances, limit).await
    }

    /// Resumes instances; nothing is sent to a plugin without the capability.
    pub async fn resume(
        &self,
        instances: Vec<String>,
        limit: Duration,
    ) -> Result<Partial, CallError> {
        self.capable("Resume")?;
        self.client.resume(instances, limit).await
    }

    /// Resolves, with a phrase such as `exited with status 2`, when the plugin has ended.
    pub fn ended(&self) -> impl Future<Output = String> + Send + 'static {
        let ended = self.process.ended();
        async move { failure::how(ended.await) }
    }

    /// Ends the plugin: its own `Shutdown` within `limit`, then go-plugin's, then SIGKILL.
    pub async fn stop(&self, limit: Duration) {
        if let Err(error) = self.client.shutdown(limit).await {
            tracing::warn!(%error, "plugin did not shut down cleanly");
        }
        self.client.end(END_LIMIT).await;
        if timeout(END_LIMIT, self.process.ended()).await.is_err() {
            tracing::warn!("plugin failed to exit gracefully, killing it");
            self.process.kill();
            let _ = timeout(END_LIMIT, self.process.ended()).await;
        }
    }

    fn capable(&self, call: &'static str) -> Result<(), CallError> {
        if self.info.suspend_resume { Ok(()) } else { Err(CallError::Unsupported { call }) }
    }
}

/// The steps of a start, one after the other.
pub(super) struct Starting<'a> {
    pub(super) launch: &'a Launch,
    pub(super) tail: &'a Tail,
}

impl Starting<'_> {
    async fn run(&mut self, config: &[u8], settings: &Settings) -> Result<Plugin, StartCause> {
        let (process, stdout, client) = self.open().await?;
        tokio::spawn(output::discard(stdout));
        client.keep_streams();
        match self.init(&client, &process, config, settings).await {
            Ok(info) => Ok(Plugin { client, process, info }),
            Err(cause) => {
                // Controller.Shutdown to a mute plugin would only cost its deadline.
                process.kill();
                Err(cause)
            }
        }
    }

    /// Up to the connection: before any call.
    pub(super) async fn open(&self) -> Result<(Process, ChildStdout, Client), StartCause> {
        if let Some(gate) = &self.launch.gate {
            gate.ask(self.launch.start_limit).await?;
        }
        let binary = &self.launch.binary;
        let Started { process, mut stdout, stderr } =
            Process::start(&self.launch.guard, binary, &self.launch.environment)
                .map_err(StartCause::Spawn)?;
        let name = binary.file_name().unwrap_or(binary.as_os_str()).to_string_lossy();
        tokio::spawn(output::forward(stderr, name.as_ref().into(), self.tail.clone()));

        let address = self.handshake(&process, &mut stdout).await?;
        let client = Client::new(connect(&address, &process).await?);
        Ok((process, stdout, client))
    }

    async fn handshake(
        &self,
        process: &Process,
        stdout: &mut ChildStdout,
    ) -> Result<Address, StartCause> {
        let deadline = Instant::now() + self.launch.start_limit;
        let mut line = FirstLine::new();
        let ended = process.ended();
        tokio::pin!(ended);
        let fate = tokio::select! {
            biased;
            end = line.read(stdout) => match end {
                Some(end) => return handshake::parse(&line.bytes[..end]).map_err(StartCause::Handshake),
                None => timeout(SETTLE, ended).await.ok(),
            },
            fate = &mut ended => {
                // What it printed before it ended may still be in the pipe, and a child of
                // it may hold the pipe open for ever.
                if let Ok(Some(end)) = timeout(SETTLE, line.read(stdout)).await
                    && let Err(error) = handshake::parse(&line.bytes[..end])
                {
                    return Err(StartCause::Handshake(error));
                }
                Some(fate)
            }
            () = tokio::time::sleep_until(deadline) => {
                process.kill();
                return Err(StartCause::Silent {
                    limit: self.launch.start_limit,
                    printed: failure::having_printed(&line.bytes),
                });
            }
        };
        let Some(fate) = fate else {
            process.kill();
            return Err(StartCause::ClosedStdout);
        };
        // The last words on stderr may come a moment after the end.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(failure::ended_early(&self.launch.binary, fate, &line.bytes, &self.tail.text()))
    }

    async fn init(
        &self,
        client: &Client,
        process: &Process,
        config: &[u8],
        settings: &Settings,
    ) -> Result<GroupInfo, StartCause> {
        let config = if config.trim_ascii().is_empty() { b"{}" } else { config };
        let mut connector = wire::connector_to_wire(&settings.connector);
        fill_times(&mut connector);
        let reply = match client.init(config.to_vec(), connector, self.launch.init_limit).await {
            Ok(reply) => reply,
            Err(CallError::Deadline { limit, .. }) => {
                return Err(StartCause::SilentInInit { limit });
            }
            Err(CallError::Gone { .. }) => {
                let fate = timeout(SETTLE, process.ended()).await.unwrap_or(Fate::Signaled(9));
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Err(StartCause::CrashedInInit { how: failure::how(fate) });
            }
            Err(CallError::Refused { message, .. }) => return Err(StartCause::Init { message }),
            Err(error @ CallError::Unsupported { .. }) => {
                return Err(StartCause::Init { message: error.to_string() });
            }
        };
        if reply.max_size == 0 {
            return Err(StartCause::Answer {
                what: "max_size 0: it could never create an instance".into(),
            });
        }
        let mut info = GroupInfo::new(reply.id, reply.max_size);
        info.suspend_resume = reply.capabilities.iter().any(|name| name == wire::SUSPEND_RESUME);
        info.version = reply.version;
        info.build_info = reply.build_info;
        Ok(info)
    }
}

/// What the operator left open and a stock host fills in.
pub(super) fn fill_times(connector: &mut fleeting::ConnectorConfig) {
    if connector.keepalive == 0 {
        connector.keepalive = DEFAULT_KEEPALIVE.as_nanos() as i64;
    }
    if connector.timeout == 0 {
        connector.timeout = DEFAULT_TIMEOUT.as_nanos() as i64;
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects once. The channel gets this one connection and, when that is lost, none: a
/// new one could reach whatever listens there by then, without `Init`.
async fn connect(address: &Address, process: &Process) -> Result<Channel, StartCause> {
    let stream: Box<dyn Stream> = match address {
        Address::Unix(path) => Box::new(connect_unix(Path::new(path), process).await?),
        Address::Tcp(addr) => Box::new(connect_tcp(addr).await?),
    };
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("the connection to the plugin is lost"))
        }
    });
    Ok(Endpoint::from_static("http://unused").connect_with_connector_lazy(connector))
}

/// The socket must be in the directory made for it, and be served by our own user from
/// the plugin's own process group: a path check alone would follow a symlink.
async fn connect_unix(path: &Path, process: &Process) -> Result<UnixStream, StartCause> {
    let refuse = |why: String| StartCause::Address { address: path.display().to_string(), why };
    if path.parent() != Some(process.directory()) {
        return Err(refuse(format!("it is not in {}", process.directory().display())));
    }
    let stream = UnixStream::connect(path).await.map_err(|error| refuse(error.to_string()))?;
    let peer = stream.peer_cred().map_err(|error| refuse(error.to_string()))?;
    if peer.uid() != geteuid().as_raw() {
        return Err(refuse(format!("it is served by user {}, not by this one", peer.uid())));
    }
    let group = peer.pid().and_then(Pid::from_raw).and_then(|pid| getpgid(Some(pid)).ok());
    if group != Some(process.group()) {
        return Err(refuse("it is served by a process outside the plugin's group".into()));
    }
    Ok(stream)
}

async fn connect_tcp(addr: &str) -> Result<TcpStream, StartCause> {
    let refuse = |why: String| StartCause::Address { address: addr.to_owned(), why };
    let socket: std::net::SocketAddr =
        addr.parse().map_err(|_| refuse("it is no IP address with a port".into()))?;
    if !socket.ip().is_loopback() {
        return Err(refuse("plaintext is spoken over loopback only".into()));
    }
    let stream = TcpStream::connect(socket).await.map_err(|error| refuse(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| refuse(error.to_string()))?;
    Ok(stream)
}
