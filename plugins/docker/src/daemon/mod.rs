//! Talking to the Docker daemon: ten calls of its API over a unix socket or TLS.
//!
//! Every call has a deadline and names its step when it fails. What a daemon answers is
//! read into shapes of our own; nothing else knows its words. Deliberately absent:
//! retries, since hosts ask again.

mod containers;
mod images;
mod output;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Identity, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::{Address, Certificates};

pub(crate) use containers::{Container, Owned, State};

/// For calls that only look.
const LIMIT: Duration = Duration::from_secs(30);
/// For calls that move files or start processes, on a daemon with much to do.
const SLOW_LIMIT: Duration = Duration::from_secs(120);
/// The newest API that this code was written for; daemons speak older ones, too.
const API: (u32, u32) = (1, 47);
/// Older daemons lack what is used here.
const OLDEST_API: (u32, u32) = (1, 40);
/// The most that is kept of what a daemon answers to a look.
const ANSWER_LIMIT_BYTES: usize = 256 << 20;
const COMPLAINT_LIMIT_BYTES: usize = 2000;

/// Why a call failed, by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// Nobody there: may be over at the next call.
    #[error("cannot {step}: the Docker daemon at {host} cannot be reached: {cause}; {hint}")]
    Unreachable { step: String, host: String, cause: String, hint: &'static str },
    /// The thing that the call was about does not exist.
    #[error("cannot {step}: {message}")]
    Missing { step: String, message: String },
    /// The daemon says no.
    #[error("cannot {step}: {message}")]
    Refused { step: String, status: u16, message: String },
    /// The settings do not make a client.
    #[error("{0}")]
    Unusable(String),
}

impl From<DaemonError> for mayfly_plugin::Error {
    fn from(error: DaemonError) -> Self {
        Self::new(error.to_string())
    }
}

impl DaemonError {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// One daemon. Calls may run at the same time.
pub(crate) struct Daemon {
    client: reqwest::Client,
    base: String,
    host: String,
    /// The version in the path of calls, such as `/v1.41`.
    version: OnceLock<String>,
}

/// What a daemon says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct About {
    pub(crate) version: String,
    api_version: String,
    pub(crate) os: String,
    /// In Go's words.
    pub(crate) arch: String,
}

impl Daemon {
    /// A client; it connects when it is asked for something.
    pub(crate) fn new(
        address: &Address,
        certificates: Option<&Certificates>,
    ) -> Result<Self, DaemonError> {
        let mut client = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(LIMIT);
        let trusted = match certificates {
            None => Vec::new(),
            Some(certificates) => {
                let own = ["cert.pem", "key.pem"].map(|name| read_pem(&certificates.0, name));
                let [Ok(certificate), Ok(key)] = own else {
                    return Err(own.into_iter().find_map(Result::err).unwrap_or_else(|| {
                        DaemonError::Unusable("tls_certs: cannot be read".into())
                    }));
                };
                let both = [certificate, b"\n".to_vec(), key].concat();
                let identity = Identity::from_pem(&both)
                    .map_err(|error| unusable(&certificates.0, "key.pem", &error))?;
                client = client.identity(identity);
                Certificate::from_pem_bundle(&read_pem(&certificates.0, "ca.pem")?)
                    .map_err(|error| unusable(&certificates.0, "ca.pem", &error))?
            }
        };
        let base = match address {
            Address::Unix(path) => {
                client = client.unix_socket(path.as_path());
                "http://docker".to_owned()
            }
            tcp @ Address::Tcp { .. } => {
                let scheme = if certificates.is_some() { "https" } else { "http" };
                tcp.to_string().replacen("tcp", scheme, 1)
            }
        };
        let client = client
            .tls_certs_only(trusted)
            .build()
            .map_err(|error| DaemonError::Unusable(format!("tls_certs: {}", chain(&error))))?;
        Ok(Self { client, base, host: address.to_string(), version: OnceLock::new() })
    }

