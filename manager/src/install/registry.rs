//! One registry, spoken to by HTTP: authentication, redirects, and bounds on everything.
//!
//! Credentials go to the registry itself and to the token server that it names; no
//! redirect takes them along. Plain http is for this machine only.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::auth::{Credentials, is_docker_hub};
use super::challenge::Challenge;
use crate::secret::Secret;

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Between two pieces of an answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// A whole layer.
const TRANSFER_LIMIT: Duration = Duration::from_secs(30 * 60);
const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN_BYTES: u64 = 1024 * 1024;

/// Why a registry gives nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// The way to it, or a passing trouble of its own.
    #[error("{host}: {why}")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What was seen.
        why: String,
    },
    /// It has no such thing.
    #[error("{host} has no {what}; is the name right, and may these credentials see it?")]
    NotFound {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
    },
    /// It wants to know who asks.
    #[error("{0} wants credentials; `mayfly fleeting login {0}` stores them")]
    LoginNeeded(String),
    /// It does not take the credentials.
    #[error(
        "{host} does not accept the credentials of {user:?} ({status}); `mayfly fleeting login {host}` stores others"
    )]
    Denied {
        /// Who was asked.
        host: String,
        /// Whose.
        user: String,
        /// Its answer.
        status: StatusCode,
    },
    /// What it answers will not be better next time.
    #[error("{host}: {why}")]
    Refused {
        /// Who was asked.
        host: String,
        /// What was seen.
        why: String,
    },
    /// Stored credentials that cannot be read or kept.
    #[error("{0}")]
    Credentials(String),
}

impl RegistryError {
    /// Whether another attempt may do better.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A registry, and who asks it.
pub(crate) struct Registry {
    http: reqwest::Client,
    /// As it is named in references.
    host: String,
    base: Url,
    credentials: Option<Credentials>,
    /// What the last challenge led to.
    authorization: Option<HeaderValue>,
}

impl Registry {
    /// Finds out how the registry speaks. `ca_certificates` are trusted beside the
    /// system's, as PEM.
    pub(crate) async fn connect(
        host: &str,
        ca_certificates: &[u8],
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        let refused = |why: String| RegistryError::Refused { host: host.into(), why };
        let mut builder = reqwest::Client::builder()
            .user_agent(crate::USER_AGENT)
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .timeout(TRANSFER_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            // A digest is of the bytes as they are.
            .gzip(false);
        let is_here = is_loopback(host);
        if is_here {
            builder = builder.no_proxy();
        }
        let builder = crate::trust::apply(builder, ca_certificates)
            .map_err(|error| refused(error.to_string()))?;
        let http = builder.build().map_err(|error| refused(text(&error)))?;
        let name = if is_docker_hub(host) { "registry-1.docker.io" } else { host };
        let base = |scheme: &str| {
            Url::parse(&format!("{scheme}://{name}/v2/"))
                .map_err(|error| refused(error.to_string()))
        };
        let mut base_url = base("https")?;
        if is_here && let Err(error) = http.get(base_url.clone()).send().await {
            let plain = base("http")?;
            let answer = http.get(plain.clone()).send().await;
            // One that speaks TLS, with a certificate that is not trusted, answers this.
            if answer.is_ok_and(|answer| answer.status() != StatusCode::BAD_REQUEST) {
                base_url = plain;
            } else {
                return Err(RegistryError::Unreachable { host: host.into(), why: text(&error) });
            }
        }
        Ok(Self { http, host: host.into(), base: base_url, credentials, authorization: None })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the registry takes the credentials.
    pub(crate) async fn check_credentials(&mut self) -> Result<(), RegistryError> {
        self.get("", "*/*", "API").await.map(drop)
    }

    /// Asks for something below `/v2/`; `what` names it for people.
    pub(super) async fn get(
        &mut self,
        path: &str,
        accept: &str,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let url = self.base.join(path).map_err(|error| self.refused(error.to_string()))?;
        let response = self.follow(url.clone(), accept).await?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED => {
                self.authorize(&response).await?;
                self.follow(url, accept).await?
            }
            _ => response,
        };
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => {
                Err(RegistryError::NotFound { host: self.host.clone(), what: what.into() })
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(self.denied(status)),
            status => Err(self.unexpected(status, what)),
        }
    }

    /// One request, and those that it is redirected to.
    async fn follow(&self, mut url: Url, accept: &str) -> Result<Response, RegistryError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request =
                self.http.request(Method::GET, url.clone()).header(header::ACCEPT, accept);
            if let Some(authorization) = &self.authorization
                && url.origin() == self.base.origin()
            {
                request = request.header(header::AUTHORIZATION, authorization.clone());
            }
            let response = self.send(request, &url).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let Some(next) = next else {
                return Err(self.refused("it redirects to nowhere".into()));
            };
            self.check_scheme(&next, "redirects to")?;
            url = next;
        }
        Err(self.refused(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Response, RegistryError> {
        request.send().await.map_err(|error| RegistryError::Unreachable {
            host: url.host_str().unwrap_or_default().into(),
            why: text(&error),
        })
    }

    /// Does what a 401 asks for.
    async fn authorize(&mut self, response: &Response) -> Result<(), RegistryError> {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = Challenge::of(headers.filter_map(|value| value.to_str().ok()));
        let value = match (challenge, &self.credentials) {
            (Some(Challenge::Basic), Some(credentials)) if self.authorization.is_none() => {
                basic(credentials)
            }
            (Some(Challenge::Basic), Some(_)) => return Err(self.denied(response.status())),
            (Some(Challenge::Basic), None) => {
                return Err(RegistryError::LoginNeeded(self.host.clone()));
            }
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let token = self.token(&realm, service.as_deref(), scope.as_deref()).await?;
                Secret::new(format!("Bearer {}", token.reveal()))
            }
            (None, _) => {
                return Err(self.refused("it asks for an authentication that is not known".into()));
            }
        };
        let value = HeaderValue::from_str(value.reveal());
        let mut value = value.map_err(|_| self.refused("its token is no text".into()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(())
    }

    /// Asks the token server that the registry named.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Secret, RegistryError> {
        let mut url = Url::parse(realm)
            .map_err(|_| self.refused("the address of its token server is none".into()))?;
        self.check_scheme(&url, "has its tokens from")?;
        let scopes = scope.into_iter().flat_map(str::split_whitespace);
        let mut parameters: Vec<(&str, &str)> = scopes.map(|scope| ("scope", scope)).collect();
        parameters.extend(service.map(|service| ("service", service)));
        let request = match &self.credentials {
            Some(credentials) if credentials.is_identity_token => {
                let mut form =
                    Url::parse("http://form").map_err(|e| self.refused(e.to_string()))?;
                form.query_pairs_mut()
                    .extend_pairs(&parameters)
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "mayfly")
                    .append_pair("refresh_token", credentials.password.reveal());
                let form = form.query().unwrap_or_default().to_owned();
                let kind = "application/x-www-form-urlencoded";
                self.http.post(url.clone()).header(header::CONTENT_TYPE, kind).body(form)
            }
            credentials => {
                url.query_pairs_mut().extend_pairs(&parameters);
                let request = self.http.get(url.clone());
                match credentials {
                    Some(credentials) => {
                        request.header(header::AUTHORIZATION, self.sensitive(&basic(credentials))?)
                    }
                    None => request,
                }
            }
        };
        let response = self.send(request, &url).await?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(self.denied(status));
        }
        if !status.is_success() {
            return Err(self.unexpected(status, "token"));
        }
        let body = self.body(response, MAX_TOKEN_BYTES, "token").await?;
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str());
        let token = token.filter(|token| !token.is_empty());
        token.map(Secret::new).ok_or_else(|| self.refused("its token server gives no token".into()))
    }

