//! Containers: listing, making, starting, ending them.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Daemon, DaemonError, LIMIT, SLOW_LIMIT, escape, limited, output};

const LOG_LINES: u32 = 10;
const LOG_LIMIT_BYTES: usize = 8 * 1024;

/// The labels that make a container ours.
pub(crate) struct Owned(pub(crate) Vec<(&'static str, String)>);

/// One container of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// The daemon's own id.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) labels: BTreeMap<String, String>,
    /// Addresses by network.
    pub(crate) addresses: BTreeMap<String, String>,
    /// Where on the daemon's machine its only published port is.
    pub(crate) published: Option<u16>,
}

/// Where a container stands, as far as an instance is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Made, not started.
    Created,
    Running,
    Paused,
    /// Its first process has ended, or it is being removed.
    Ended,
}

impl Daemon {
    /// All containers with these labels, in one call; with `name`, that one at most.
    pub(crate) async fn list(
        &self,
        owned: &Owned,
        name: Option<&str>,
    ) -> Result<Vec<Container>, DaemonError> {
        let labels: Vec<String> =
            owned.0.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let mut filters = json!({"label": labels});
        if let Some(name) = name {
            filters["name"] = json!([format!("^/?{}$", name.replace('.', "\\."))]);
        }
        let request = self
            .call(Method::GET, "/containers/json")
            .query(&[("all", "1"), ("filters", filters.to_string().as_str())]);
        let listed: Vec<Listed> = self.answer("list containers", request).await?;
        Ok(listed.into_iter().filter_map(Container::read).collect())
    }

    /// Makes a container and returns the daemon's id of it.
    pub(crate) async fn create(&self, name: &str, body: &Value) -> Result<String, DaemonError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            id: String,
        }
        let request = self
            .call(Method::POST, "/containers/create")
            .query(&[("name", name)])
            .json(body)
            .timeout(SLOW_LIMIT);
        let created: Created = self.answer(&format!("create container {name}"), request).await?;
        Ok(created.id)
    }

    /// Gives a container one more network.
    pub(crate) async fn connect(&self, network: &str, id: &str) -> Result<(), DaemonError> {
        let request = self
            .call(Method::POST, &format!("/networks/{}/connect", escape(network)))
            .json(&json!({"Container": id}));
        self.send(&format!("connect it to network {network}"), request).await.map(drop)
    }

    /// Unpacks a compressed tar archive at a container's root.
    pub(crate) async fn upload(&self, id: &str, archive: Bytes) -> Result<(), DaemonError> {
        let request = self
            .call(Method::PUT, &format!("/containers/{}/archive", escape(id)))
            .query(&[("path", "/")])
            .header("Content-Type", "application/x-tar")
            .body(archive)
            .timeout(SLOW_LIMIT);
        self.send("upload into a container", request).await.map(drop)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), DaemonError> {
        let path = format!("/containers/{}/start", escape(id));
        let request = self.call(Method::POST, &path).timeout(SLOW_LIMIT);
        self.send("start a container", request).await.map(drop)
    }

    pub(crate) async fn pause(&self, id: &str) -> Result<(), DaemonError> {
        let path = format!("/containers/{}/pause", escape(id));
        self.send("pause a container", self.call(Method::POST, &path)).await.map(drop)
    }

    pub(crate) async fn unpause(&self, id: &str) -> Result<(), DaemonError> {
        let path = format!("/containers/{}/unpause", escape(id));
        self.send("resume a container", self.call(Method::POST, &path)).await.map(drop)
    }

    /// Kills and removes a container with its anonymous volumes. One that is gone, or on
    /// its way, is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), DaemonError> {
        let request = self
            .call(Method::DELETE, &format!("/containers/{}", escape(id)))
            .query(&[("force", "1"), ("v", "1")])
            .timeout(SLOW_LIMIT);
        match self.send("remove a container", request).await {
            Ok(_) | Err(DaemonError::Missing { .. }) => Ok(()),
            Err(DaemonError::Refused { status: 409, message, .. })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The last lines that a container printed, in one line; for people.
    pub(crate) async fn last_words(&self, id: &str) -> String {
        let tail = LOG_LINES.to_string();
        let request = self
            .call(Method::GET, &format!("/containers/{}/logs", escape(id)))
            .query(&[("stdout", "1"), ("stderr", "1"), ("tail", &tail)])
            .timeout(LIMIT);
        let text = async {
            let response = self.send("read a container's log", request).await.ok()?;
            Some(output::text(&limited(response, LOG_LIMIT_BYTES).await.ok()?))
        };
        text.await.unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    state: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    network_settings: Option<Networks>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    public_port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    #[serde(default)]
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    address: Option<String>,
}

impl Container {
    /// `None` for one without a name: it is being removed.
    fn read(listed: Listed) -> Option<Self> {
        // Links add names with a further slash.
        let own = |name: &String| Some(name.strip_prefix('/')?.to_owned());
        let name = listed.names.iter().filter_map(own).find(|name| !name.contains('/'))?;
        let networks = listed.network_settings.unwrap_or_default().networks.unwrap_or_default();
        let address = |(name, network): (String, Network)| {
            let address = network.address.filter(|address| !address.is_empty())?;
            Some((name, address))
        };
        Some(Self {
            id: listed.id,
            name,
            state: match listed.state.as_str() {
                "created" => State::Created,
                "running" => State::Running,
                "paused" => State::Paused,
                _ => State::Ended,
            },
            labels: listed.labels.unwrap_or_default(),
            addresses: networks.into_iter().filter_map(address).collect(),
            published: listed.ports.unwrap_or_default().iter().find_map(|port| port.public_port),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_daemon_is_read() {
        let listed = json!([{
            "Id": "abc", "Names": ["/other/alias", "/mayfly-x-1"], "State": "running",
            "Labels": {"mayfly.group": "x"},
            "Ports": [{"PrivatePort": 20022, "Type": "tcp"},
                      {"IP": "::", "PrivatePort": 20022, "PublicPort": 4000, "Type": "tcp"}],
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.0.0.2"},
                                             "later": {"IPAddress": ""}}}
        }, {"Id": "def", "Names": [], "State": "removing"},
           {"Id": "ghi", "Names": ["/y"], "State": "dead", "Labels": null}]);
        let listed: Vec<Listed> = serde_json::from_value(listed).expect("read");
        let read: Vec<Container> = listed.into_iter().filter_map(Container::read).collect();
        let [first, second] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!((first.name.as_str(), first.state), ("mayfly-x-1", State::Running));
        assert_eq!(first.published, Some(4000));
        assert_eq!(first.addresses, BTreeMap::from([("bridge".into(), "10.0.0.2".into())]));
        assert_eq!((second.name.as_str(), second.state), ("y", State::Ended));
    }
}
