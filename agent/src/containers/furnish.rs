//! Makes what a job's scripts need: images, network, volumes, services, and the container.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use hyper::StatusCode;
use job::plan::Container;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::ahead::Ahead;
use super::daemon::Ask;
use super::images::is_out_of_room;
use super::{Job, Trouble, While as _, say, system_failure};

/// The job's container.
pub(super) const BUILD: &str = "build";
/// Its network.
pub(super) const NETWORK: &str = "network";

const NETWORK_TRIES: u32 = 5;
const NETWORK_PAUSE: Duration = Duration::from_millis(300);

/// How a container stands to the job's others.
#[derive(Default)]
pub(super) struct Ties {
    /// The network that it is in, where the job has one of its own.
    pub(super) network: Option<String>,
    /// Other containers, as `name:alias`.
    pub(super) links: Vec<String>,
    /// Its own names in a network of the job's own.
    pub(super) aliases: Vec<String>,
}

impl Job<'_> {
    /// `ahead` was made for a job like this one. What could not be made ahead, or does not
    /// fit, is made now.
    pub(super) async fn furnish(&mut self, ahead: Option<Ahead>) -> Result<(), Trouble> {
        self.make_outside().map_err(|error| {
            system_failure(format!("cannot make {}: {error}", self.containers.outside))
        })?;
        let build = self.containers.build.as_ref();
        let build = build.ok_or_else(|| system_failure("the plan names no container"))?;
        say(&format!("Using Docker executor with image {} ...", build.image));
        let taken = self.take(ahead).await;
        match &taken {
            Some(ahead) => self.network = ahead.network(),
            None => drop(self.make_network().await?),
        }
        self.make_volumes().await?;
        let links = self.start_services().await?;
        let image = self.image(build).await?;
        self.take_back().await?;
        if let Some(ahead) = taken {
            if ahead.is_of(&image.id) {
                self.check_sharing().await?;
                say("The container was made ahead of the job");
                return Ok(());
            }
            ahead.remove_container().await;
        }
        self.make(BUILD, build, Ties { links, ..self.ties() }).await?;
        self.check_sharing().await?;
        // A shell that is up already waits for its script. An entrypoint may look at the
        // sources, which are not there yet.
        if !image.has_entrypoint && !build.config.contains("\"Entrypoint\"") {
            self.start(&self.name(BUILD)).await?;
        }
        Ok(())
    }

    /// What was made ahead becomes the job's, unless somebody removed some of it.
    async fn take(&self, ahead: Option<Ahead>) -> Option<Ahead> {
        let ahead = ahead?;
        if ahead.is_taken_as(&self.name(BUILD)).await {
            return Some(ahead);
        }
        ahead.remove().await;
        None
    }

    /// How the job's container stands to others, but for links.
    pub(super) fn ties(&self) -> Ties {
        Ties { network: self.network.clone(), aliases: vec![BUILD.into()], links: Vec::new() }
    }

    /// The builds directory on the instance, in a directory of ours alone.
    pub(super) fn make_outside(&self) -> std::io::Result<()> {
        let outside = Path::new(&self.containers.outside);
        if let Some(parent) = outside.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        if !outside.exists() {
            DirBuilder::new().create(outside)?;
            fs::set_permissions(outside, fs::Permissions::from_mode(0o777))?;
        }
        Ok(())
    }

    /// Makes the job's own network, if it is to have one. Returns its id.
    pub(super) async fn make_network(&self) -> Result<Option<String>, Trouble> {
        let (Some(network), Some(name)) = (&self.containers.network, &self.network) else {
            return Ok(None);
        };
        let mut options = Map::new();
        if network.mtu > 0 {
            options.insert("com.docker.network.driver.mtu".into(), json!(network.mtu.to_string()));
        }
        let body = json!({
            "Name": name,
            "Driver": "bridge",
            "EnableIPv6": network.ipv6,
            "Options": options,
            "Labels": self.containers.labels,
        });
        let mut tries = 0;
        loop {
            tries += 1;
            match self.daemon.call(Ask::post("/networks/create", &body)).await {
                // The machine's firewall has other writers, and refuses one of them.
                Err(fault) if tries < NETWORK_TRIES && fault.to_string().contains("iptables") => {
                    sleep(NETWORK_PAUSE).await;
                }
                made => {
                    let made = made.during("the job's network cannot be made")?;
                    return Ok(made["Id"].as_str().map(str::to_owned));
                }
            }
        }
    }

    pub(super) async fn make_volumes(&self) -> Result<(), Trouble> {
        for name in &self.containers.volumes {
            // Not the job's labels: it outlives the job.
            let body = json!({ "Name": name, "Labels": { "mayfly.cache": "true" } });
            let made = self.daemon.call(Ask::post("/volumes/create", &body)).await;
            made.during("a cache volume cannot be made")?;
        }
        Ok(())
    }

    /// Makes a container of the job; one of that name that is there makes room. Returns its
    /// id.
    pub(super) async fn make(
        &self,
        what: &str,
        container: &Container,
        ties: Ties,
    ) -> Result<String, Trouble> {
        let mut body: Value = serde_json::from_str(&container.config)
            .map_err(|error| system_failure(format!("the container's plan is no JSON: {error}")))?;
        self.complete(&mut body, what, ties);
        let name = self.name(what);
        let query = format!("/containers/create?name={name}&platform={}", container.platform);
        let mut made = self.daemon.call(Ask::post(&query, &body)).await;
        if made.as_ref().is_err_and(|fault| fault.is(StatusCode::CONFLICT)) {
            self.remove(&name).await.during("an old container cannot be removed")?;
            made = self.daemon.call(Ask::post(&query, &body)).await;
        }
        let made = made.map_err(|fault| match is_out_of_room(&fault.to_string()) {
            true => system_failure(format!("the instance has no space left: {fault}")),
            false => Trouble::Daemon("the container cannot be made", fault),
        })?;
        Ok(made["Id"].as_str().unwrap_or(&name).to_owned())
    }

    /// Adds what only the instance knows.
    fn complete(&self, body: &mut Value, what: &str, ties: Ties) {
        let containers = self.containers;
        let mut labels = containers.labels.clone();
        labels.insert("com.gitlab.gitlab-runner.type".into(), what.to_owned());
        body["Labels"] = json!(labels);
        let host = &mut body["HostConfig"];
        append(&mut host["Binds"], [format!("{}:{}", containers.outside, containers.inside)]);
        if let Some(network) = ties.network {
            host["NetworkMode"] = json!(network);
            let mut endpoints = Map::new();
            endpoints.insert(network, json!({ "Aliases": ties.aliases }));
            body["NetworkingConfig"] = json!({ "EndpointsConfig": endpoints });
        } else if !ties.links.is_empty() && is_on_default_network(&host["NetworkMode"]) {
            append(&mut host["Links"], ties.links);
        }
    }

    pub(super) async fn start(&self, name: &str) -> Result<(), Trouble> {
        let path = format!("/containers/{name}/start");
        self.daemon.call(Ask::order(&path)).await.map(drop).map_err(|fault| {
            // The runtime's words for a program that is not there.
            match fault.to_string().contains("exec: \"sh\": executable file not found") {
                true => system_failure(format!(
                    "the image has no shell: scripts need `sh` in its PATH ({fault})"
                )),
                false => Trouble::Daemon("the container cannot be started", fault),
            }
        })
    }

    /// Whether the daemon sees our files: it may be on another machine, or outside of the
    /// container in which we are.
    ///
    /// It takes the daemon some time to look: it is asked once for each builds directory.
    async fn check_sharing(&self) -> Result<(), Trouble> {
        let outside = Path::new(&self.containers.outside);
        let seen_before = format!("{}.shared", self.containers.outside);
        if fs::read_to_string(&seen_before).is_ok_and(|host| host == self.containers.host) {
            return Ok(());
        }
        let word = format!(".mayfly-{}", std::process::id());
        let marker = outside.join(&word);
        let written = fs::write(&marker, b"");
        let path = format!(
            "/containers/{}/archive?path={}/{word}",
            self.name(BUILD),
            self.containers.inside
        );
        let seen = self.daemon.call(Ask::get(&path)).await;
        let _ = fs::remove_file(&marker);
        match seen {
            _ if written.is_err() => Ok(()),
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => Err(system_failure(format!(
                "the Docker daemon does not see the files of this instance ({}): it is on another \
                 machine, or this instance is a container of it; it needs a daemon of its own",
                self.containers.outside
            ))),
            other => {
                other.during("the job's files cannot be looked for")?;
                // Where it cannot be noted it is asked again.
                let _ = fs::write(seen_before, &self.containers.host);
                Ok(())
            }
        }
    }
}

/// Adds to a list that may not be there yet.
fn append(list: &mut Value, more: impl IntoIterator<Item = String>) {
    let mut all: Vec<Value> = list.as_array().cloned().unwrap_or_default();
    all.extend(more.into_iter().map(Value::from));
    *list = Value::Array(all);
}

fn is_on_default_network(mode: &Value) -> bool {
    matches!(mode.as_str(), None | Some("" | "default" | "bridge"))
}
