//! The Docker daemon's Engine API, over its unix socket.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use job::place::default_docker_socket;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A daemon under load takes seconds for what takes milliseconds.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// Most of an answer that is read: lists and inspections are some kilobytes.
const LONGEST_ANSWER: usize = 8 * 1024 * 1024;
/// What of an error's text is shown.
const SHOWN: usize = 2_000;

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It does not listen, or not to us.
    #[error("{0}")]
    Unreachable(String),
    /// It said no.
    #[error("{message}")]
    Refused {
        /// Of HTTP.
        status: StatusCode,
        /// The daemon's words.
        message: String,
    },
    /// It did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The connection ended in the middle, or what came makes no sense.
    #[error("the connection to the Docker daemon broke: {0}")]
    Broken(String),
}

impl Fault {
    pub(super) fn is(&self, code: StatusCode) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == code)
    }
}

/// What to ask of the daemon.
pub(super) struct Ask<'a> {
    method: Method,
    path: &'a str,
    body: Option<&'a Value>,
    registry_auth: Option<&'a str>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, registry_auth: None }
    }

    pub(super) fn post(path: &'a str, body: &'a Value) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path) }
    }

    pub(super) fn order(path: &'a str) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }

    pub(super) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// With the login for a registry.
    pub(super) fn logged_in(self, auth: Option<&'a str>) -> Self {
        Self { registry_auth: auth, ..self }
    }
}

/// The daemon. Each call has a connection of its own: a unix socket costs nothing.
#[derive(Clone)]
pub(super) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// As in `DOCKER_HOST`; an empty one is that of this instance's environment.
    pub(super) fn of(host: &str) -> Result<Self, Fault> {
        let own = std::env::var("DOCKER_HOST").unwrap_or_default();
        let host = if host.is_empty() { own.as_str() } else { host };
        match host.strip_prefix("unix://") {
            Some(path) => Ok(Self { socket: path.into() }),
            None if host.is_empty() => Ok(Self { socket: default_docker_socket() }),
            None => Err(Fault::Unreachable(format!("{host}: only unix:// is supported"))),
        }
    }

    /// Asks, and reads the whole answer; `Null` where there is none.
    pub(super) async fn call(&self, ask: Ask<'_>) -> Result<Value, Fault> {
        self.call_within(ask, CALL_LIMIT).await
    }

    pub(super) async fn call_within(&self, ask: Ask<'_>, limit: Duration) -> Result<Value, Fault> {
        let exchange = async {
            let response = self.send(ask, false).await?;
            let text = read(response.into_body()).await?;
            Ok(serde_json::from_slice(&text).unwrap_or(Value::Null))
        };
        timeout(limit, exchange).await.unwrap_or(Err(Fault::Late(limit)))
    }

    /// Asks, and leaves the answer to be read.
    pub(super) async fn stream(&self, ask: Ask<'_>) -> Result<Incoming, Fault> {
        self.send(ask, false).await.map(Response::into_body)
    }

    /// Asks for the connection itself: the bytes of a container.
    pub(super) async fn hijack(
        &self,
        ask: Ask<'_>,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, Fault> {
        let response = self.send(ask, true).await?;
        let upgraded = hyper::upgrade::on(response).await;
        upgraded.map(TokioIo::new).map_err(|error| Fault::Broken(error.to_string()))
    }

    async fn send(&self, ask: Ask<'_>, upgrade: bool) -> Result<Response<Incoming>, Fault> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| Fault::Broken(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let mut request =
            Request::builder().method(ask.method).uri(ask.path).header(HOST, "docker");
        if upgrade {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        if let Some(auth) = ask.registry_auth {
            request = request.header(HeaderName::from_static("x-registry-auth"), auth);
        }
        let body = ask.body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Fault::Broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        // Nothing was to be done.
        if status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let text = read(response.into_body()).await?;
        let message = serde_json::from_slice::<Value>(&text)
            .ok()
            .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| format!("HTTP {status}"));
        Err(Fault::Refused { status, message: shown(&message) })
    }

    fn unreachable(&self, error: &std::io::Error) -> Fault {
        let (socket, user) = (self.socket.display(), user_name());
        Fault::Unreachable(match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "no Docker daemon listens at {socket}: install Docker on the instance, or start it"
            ),
            std::io::ErrorKind::PermissionDenied => format!(
                "user {user} may not use {socket}: add the user to the group of the socket \
                 (usermod -aG docker {user})"
            ),
            std::io::ErrorKind::ConnectionRefused => format!(
                "no Docker daemon answers at {socket}, although its socket is there: it has \
                 ended (systemctl status docker)"
            ),
            _ => format!("{socket}: {error}"),
        })
    }
}

fn user_name() -> String {
    let own = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_id = |line: &&str| line.split(':').nth(2) == Some(&own.to_string());
    let name = passwd.lines().find(of_id).and_then(|line| line.split(':').next());
    name.map_or_else(|| own.to_string(), str::to_owned)
}

/// The whole answer.
pub(super) async fn read(mut body: Incoming) -> Result<Vec<u8>, Fault> {
    let mut text = Vec::new();
    while let Some(chunk) = next(&mut body).await? {
        text.extend_from_slice(&chunk);
        if text.len() > LONGEST_ANSWER {
            return Err(Fault::Broken("the answer is too long".into()));
        }
    }
    Ok(text)
}

/// The next piece of an answer; `None` at its end.
pub(super) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Fault> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(Fault::Broken(error.to_string())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A stranger's words, in one piece and not too many.
pub(super) fn shown(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// `text` as a part of a path or query.
pub(super) fn escape(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = text.bytes().map(|byte| match keep(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    escaped.collect()
}
