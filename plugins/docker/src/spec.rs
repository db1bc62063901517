//! The container of one instance, in the daemon's words. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::archive::BINARY;
use crate::config::{Address, ContainerOptions, InnerDocker, Options, Reach};
use crate::daemon::{Container, Owned};
use crate::roles::{INSTANCE, InstanceSettings, PORT};

/// The name that logs in to an instance.
pub(crate) const USER_LABEL: &str = "mayfly.user";
/// The start of the plugin whose key an instance was made with.
pub(crate) const BOOT_LABEL: &str = "mayfly.boot";

/// Where Docker's clients look for a daemon.
const SOCKET: &str = "/var/run/docker.sock";
/// Prefers the entrypoint of Docker's own images, which prepares control groups.
const INNER_DAEMON: [&str; 3] = [
    "sh",
    "-c",
    "exec $(command -v dockerd-entrypoint.sh || echo dockerd) --host=unix:///var/run/docker.sock",
];

/// The labels of a group's containers.
pub(crate) fn owned(name: &str, owner: &str) -> Owned {
    Owned(vec![
        ("mayfly.plugin", "docker".into()),
        ("mayfly.group", name.into()),
        ("mayfly.owner", owner.into()),
    ])
}

/// What one instance has of its own.
pub(crate) struct Individual<'a> {
    pub(crate) id: &'a str,
    /// The name that logs in.
    pub(crate) user: &'a str,
    /// The user that everything runs as; the image's where `None`.
    pub(crate) runs_as: Option<&'a str>,
    pub(crate) boot: &'a str,
}

/// The body of the call that creates the container.
pub(crate) fn body(group: &Options, owned: &Owned, one: &Individual<'_>) -> Value {
    let options = &group.container;
    let mut labels: BTreeMap<&str, &str> =
        options.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    labels.extend(owned.0.iter().map(|(label, value)| (*label, value.as_str())));
    labels.extend([(USER_LABEL, one.user), (BOOT_LABEL, one.boot)]);
    let mut environment: Vec<String> =
        options.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    environment.push(format!("MAYFLY_INSTANCE={}", one.id));
    let settings = InstanceSettings {
        user: one.user.to_owned(),
        home: options.workdir.clone(),
        command: command(options),
    };
    let port = format!("{PORT}/tcp");
    let mut body = json!({
        "Image": group.image,
        "Hostname": one.id,
        "Entrypoint": [BINARY, INSTANCE],
        "Cmd": [settings.to_argument()],
        "Labels": labels,
        "Env": environment,
        "ExposedPorts": {port.as_str(): {}},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host_config(group, &port),
    });
    if let Some(user) = one.runs_as {
        body["User"] = user.into();
    }
    if let Some(workdir) = &options.workdir {
        body["WorkingDir"] = workdir.as_str().into();
    }
    if let Some(network) = options.networks.first() {
        body["NetworkingConfig"] = json!({"EndpointsConfig": {network.as_str(): {}}});
    }
    body
}

fn command(options: &ContainerOptions) -> Vec<String> {
    if options.docker == InnerDocker::Dind && options.command.is_empty() {
        return INNER_DAEMON.map(str::to_owned).to_vec();
    }
    options.command.clone()
}

fn host_config(group: &Options, port: &str) -> Value {
    let Options { container: options, reach, address: daemon, .. } = group;
    let mut config = json!({
        // What the instance prints is for finding faults, and must not fill the disk.
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        "Privileged": options.privileged,
        "RestartPolicy": {"Name": "no"},
    });
    let mut set = |key: &str, value: Value| {
        config[key] = value;
    };
    if let Some(cpus) = options.nano_cpus {
        set("NanoCpus", cpus.into());
    }
    if let Some(bytes) = options.memory_bytes {
        set("Memory", bytes.into());
        // Without it, as much again is swapped out.
        set("MemorySwap", bytes.into());
    }
    if let Some(processes) = options.pids_limit {
        set("PidsLimit", processes.into());
    }
    if let Some(bytes) = options.shm_bytes {
        set("ShmSize", bytes.into());
    }
    if let Some(bytes) = options.disk_bytes {
        set("StorageOpt", json!({"size": bytes.to_string()}));
    }
    if let Some(network) = options.networks.first() {
        set("NetworkMode", network.as_str().into());
    }
    if let Reach::Published { bind } = reach {
        set("PortBindings", json!({port: [{"HostIp": bind, "HostPort": ""}]}));
    }
    let lists = [
        ("CapAdd", &options.cap_add),
        ("CapDrop", &options.cap_drop),
        ("SecurityOpt", &options.security_opt),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        set(key, json!(list));
    }
    if !options.devices.is_empty() {
        set("Devices", options.devices.iter().map(|device| device_of(device)).collect());
    }
    if !options.mounts.is_empty() {
        set("Binds", json!(options.mounts));
    }
    match (options.docker, daemon) {
        (InnerDocker::None, _) => {}
        // Layers on layers do not work. The volume has no name, and goes with its container.
        (InnerDocker::Dind, _) => {
            set("Mounts", json!([{"Type": "volume", "Target": "/var/lib/docker"}]));
        }
        (InnerDocker::HostSocket, daemon) => {
            let socket = match daemon {
                Address::Unix(path) => path.to_string_lossy().into_owned(),
                Address::Tcp { .. } => SOCKET.to_owned(),
            };
            set("Mounts", json!([{"Type": "bind", "Source": socket, "Target": SOCKET}]));
        }
    }
    config
}