    fn sensitive(&self, value: &Secret) -> Result<HeaderValue, RegistryError> {
        let value = HeaderValue::from_str(value.reveal());
        let mut value = value.map_err(|_| self.refused("the credentials are no text".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// A whole body, of at most so many bytes.
    pub(super) async fn body(
        &self,
        mut response: Response,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(self.refused(format!("the {what} is larger than {limit} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next bytes of a body.
    pub(super) async fn piece(
        &self,
        response: &mut Response,
    ) -> Result<Option<bytes::Bytes>, RegistryError> {
        let cut = |error: reqwest::Error| RegistryError::Unreachable {
            host: self.host.clone(),
            why: format!("the transfer was cut: {}", text(&error)),
        };
        response.chunk().await.map_err(cut)
    }

    /// Nothing goes in the open but on this machine, and not from TLS to there.
    fn check_scheme(&self, url: &Url, how: &str) -> Result<(), RegistryError> {
        let here = |url: &Url| url.host_str().is_some_and(is_loopback);
        let plain = url.scheme() == "http" && here(url) && self.base.scheme() == "http";
        if url.scheme() == "https" || plain {
            return Ok(());
        }
        let to = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        Err(self.refused(format!("it {how} {to}, which is not https")))
    }

    fn denied(&self, status: StatusCode) -> RegistryError {
        match &self.credentials {
            None => RegistryError::LoginNeeded(self.host.clone()),
            Some(credentials) => RegistryError::Denied {
                host: self.host.clone(),
                user: credentials.user.clone(),
                status,
            },
        }
    }

    fn unexpected(&self, status: StatusCode, what: &str) -> RegistryError {
        let why = format!("it answers {status} for its {what}");
        let host = self.host.clone();
        match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => RegistryError::Unreachable { host, why },
            false => RegistryError::Refused { host, why },
        }
    }

    fn refused(&self, why: String) -> RegistryError {
        RegistryError::Refused { host: self.host.clone(), why }
    }
}

fn basic(credentials: &Credentials) -> Secret {
    let both = format!("{}:{}", credentials.user, credentials.password.reveal());
    Secret::new(format!("Basic {}", STANDARD.encode(both)))
}

/// Whether a host, with a port or without, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    let address = name.parse::<std::net::Ipv4Addr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback()) || host == "[::1]"
}

/// An error with its causes, and without the address: that may hold a signature.
fn text(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time" } else { "no answer" }.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["localhost.tld", "127.0.0.1.tld", "128.0.0.1", "registry.gitlab.com:443", "10.0.0.1"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
