//! What a provider does, in types of our own.
//!
//! Partial success is a return value, never an error: gRPC drops the reply when a call
//! fails, so a provider that made 3 of 5 instances answers 3 and logs why.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use crate::BuildInfo;

/// One set of instances at one provider, as a plugin drives it.
///
/// Calls may run concurrently. Only `init` is certain to come first; it comes once.
/// No call may wait for an instance to boot: `update` shows how it goes on.
pub trait InstanceGroup: Send + Sync + 'static {
    /// The plugin's `plugin_config` table; unknown keys are ignored with a warning.
    type Config: DeserializeOwned + Send;

    /// Name and version of the plugin; use [`build_info!`](crate::build_info).
    const BUILD: BuildInfo;

    /// Takes the configuration and checks that the provider can be reached with it.
    fn init(
        &self,
        config: Self::Config,
        settings: Settings,
    ) -> impl Future<Output = Result<GroupInfo, Error>> + Send;

    /// Lists every instance that this group has now. A partial list is an error.
    fn update(&self) -> impl Future<Output = Result<Vec<InstanceStatus>, Error>> + Send;

    /// Starts to create `n` instances and returns how many were accepted.
    fn increase(&self, n: u32) -> impl Future<Output = Result<u32, Error>> + Send;

    /// Starts to delete these instances and returns those accepted. An instance that
    /// is already gone counts as accepted.
    fn decrease(
        &self,
        instances: Vec<String>,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// How to connect to one instance. `settings` of `init` win over what the provider
    /// knows; the rest is filled in here.
    fn connect_info(
        &self,
        instance: String,
    ) -> impl Future<Output = Result<ConnectInfo, Error>> + Send;

    /// Ok if the instance is fit for work; [`Error::unhealthy`] if not, or if there is no
    /// such instance. A provider that cannot tell leaves it out: hosts take that for healthy.
    fn heartbeat(&self, _instance: String) -> impl Future<Output = Result<(), Error>> + Send {
        async { Err(Error::unsupported("heartbeat")) }
    }

    /// Starts to suspend these instances. Only called if [`GroupInfo::suspend_resume`].
    fn suspend(
        &self,
        _instances: Vec<String>,
    ) -> impl Future<Output = Result<Partial, Error>> + Send {
        async { Err(Error::unsupported("suspend")) }
    }

    /// Starts to resume these instances. Only called if [`GroupInfo::suspend_resume`].
    fn resume(
        &self,
        _instances: Vec<String>,
    ) -> impl Future<Output = Result<Partial, Error>> + Send {
        async { Err(Error::unsupported("resume")) }
    }

    /// Releases clients and temporary files. Instances stay.
    fn shutdown(&self) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }
}

/// What the operator's configuration says about connections, given to `init`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// The operator's `connector_config`; unset parts are for the plugin to fill.
    pub connector: ConnectorConfig,
}

/// How to log in to an instance. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// `linux`, `darwin`, `windows`, …; empty when unknown.
    pub os: String,
    /// Architecture in Go's words (`amd64`, `arm64`, …); empty when unknown.
    pub arch: String,
    /// `None` when unknown: SSH, or WinRM where `os` is `windows`.
    pub protocol: Option<Protocol>,
    /// The protocol's own port when `None`.
    pub protocol_port: Option<u16>,
    /// User to log in as.
    pub username: String,
    /// Password; empty when a key is used.
    pub password: String,
    /// Private key as PEM text; empty when a password is used.
    pub key: Vec<u8>,
    /// The operator forbids the plugin to make credentials of its own.
    pub use_static_credentials: bool,
    /// Interval between keepalive messages; zero when unset.
    pub keepalive: Duration,
    /// Time within which a connection must stand; zero when unset.
    pub timeout: Duration,
}

impl fmt::Debug for ConnectorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |set: bool| if set { "set" } else { "unset" };
        f.debug_struct("ConnectorConfig")
            .field("os", &self.os)
            .field("arch", &self.arch)
            .field("protocol", &self.protocol)
            .field("protocol_port", &self.protocol_port)
            .field("username", &self.username)
            .field("password", &shown(!self.password.is_empty()))
            .field("key", &shown(!self.key.is_empty()))
            .field("use_static_credentials", &self.use_static_credentials)
            .field("keepalive", &self.keepalive)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// A way to run commands on an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// SSH, port 22.
    Ssh,
    /// WinRM over HTTP, port 5985.
    WinRm,
    /// WinRM over HTTPS, port 5986.
    WinRmHttps,
}

impl Protocol {
    /// The word that the wire and GitLab's configuration use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::WinRm => "winrm",
            Self::WinRmHttps => "winrm+https",
        }
    }

    /// Reads the word; the empty word is `Ok(None)`, an unknown one an error.
    pub fn parse(word: &str) -> Result<Option<Self>, Error> {
        match word {
            "" => Ok(None),
            "ssh" => Ok(Some(Self::Ssh)),
            "winrm" => Ok(Some(Self::WinRm)),
            "winrm+https" => Ok(Some(Self::WinRmHttps)),
            other => Err(Error::new(format!(
                "invalid protocol {other:?}: must be either winrm, ssh, or winrm+https"
            ))),
        }
    }
}

