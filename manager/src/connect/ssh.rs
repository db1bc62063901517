//! SSH: dial, log in, run commands. Host keys are verified: pinned at first use, refused
//! when they change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mayfly_plugin::ConnectInfo;
use russh::client::{self, Handle, Msg};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, Disconnect, cipher};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command::{CommandOutput, collect};
use super::own_key::OwnKey;
use crate::secret::Secret;

/// A machine that is gone is noticed by the kernel, whose probes cost this process
/// nothing: after 5 + 3 × 2 s of silence, or 10 s after something was sent.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBES: u32 = 3;
const UNANSWERED_MILLIS: u32 = 10_000;
/// A server that hangs on a machine that lives is noticed after interval × (max + 1).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_MAX: usize = 2;
/// What is read from a connection at once.
const READ_BYTES: usize = 4096;
/// One attempt to connect, exchange keys and log in.
const DIAL_LIMIT: Duration = Duration::from_secs(20);
const SSH_PORT: u16 = 22;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nothing answers there (yet).
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What was seen.
        why: String,
    },
    /// It answers, but not as the machine that it was.
    #[error(
        "the host key of {address} changed since it was first seen: {now}; the instance is not trusted any more"
    )]
    HostKeyChanged {
        /// `host:port`.
        address: String,
        /// The key that it shows now.
        now: String,
    },
    /// It does not let us in (yet).
    #[error(
        "{address} does not accept the login of {user:?}; check user and key in connector_config, or what the plugin provides"
    )]
    LoginRefused {
        /// `host:port`.
        address: String,
        /// The user.
        user: String,
    },
    /// The plugin does not know where it is (yet).
    #[error("the plugin gives no address for the instance")]
    NoAddress,
    /// The plugin or the configuration gives no usable login.
    #[error("{0}")]
    NoLogin(String),
}

/// How to reach an instance and log in: as the plugin says, and with our own key.
#[derive(Clone)]
pub(crate) struct Access {
    host: String,
    port: u16,
    user: String,
    logins: Vec<Login>,
}

#[derive(Clone)]
enum Login {
    Key(Arc<PrivateKey>),
    Password(Secret),
}

impl Access {
    /// From what the plugin says; `own` is tried first where it was added before.
    pub(crate) fn new(
        info: &ConnectInfo,
        use_external_addr: bool,
        own: Option<&OwnKey>,
    ) -> Result<Self, DialError> {
        let connector = &info.connector;
        if !matches!(connector.protocol, None | Some(mayfly_plugin::Protocol::Ssh)) {
            return Err(DialError::NoLogin(
                "the plugin wants WinRM, which is not supported yet".into(),
            ));
        }
        let external =
            use_external_addr && !info.external_addr.is_empty() || info.internal_addr.is_empty();
        let address = if external { &info.external_addr } else { &info.internal_addr };
        if address.is_empty() {
            return Err(DialError::NoAddress);
        }
        let (host, port) = split_port(address, connector.protocol_port.unwrap_or(SSH_PORT));
        let mut logins: Vec<Login> = own.iter().map(|key| Login::Key(key.private())).collect();
        if connector.key.is_empty() {
            logins.push(Login::Password(Secret::new(connector.password.clone())));
        } else {
            logins.push(Login::Key(Arc::new(parse_key(&connector.key)?)));
        }
        if connector.username.is_empty() {
            return Err(DialError::NoLogin(
                "there is no user to log in as: set connector_config.username".into(),
            ));
        }
        Ok(Self { host, port, user: connector.username.clone(), logins })
    }

    /// To an instance that was prepared before: user, host and port of then.
    pub(crate) fn by_own_key((user, host, port): (String, String, u16), own: &OwnKey) -> Self {
        Self { host, port, user, logins: vec![Login::Key(own.private())] }
    }

    /// The same by another user, host and port.
    pub(crate) fn at(self, (user, host, port): (String, String, u16)) -> Self {
        Self { user, host, port, ..self }
    }

    /// User, host and port.
    pub(super) fn login(&self) -> (String, String, u16) {
        (self.user.clone(), self.host.clone(), self.port)
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Dials once. `pinned` is the host key that the instance had before, as text.
    pub(crate) async fn dial(&self, pinned: Option<&str>) -> Result<Session, DialError> {
        let unreachable = |why: String| DialError::Unreachable { address: self.address(), why };
        match timeout(DIAL_LIMIT, self.try_dial(pinned)).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!("no answer within {} s", DIAL_LIMIT.as_secs()))),
        }
    }

    async fn try_dial(&self, pinned: Option<&str>) -> Result<Session, DialError> {
        let unreachable = |why: String| DialError::Unreachable { address: self.address(), why };
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        tune(&stream).map_err(|error| unreachable(error.to_string()))?;
        // A packet is read in parts: without a buffer each costs a system call.
        let stream = BufReader::with_capacity(READ_BYTES, stream);
        let seen = SeenKey::default();
        let closed = CancellationToken::new();
        let verifier = Verifier {
            pinned: pinned.map(str::to_owned),
            seen: seen.clone(),
            _closes: closed.clone().drop_guard(),
        };
        let connected = client::connect_stream(Arc::new(config()), stream, verifier).await;
        let mut handle = match connected {
            Ok(handle) => handle,
            Err(error) => {
                let now = seen.get();
                return Err(match (pinned, now) {
                    (Some(pinned), Some(now)) if pinned != now => {
                        DialError::HostKeyChanged { address: self.address(), now }
                    }
                    _ => unreachable(error.to_string()),
                });
            }
        };
        for login in &self.logins {
            if login
                .try_on(&mut handle, &self.user)
                .await
                .map_err(|e| unreachable(e.to_string()))?
            {
                let host_key = seen.get().unwrap_or_default();
                return Ok(Session { handle, host_key, closed });
            }
        }
        Err(DialError::LoginRefused { address: self.address(), user: self.user.clone() })
    }
}

