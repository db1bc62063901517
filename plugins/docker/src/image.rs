//! The image of the group: its name taken apart, who fetches it, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::config::{Options, Pull, RegistryLogin};
use crate::daemon::Daemon;

const DOCKER_HUB: &str = "docker.io";
/// How Docker's own files name its hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// So long a failed pull is not tried again: registries count attempts.
const FAILURE_MEMORY: Duration = Duration::from_secs(30);

/// A name of an image, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    repository: String,
    /// Tag or digest.
    version: String,
    registry: String,
}

impl Reference {
    pub(crate) fn parse(image: &str) -> Self {
        let (repository, version) = match image.split_once('@') {
            Some((name, digest)) => (without_tag(name).0, digest),
            None => {
                let (repository, tag) = without_tag(image);
                (repository, tag.unwrap_or("latest"))
            }
        };
        let first = repository.split('/').next().unwrap_or_default();
        // A first part that could be a host name is one, as everywhere in Docker.
        let is_host =
            repository.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        let registry = if is_host { first } else { DOCKER_HUB };
        Self {
            repository: repository.to_owned(),
            version: version.to_owned(),
            registry: registry.to_owned(),
        }
    }

    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.version.contains(':') { '@' } else { ':' };
        write!(f, "{}{mark}{}", self.repository, self.version)
    }
}

fn without_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        // A colon before a slash is that of a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// What a registry is told. No `Debug`: it is a secret.
pub(crate) enum Login {
    Password { user: String, password: String },
    Token(String),
}

/// One image of one daemon.
pub(crate) struct Image {
    daemon: Arc<Daemon>,
    reference: Reference,
    pull: Pull,
    login: RegistryLogin,
    failed: Mutex<Option<(Instant, String)>>,
    /// Held by the one that pulls.
    pulling: tokio::sync::Mutex<()>,
}

/// The one pull that instances made together share.
#[derive(Default)]
pub(crate) struct Batch(OnceCell<Result<(), String>>);

impl Image {
    pub(crate) fn new(daemon: Arc<Daemon>, options: &Options) -> Self {
        Self {
            daemon,
            reference: Reference::parse(&options.image),
            pull: options.pull,
            login: options.registry.clone(),
            failed: Mutex::new(None),
            pulling: tokio::sync::Mutex::default(),
        }
    }

    /// An error if instances cannot be made of it now. Fetches nothing.
    pub(crate) async fn check(&self) -> Result<(), String> {
        if self.pull != Pull::Always && self.is_there().await? {
            return Ok(());
        }
        if self.pull == Pull::Never {
            return Err(format!(
                "image {} is not on the Docker daemon at {}, and pull = \"never\": load it there, \
                 or write pull = \"if-not-present\"",
                self.reference,
                self.daemon.host()
            ));
        }
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, why)) if at.elapsed() < FAILURE_MEMORY => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Fetches it if need be, once for a batch. A pull goes on when nobody waits for it any
    /// more: begun anew each time, a slow one would never end.
    pub(crate) async fn ensure(self: &Arc<Self>, batch: &Batch) -> Result<(), String> {
        let image = Arc::clone(self);
        let pull = async {
            let pull = tokio::spawn(async move { image.fetch().await });
            pull.await.unwrap_or_else(|error| Err(error.to_string()))
        };
        batch.0.get_or_init(|| pull).await.clone()
    }

    async fn fetch(&self) -> Result<(), String> {
        let _one_at_a_time = self.pulling.lock().await;
        if self.pull == Pull::Never || (self.pull == Pull::IfNotPresent && self.is_there().await?) {
            return Ok(());
        }
        let image = self.reference.to_string();
        tracing::info!(image, "pulling the image");
        let pulled = match self.login() {
            Ok(login) => self
                .daemon
                .pull(&self.reference, login.as_ref())
                .await
                .map_err(|error| format!("{error}; check image, and registry_auth_file")),
            Err(error) => Err(error),
        };
        let failure = pulled.as_ref().err().map(|why| (Instant::now(), why.clone()));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        pulled
    }

    async fn is_there(&self) -> Result<bool, String> {
        self.daemon.has_image(&self.reference.to_string()).await.map_err(|error| error.to_string())
    }

    fn login(&self) -> Result<Option<Login>, String> {
        match &self.login {
            RegistryLogin::None => Ok(None),
            RegistryLogin::Password { user, password } => {
                Ok(Some(Login::Password { user: user.clone(), password: password.clone() }))
            }
            RegistryLogin::File(path) => from_file(path, self.reference.registry()),
        }
    }
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

/// A registry that the file does not have is asked without a login.
fn from_file(path: &Path, registry: &str) -> Result<Option<Login>, String> {
    let unusable = |why: String| format!("registry_auth_file {}: {why}", path.display());
    let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let file: AuthFile = serde_json::from_slice(&text)
        // The error's text could quote the file.
        .map_err(|_| unusable("must be JSON as `docker login` writes it".into()))?;
    let host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split('/').next().unwrap_or_default().to_owned()
    };
    let is_it =
        |key: &String| host(key) == registry || (registry == DOCKER_HUB && key == DOCKER_HUB_KEY);
    let Some((_, entry)) = file.auths.into_iter().find(|(key, _)| is_it(key)) else {
        return Ok(None);
    };
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Login::Token(entry.identitytoken)));
    }
    let decoded = STANDARD.decode(&entry.auth).ok().and_then(|raw| String::from_utf8(raw).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => {
            Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }))
        }
        None => Err(unusable(format!(
            "has no password for {registry}: credential helpers are not supported, write the file \
             by hand"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_docker_does() {
        for (image, repository, version, registry) in [
            ("debian", "debian", "latest", "docker.io"),
            ("debian:13", "debian", "13", "docker.io"),
            ("me/x:1", "me/x", "1", "docker.io"),
            ("localhost/x", "localhost/x", "latest", "localhost"),
            ("reg:5000/x", "reg:5000/x", "latest", "reg:5000"),
            ("reg.io/a/b:c", "reg.io/a/b", "c", "reg.io"),
            ("reg.io/a:c@sha256:0f", "reg.io/a", "sha256:0f", "reg.io"),
        ] {
            let parsed = Reference::parse(image);
            assert_eq!(parsed.repository(), repository, "{image}");
            assert_eq!(parsed.version(), version, "{image}");
            assert_eq!(parsed.registry(), registry, "{image}");
        }
        assert_eq!(Reference::parse("x@sha256:0f").to_string(), "x@sha256:0f");
        assert_eq!(Reference::parse("x").to_string(), "x:latest");
    }

    #[test]
    fn logins_are_found_in_docker_s_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.json");
        let text = format!(
            r#"{{"auths": {{"{DOCKER_HUB_KEY}": {{"auth": "{}"}},
                "https://reg:5000": {{"identitytoken": "t"}}, "helped.io": {{}}}}}}"#,
            STANDARD.encode("me:pass:word")
        );
        std::fs::write(&path, text).expect("written");
        let hub = from_file(&path, "docker.io");
        assert!(matches!(hub, Ok(Some(Login::Password { user, password }))
            if user == "me" && password == "pass:word"));
        assert!(matches!(from_file(&path, "reg:5000"), Ok(Some(Login::Token(t))) if t == "t"));
        assert!(matches!(from_file(&path, "other"), Ok(None)));
        let refused = from_file(&path, "helped.io").err().expect("no password");
        assert!(refused.contains("credential helpers"), "{refused}");
        assert!(from_file(&dir.path().join("none"), "x").is_err());
    }
}
