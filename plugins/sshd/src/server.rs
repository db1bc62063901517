//! Listening: limits on connections, settings of the protocol.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::login_deadline::{LoggedIn, LoginDeadline, Logins};

/// Connections that have not logged in: as many as a crowd of managers needs, too few to
/// tie the server up.
const LOGINS: usize = 32;
/// Time to log in.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// A client that is gone is noticed after four of these.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Pause after a failed `accept`, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An SSH server for one user. All commands run as the user of this process. No `Debug`:
/// it holds a private key.
#[derive(Clone)]
pub struct Server {
    /// The host key in OpenSSH's PEM format, not encrypted.
    pub host_key: String,
    /// The only name that may log in.
    pub user: String,
    /// Lines in the format of `authorized_keys` that always count.
    pub trusted_keys: Vec<String>,
    /// Files in that format, read anew at each login; missing ones are empty.
    pub authorized_keys: Vec<PathBuf>,
    /// The whole environment of commands. Clients may add locale and terminal.
    pub environment: Vec<(String, String)>,
    /// The directory that commands start in.
    pub home: PathBuf,
    /// The shell that runs commands with `-c`, and plain shell requests as a login shell.
    pub shell: PathBuf,
    /// Open channels per connection; further ones are refused.
    pub max_channels: usize,
}

/// Why the server cannot start, or a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key in the configuration is not usable.
    #[error("cannot use the key: {0}")]
    Key(String),
}

impl From<russh::keys::ssh_key::Error> for Error {
    fn from(error: russh::keys::ssh_key::Error) -> Self {
        Self::Key(error.to_string())
    }
}

impl Server {
    /// Serves clients of `listener` until `shutdown` resolves. Needs a tokio runtime with
    /// time and IO; a current-thread one is enough. Commands outlive the server.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let config = Arc::new(protocol(&self.host_key)?);
        let server = Arc::new(self);
        let mut logins = Logins::new(LOGINS, LOGIN_LIMIT);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "cannot switch off Nagle's algorithm");
                        }
                        let logged_in = LoggedIn::default();
                        let stream = logins.admit(stream, logged_in.clone());
                        let connection = Connection::new(Arc::clone(&server), logged_in);
                        connections.spawn(attend(Arc::clone(&config), stream, connection));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

/// Serves one connection to its end.
async fn attend(config: Arc<Config>, stream: LoginDeadline, connection: Connection) {
    let ended = match russh::server::run_stream(config, stream, connection).await {
        Ok(session) => session.await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn protocol(host_key: &str) -> Result<Config, Error> {
    let key = PrivateKey::from_openssh(host_key)?;
    Ok(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-Mayfly_",
            env!("CARGO_PKG_VERSION")
        ))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // There is one user and no password: the time of a refusal tells nothing.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        // A waiting agent is silent for hours.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        preferred: Preferred {
            // AES-GCM costs the client two thirds of what ChaCha20 does.
            cipher: Cow::Borrowed(&[
                cipher::AES_256_GCM,
                cipher::AES_128_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            ..Preferred::default()
        },
        ..Config::default()
    })
}