impl Login {
    async fn try_on(
        &self,
        handle: &mut Handle<Verifier>,
        user: &str,
    ) -> Result<bool, russh::Error> {
        let result = match self {
            Self::Key(key) => {
                let hash = match key.algorithm() {
                    russh::keys::Algorithm::Rsa { .. } => Some(HashAlg::Sha512),
                    _ => None,
                };
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                handle.authenticate_publickey(user, key).await?
            }
            Self::Password(password) => {
                handle.authenticate_password(user, password.reveal()).await?
            }
        };
        Ok(result.success())
    }
}

/// An open, authenticated connection. Dropping it disconnects.
pub(crate) struct Session {
    handle: Handle<Verifier>,
    /// The host's key as text, to be pinned.
    pub(crate) host_key: String,
    /// Cancelled when the connection ends, by whichever side or by silence.
    pub(crate) closed: CancellationToken,
}

impl Session {
    /// Runs a command to its end, with input.
    pub(crate) async fn run(
        &self,
        command: &str,
        stdin: impl Into<bytes::Bytes>,
        limit: Duration,
    ) -> Result<CommandOutput, String> {
        let run = async {
            let mut channel = self.open(command).await?;
            let stdin: bytes::Bytes = stdin.into();
            if !stdin.is_empty() {
                channel.data_bytes(stdin).await?;
            }
            channel.eof().await?;
            let output = collect(&mut channel).await;
            let _ = channel.close().await;
            Ok::<_, russh::Error>(output)
        };
        match timeout(limit, run).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no end within {} s", limit.as_secs())),
        }
    }

    /// Starts a command and leaves its channel to the caller.
    pub(crate) async fn open(&self, command: &str) -> Result<Channel<Msg>, russh::Error> {
        let channel = self.handle.channel_open_session().await?;
        channel.exec(false, command).await?;
        Ok(channel)
    }

    /// Whether the other side answers in time.
    pub(crate) async fn answers(&self, limit: Duration) -> bool {
        let pong = timeout(limit, self.handle.send_ping()).await;
        // A session that ends while it is asked answers, too.
        matches!(pong, Ok(Ok(()))) && !self.closed.is_cancelled()
    }

    pub(crate) async fn disconnect(&self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNANSWERED_MILLIS)?;
    Ok(())
}

fn config() -> client::Config {
    let mut preferred = russh::Preferred::DEFAULT;
    preferred.cipher = std::borrow::Cow::Borrowed(&[
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ]);
    client::Config {
        // Without it every exec waits for a delayed acknowledgement.
        nodelay: true,
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_MAX,
        inactivity_timeout: None,
        preferred,
        ..client::Config::default()
    }
}

/// The host key that was shown during a key exchange.
#[derive(Clone, Default)]
struct SeenKey(Arc<Mutex<Option<String>>>);

impl SeenKey {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lives as long as the session's task.
struct Verifier {
    pinned: Option<String>,
    seen: SeenKey,
    _closes: DropGuard,
}

impl client::Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let public = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                certificate.public_key().clone().into()
            }
        };
        let shown = public.to_openssh().unwrap_or_default();
        let shown: String = shown.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let trusted = self.pinned.as_ref().is_none_or(|pinned| *pinned == shown);
        *self.seen.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(trusted)
    }
}

fn parse_key(pem: &[u8]) -> Result<PrivateKey, DialError> {
    let text = std::str::from_utf8(pem)
        .map_err(|_| DialError::NoLogin("the private key is not text in PEM form".into()))?;
    russh::keys::decode_secret_key(text, None)
        .map_err(|error| DialError::NoLogin(format!("the private key cannot be read: {error}")))
}

/// `host:port`, `[v6]:port`, `host` or `v6`.
fn split_port(address: &str, default: u16) -> (String, u16) {
    if let Some(rest) = address.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        let port = after.strip_prefix(':').and_then(|port| port.parse().ok());
        return (host.to_owned(), port.unwrap_or(default));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host.to_owned(), port),
            Err(_) => (address.to_owned(), default),
        },
        _ => (address.to_owned(), default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_a_port() {
        let cases = [
            ("10.0.0.1", ("10.0.0.1", 22)),
            ("10.0.0.1:2222", ("10.0.0.1", 2222)),
            ("host.example:2222", ("host.example", 2222)),
            ("fe80::1", ("fe80::1", 22)),
            ("[fe80::1]:2222", ("fe80::1", 2222)),
            ("[fe80::1]", ("fe80::1", 22)),
        ];
        for (address, (host, port)) in cases {
            assert_eq!(split_port(address, 22), (host.to_owned(), port), "{address}");
        }
    }
}
