//! `--executor docker`: which daemon, whether it will do, what the engine is told of it, and
//! that nothing of the run stays there.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use job::compose::docker::{Docker, PullPolicy};
use job::place::default_docker_socket;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{Flags, with_causes};

/// The label of everything that a run makes.
const LABEL: &str = "mayfly.exec";
/// How long the daemon may take to say who it is.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// How long one call may take that removes a container.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// GitLab Runner's default of `wait_for_services_timeout`.
const WAIT_FOR_SERVICES: Duration = Duration::from_secs(30);

/// What the scripts of jobs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Executor {
    /// Processes of a local instance
    Instance,
    /// Containers of this machine's Docker
    Docker,
}

/// The daemon that a run has its containers on.
#[derive(Debug)]
pub(super) struct Containers {
    socket: PathBuf,
    /// Tells this run from others on the same daemon.
    run: String,
    image: String,
    http: reqwest::Client,
}

impl Containers {
    /// The daemon, once it has answered; `None` for a run without containers.
    ///
    /// # Errors
    /// What to tell the user.
    pub(super) async fn find(flags: &Flags) -> Result<Option<Self>, String> {
        if flags.executor == Executor::Instance {
            return Ok(None);
        }
        let socket = match &flags.docker_host {
            Some(socket) => socket.clone(),
            None => socket_of_environment()?,
        };
        let http = reqwest::Client::builder().unix_socket(socket.as_path()).tls_certs_only([]);
        let http = http.build().map_err(|error| format!("cannot talk to Docker: {error}"))?;
        let run = format!("exec{:08x}", rand::random::<u32>());
        let image = flags.image.clone().unwrap_or_default();
        let containers = Self { socket, run, image, http };
        containers.check().await.map(|()| Some(containers))
    }

    /// The first characters of the runner's token, as far as names of containers are made of
    /// them: runs at the same time must not share any.
    pub(super) fn short_token(&self) -> &str {
        &self.run
    }

    /// The daemon as instances find it.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// What the engine is told.
    pub(super) fn options(&self) -> Docker {
        Docker {
            host: self.host(),
            image: self.image.clone(),
            // Runs are repeated; GitLab Runner's own `exec` had it the same.
            pull_policies: vec![PullPolicy::PullIfNotPresent],
            allowed_pull_policies: PullPolicy::ALL.to_vec(),
            wait_for_services: WAIT_FOR_SERVICES,
            labels: [(LABEL.to_owned(), self.run.clone())].into(),
            ..Docker::default()
        }
    }

    async fn check(&self) -> Result<(), String> {
        let socket = self.socket.display();
        UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "no Docker daemon listens at {socket}: start it, or name its socket with \
                 --docker-host unix:///PATH"
            ),
            std::io::ErrorKind::PermissionDenied => format!(
                "you may not use the Docker daemon at {socket}: become a member of the \
                 socket's group (usermod -aG docker $USER, then log in again)"
            ),
            std::io::ErrorKind::ConnectionRefused => format!(
                "no Docker daemon answers at {socket}, although its socket is there: start it \
                 (systemctl start docker)"
            ),
            _ => format!("the Docker daemon at {socket} cannot be reached: {error}"),
        })?;
        let version = self.http.get(address("/version", &[])?).timeout(CHECK_LIMIT).send();
        let version: Result<Value, _> = async { version.await?.json().await }.await;
        let version = version.map_err(|error| {
            let why = with_causes(&error.without_url());
            format!("what listens at {socket} does not answer like a Docker daemon: {why}")
        })?;
        match version["Os"].as_str() {
            Some("linux") => Ok(()),
            other => Err(format!(
                "the Docker daemon at {socket} runs containers of {}: only Linux is supported",
                other.unwrap_or("an unknown system")
            )),
        }
    }

    /// Removes what jobs left that were stopped at once: containers, then their networks.
    pub(super) async fn clear(&self) -> Result<(), String> {
        let filters = json!({ "label": [format!("{LABEL}={}", self.run)] }).to_string();
        let filters = ("filters", filters.as_str());
        for id in self.list("/containers/json", &[("all", "1"), filters]).await? {
            self.remove(&format!("/containers/{id}"), &[("force", "1"), ("v", "1")]).await?;
        }
        for id in self.list("/networks", &[filters]).await? {
            self.remove(&format!("/networks/{id}"), &[]).await?;
        }
        Ok(())
    }

    async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let answer = self.http.get(address(path, query)?).timeout(CHECK_LIMIT).send();
        let listed: Result<Value, _> = async { answer.await?.json().await }.await;
        let listed = listed.map_err(|error| with_causes(&error))?;
        let ids = listed.as_array().into_iter().flatten();
        Ok(ids.filter_map(|item| Some(item["Id"].as_str()?.to_owned())).collect())
    }

    /// What is gone already, or going, is no error.
    async fn remove(&self, path: &str, query: &[(&str, &str)]) -> Result<(), String> {
        let answer = self.http.delete(address(path, query)?).timeout(REMOVE_LIMIT).send().await;
        let status = answer.map_err(|error| with_causes(&error))?.status();
        match status.as_u16() {
            404 | 409 => Ok(()),
            _ if status.is_success() => Ok(()),
            _ => Err(format!("{path}: {status}")),
        }
    }
}

/// An address of the Engine API; the host's name is of no meaning there.
fn address(path: &str, query: &[(&str, &str)]) -> Result<reqwest::Url, String> {
    let address = format!("http://docker{path}");
    reqwest::Url::parse_with_params(&address, query).map_err(|error| format!("{path}: {error}"))
}

/// The socket of `DOCKER_HOST`, or of root's daemon, or of a rootless one.
fn socket_of_environment() -> Result<PathBuf, String> {
    match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => {
            parse_host(&host).map_err(|error| format!("DOCKER_HOST is {host:?}: {error}"))
        }
        _ => Ok(default_docker_socket()),
    }
}

/// The path of `unix:///path`.
pub(super) fn parse_host(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err("jobs need a daemon that sees this machine's files: write its socket as \
                  unix:///PATH"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_absolute_socket() {
        assert_eq!(parse_host("unix:///run/x.sock"), Ok("/run/x.sock".into()));
        for text in ["", "unix://", "unix://x", "/run/x.sock", "tcp://127.0.0.1:2375", "ssh://h"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }
}