/// What `init` tells about the group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Stable identity of the group, such as `aws/eu-west-1/runners`.
    pub id: String,
    /// The most instances that the group may ever have, at least 1.
    pub max_size: u32,
    /// Whether `suspend` and `resume` work.
    pub suspend_resume: bool,
    /// The plugin's version. `serve` fills it from [`InstanceGroup::BUILD`].
    pub version: String,
    /// How the plugin was built. `serve` fills it from [`InstanceGroup::BUILD`].
    pub build_info: String,
}

impl GroupInfo {
    /// A group that cannot suspend.
    pub fn new(id: impl Into<String>, max_size: u32) -> Self {
        Self {
            id: id.into(),
            max_size,
            suspend_resume: false,
            version: String::new(),
            build_info: String::new(),
        }
    }

    /// The same group, able to suspend and resume.
    #[must_use]
    pub fn with_suspend_resume(mut self) -> Self {
        self.suspend_resume = true;
        self
    }
}

/// One instance and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// The provider's id of the instance, never empty.
    pub id: String,
    /// Where it stands.
    pub state: InstanceState,
}

impl InstanceStatus {
    /// Pairs an id with a state.
    pub fn new(id: impl Into<String>, state: InstanceState) -> Self {
        Self { id: id.into(), state }
    }
}

/// The states of the fleeting protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceState {
    /// Asked for, not usable yet.
    Creating,
    /// Usable.
    Running,
    /// On its way out.
    Deleting,
    /// Gone. Some plugins repeat it for ever.
    Deleted,
    /// Terminal: the provider gave up on it, though the machine may still exist.
    Timeout,
    /// On its way to `Suspended`.
    Suspending,
    /// Stopped with its disk kept.
    Suspended,
    /// On its way back to `Running`.
    Resuming,
    /// A number from a newer protocol: in transition, as far as this side knows.
    Unknown(i32),
}

/// Credentials and addresses of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectInfo {
    /// How to log in. Keepalive and timeout must be those of the settings.
    pub connector: ConnectorConfig,
    /// Address from outside the provider's network, `host` or `host:port`; may be empty.
    pub external_addr: String,
    /// Address inside the provider's network, `host` or `host:port`; may be empty.
    pub internal_addr: String,
    /// When the credentials end; `None` is never.
    pub expires: Option<SystemTime>,
}

impl ConnectInfo {
    /// Credentials without an address yet.
    pub fn new(connector: ConnectorConfig) -> Self {
        Self { connector, ..Self::default() }
    }

    /// The same with the address inside the provider's network.
    #[must_use]
    pub fn internal(mut self, addr: impl Into<String>) -> Self {
        self.internal_addr = addr.into();
        self
    }

    /// The same with the address from outside.
    #[must_use]
    pub fn external(mut self, addr: impl Into<String>) -> Self {
        self.external_addr = addr.into();
        self
    }

    /// The same with credentials that end.
    #[must_use]
    pub fn expires(mut self, at: SystemTime) -> Self {
        self.expires = Some(at);
        self
    }
}

/// What a suspend or resume call achieved, and what stopped the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// Instances that were accepted.
    pub succeeded: Vec<String>,
    /// Why the others were not.
    pub error: Option<String>,
}

/// Why a call failed as a whole: one readable line without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    unsupported: bool,
}

impl Error {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), unsupported: false }
    }

    /// The call is not offered at all (gRPC `Unimplemented`).
    pub fn unsupported(call: &str) -> Self {
        Self { message: format!("{call} is not supported by this plugin"), unsupported: true }
    }

    /// The answer of `heartbeat` for an instance that is not fit for work, with the
    /// text that stock hosts know.
    pub fn unhealthy() -> Self {
        Self::new("instance is unhealthy")
    }

    /// Whether the call is not offered at all.
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let connector = ConnectorConfig {
            password: "hunter2".into(),
            key: b"PRIVATE".to_vec(),
            ..ConnectorConfig::default()
        };
        let shown = format!("{:?}", ConnectInfo::new(connector));
        assert!(!shown.contains("hunter2") && !shown.contains("80, 82"), "{shown}");
    }

    #[test]
    fn protocol_words_round_trip() {
        for protocol in [Protocol::Ssh, Protocol::WinRm, Protocol::WinRmHttps] {
            assert_eq!(Protocol::parse(protocol.as_str()), Ok(Some(protocol)));
        }
        assert_eq!(Protocol::parse(""), Ok(None));
        assert!(Protocol::parse("telnet").is_err());
    }
}