/// `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rw`.
fn device_of(device: &str) -> Value {
    let mut parts = device.splitn(3, ':');
    let outside = parts.next().unwrap_or_default();
    let inside = parts.next().unwrap_or(outside);
    let rights = parts.next().unwrap_or("rwm");
    let mut object = Map::new();
    object.insert("PathOnHost".into(), outside.into());
    object.insert("PathInContainer".into(), inside.into());
    object.insert("CgroupPermissions".into(), rights.into());
    object.into()
}

/// Where the SSH server of a container is, once the daemon knows: `host` is that of the
/// daemon's machine, `network` the first one that was configured.
pub(crate) fn address(
    container: &Container,
    reach: &Reach,
    host: &str,
    network: Option<&str>,
) -> Option<String> {
    match reach {
        Reach::Published { .. } => container.published.map(|port| join(host, port)),
        Reach::Container => {
            let of_network = network.and_then(|network| container.addresses.get(network));
            let address = of_network.or_else(|| container.addresses.values().next())?;
            Some(join(address, PORT))
        }
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pull, RegistryLogin};
    use crate::daemon::State;

    const ONE: Individual<'_> =
        Individual { id: "mayfly-g-1", user: "ci", runs_as: None, boot: "b" };

    fn of(options: &ContainerOptions, reach: &Reach) -> Value {
        let group = Options {
            name: "g".into(),
            owner: "o".into(),
            address: Address::Unix("/run/d.sock".into()),
            certificates: None,
            image: "i".into(),
            pull: Pull::Never,
            registry: RegistryLogin::None,
            max_size: 1,
            reach: reach.clone(),
            container: options.clone(),
        };
        body(&group, &owned("g", "o"), &ONE)
    }

    #[test]
    fn an_image_alone_asks_for_nothing_more() {
        let body = of(&ContainerOptions::default(), &Reach::Container);
        let config = body["HostConfig"].as_object().expect("an object");
        let keys: Vec<&str> = config.keys().map(String::as_str).collect();
        assert_eq!(keys, ["LogConfig", "Privileged", "RestartPolicy"]);
        assert_eq!(config["Privileged"], false);
        assert_eq!(body["Labels"]["mayfly.group"], "g");
        assert_eq!(body["Labels"]["mayfly.owner"], "o");
        assert_eq!(body["Labels"][USER_LABEL], "ci");
        assert!(body.get("User").is_none() && body.get("WorkingDir").is_none());
    }

    #[test]
    fn what_is_written_reaches_the_daemon() {
        let options = ContainerOptions {
            nano_cpus: Some(5),
            memory_bytes: Some(6),
            pids_limit: Some(7),
            shm_bytes: Some(8),
            disk_bytes: Some(9),
            networks: vec!["n".into(), "m".into()],
            mounts: vec!["/a:/b".into()],
            devices: vec!["/dev/kvm".into(), "/dev/a:/dev/b:r".into()],
            cap_add: vec!["NET_ADMIN".into()],
            docker: InnerDocker::HostSocket,
            ..ContainerOptions::default()
        };
        let body = of(&options, &Reach::Published { bind: "127.0.0.1".into() });
        let config = &body["HostConfig"];
        assert_eq!((&config["NanoCpus"], &config["Memory"]), (&json!(5), &json!(6)));
        assert_eq!((&config["MemorySwap"], &config["PidsLimit"]), (&json!(6), &json!(7)));
        assert_eq!(config["StorageOpt"]["size"], "9");
        assert_eq!(config["NetworkMode"], "n");
        assert_eq!(config["Binds"], json!(["/a:/b"]));
        assert_eq!(config["Mounts"][0]["Source"], "/run/d.sock");
        assert_eq!(config["Mounts"][0]["Target"], "/var/run/docker.sock");
        assert_eq!(config["Devices"][0]["PathInContainer"], "/dev/kvm");
        assert_eq!(config["Devices"][1]["PathInContainer"], "/dev/b");
        assert_eq!(config["Devices"][1]["CgroupPermissions"], "r");
        assert_eq!(config["PortBindings"]["20022/tcp"][0]["HostIp"], "127.0.0.1");
    }

    #[test]
    fn a_daemon_inside_has_a_volume_and_a_command() {
        let options = ContainerOptions {
            docker: InnerDocker::Dind,
            privileged: true,
            ..ContainerOptions::default()
        };
        let body = of(&options, &Reach::Container);
        assert_eq!(body["HostConfig"]["Mounts"][0]["Target"], "/var/lib/docker");
        let settings = body["Cmd"][0].as_str().expect("text");
        assert!(settings.contains("dockerd-entrypoint.sh"), "{settings}");
    }

    #[test]
    fn the_address_is_that_of_the_first_network() {
        let addresses = [("a", "10.0.0.1"), ("z", "fd00::1")];
        let container = Container {
            id: String::new(),
            name: String::new(),
            state: State::Running,
            labels: BTreeMap::new(),
            addresses: addresses.map(|(n, a)| (n.into(), a.into())).into(),
            published: Some(5),
        };
        let by = |network| address(&container, &Reach::Container, "h", network);
        assert_eq!(by(Some("z")).as_deref(), Some("[fd00::1]:20022"));
        assert_eq!(by(None).as_deref(), Some("10.0.0.1:20022"));
        let published = Reach::Published { bind: "0.0.0.0".into() };
        assert_eq!(address(&container, &published, "h", None).as_deref(), Some("h:5"));
    }
}