    /// Where it is, for people.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Asks who is there, and settles on a version of the API. Must come first.
    pub(crate) async fn meet(&self) -> Result<About, DaemonError> {
        let step = "ask the daemon for its version";
        let request = self.client.get(format!("{}/version", self.base)).timeout(LIMIT);
        let about: About = self.answer(step, request).await?;
        let theirs = parse_version(&about.api_version).unwrap_or_default();
        if theirs < OLDEST_API {
            return Err(DaemonError::Unusable(format!(
                "the Docker daemon at {} is too old: it speaks API {}, at least {}.{} is needed \
                 (Docker 19.03)",
                self.host, about.api_version, OLDEST_API.0, OLDEST_API.1
            )));
        }
        let (major, minor) = theirs.min(API);
        // A daemon that was replaced by another version still speaks this one.
        let _ = self.version.set(format!("/v{major}.{minor}"));
        Ok(about)
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let version = self.version.get().map_or("", String::as_str);
        self.client.request(method, format!("{}{version}{path}", self.base)).timeout(LIMIT)
    }

    /// Sends, and turns every answer but success into an error.
    async fn send(&self, step: &str, request: RequestBuilder) -> Result<Response, DaemonError> {
        let response = request.send().await.map_err(|error| self.unreachable(step, &error))?;
        let status = response.status();
        if status.is_success() || status == reqwest::StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = limited(response, COMPLAINT_LIMIT_BYTES).await.unwrap_or_default();
        let message = complaint(&body);
        let step = step.to_owned();
        Err(match status.as_u16() {
            404 => DaemonError::Missing { step, message },
            status => DaemonError::Refused { step, status, message },
        })
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        step: &str,
        request: RequestBuilder,
    ) -> Result<T, DaemonError> {
        let response = self.send(step, request).await?;
        let body = limited(response, ANSWER_LIMIT_BYTES)
            .await
            .map_err(|error| self.unreachable(step, &error))?;
        serde_json::from_slice(&body).map_err(|error| DaemonError::Refused {
            step: step.to_owned(),
            status: 200,
            message: format!("what answers at {} is no Docker daemon: {error}", self.host),
        })
    }

    fn unreachable(&self, step: &str, error: &reqwest::Error) -> DaemonError {
        let cause = chain(error);
        let hint = if error.is_timeout() {
            "it takes too long: see what it is doing"
        } else if cause.contains("ermission denied") {
            "let this user in (group docker), or set host"
        } else if cause.contains("certificate") {
            "check tls_certs and the name in host"
        } else {
            "is it running there? start it, or set host"
        };
        DaemonError::Unreachable { step: step.to_owned(), host: self.host.clone(), cause, hint }
    }
}

/// A body of at most so many bytes; what is beyond them is left out.
async fn limited(mut response: Response, limit: usize) -> Result<Bytes, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == limit {
            break;
        }
    }
    Ok(body.into())
}

/// What a daemon says is wrong, in one line.
fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        message: String,
    }
    let text = match serde_json::from_slice(body) {
        Ok(Complaint { message }) => message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error with its causes: reqwest's own texts stop before the point.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn read_pem(directory: &Path, name: &str) -> Result<Vec<u8>, DaemonError> {
    let path = directory.join(name);
    std::fs::read(&path).map_err(|error| {
        DaemonError::Unusable(format!("tls_certs: cannot read {}: {error}", path.display()))
    })
}

fn unusable(directory: &Path, name: &str, error: &reqwest::Error) -> DaemonError {
    let path = directory.join(name);
    DaemonError::Unusable(format!("tls_certs: cannot use {}: {}", path.display(), chain(error)))
}

/// A part of a path, so that no name can leave its place.
fn escape(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(byte.into());
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_place() {
        assert_eq!(escape("a-b_c.d"), "a-b_c.d");
        assert_eq!(escape("../x?y=1&z"), "..%2Fx%3Fy%3D1%26z");
    }

    #[test]
    fn complaints_are_one_line() {
        assert_eq!(complaint(br#"{"message":"no\n such  thing"}"#), "no such thing");
        assert_eq!(complaint(b"page not found\n"), "page not found");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_version("1.9") < parse_version("1.41"));
        assert_eq!(parse_version("nonsense"), None);
    }
}
