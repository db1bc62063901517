//! The plugin's configuration: what the operator wrote, checked and completed.

mod address;
mod keys;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use address::{Address, Certificates, Surroundings};
use keys::Keys;

/// Beyond this one list of a daemon takes longer than hosts wait between two of them.
const MAX_SIZE_LIMIT: u64 = 5000;
const MAX_SIZE: u32 = 10;
/// Names end up in host names, which have 63 letters.
const NAME_LENGTH: usize = 40;

/// `plugin_config` as it was written.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Config(Map<String, Value>);

/// What the configuration means. No `Debug`: it may hold a password.
#[derive(Clone)]
pub(crate) struct Options {
    /// Name of the group.
    pub(crate) name: String,
    /// Tells this machine's groups from those of others on the same daemon.
    pub(crate) owner: String,
    pub(crate) address: Address,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) image: String,
    pub(crate) pull: Pull,
    pub(crate) registry: RegistryLogin,
    pub(crate) max_size: u32,
    pub(crate) reach: Reach,
    pub(crate) container: ContainerOptions,
}

/// When the daemon fetches the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// Once for each call that makes instances.
    Always,
    IfNotPresent,
    Never,
}

/// How the registry knows the daemon.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum RegistryLogin {
    None,
    /// A file such as `~/.docker/config.json`, read at each pull.
    File(PathBuf),
    Password {
        user: String,
        password: String,
    },
}

/// How hosts get to the SSH server of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By the container's own address.
    Container,
    /// By a port of the daemon's machine, bound to this address.
    Published { bind: String },
}

/// What a container gets to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContainerOptions {
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    /// Runs beside the SSH server.
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) mounts: Vec<String>,
    pub(crate) networks: Vec<String>,
    pub(crate) nano_cpus: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) pids_limit: Option<u64>,
    pub(crate) shm_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) privileged: bool,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) security_opt: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) docker: InnerDocker,
}

/// The Docker that jobs in a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum InnerDocker {
    #[default]
    None,
    /// A daemon of the container's own, which the image has.
    Dind,
    /// The daemon that runs the container: as good as root on its machine.
    HostSocket,
}

impl Config {
    /// Checks and completes; an error is one line that names key and value.
    pub(crate) fn check(self, here: &Surroundings) -> Result<Options, String> {
        let mut keys = Keys::new(self.0);
        let (address, certificates) = address::check(&mut keys, here)?;
        let reach = reach(&mut keys, &address)?;
        let options = Options {
            name: name("name", keys.text("name")?.unwrap_or_else(|| "docker".into()))?,
            owner: owner(keys.text("owner")?, here)?,
            address,
            certificates,
            image: image(keys.text("image")?)?,
            pull: pull(keys.text("pull")?.as_deref())?,
            registry: registry(&mut keys)?,
            max_size: keys.number("max_size", 1..=MAX_SIZE_LIMIT)?.map_or(MAX_SIZE, narrow),
            reach,
            container: container(&mut keys)?,
        };
        keys.finish()?;
        Ok(options)
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn name(key: &str, name: String) -> Result<String, String> {
    let fits = (1..=NAME_LENGTH).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits {
        return Ok(name);
    }
    Err(format!(
        "{key} = {name:?}: must be 1 to {NAME_LENGTH} letters, digits, '.', '_' or '-', and start \
         with a letter or digit"
    ))
}

fn owner(written: Option<String>, here: &Surroundings) -> Result<String, String> {
    match written.or_else(|| here.machine.clone()) {
        Some(owner) => name("owner", owner),
        None => Err("owner: cannot be guessed without /etc/machine-id and a host name, write \
                     owner = \"some-name\""
            .into()),
    }
}

fn image(image: Option<String>) -> Result<String, String> {
    let fits = |image: &String| {
        !image.is_empty() && !image.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    match image {
        None => Err("image: is missing, write image = \"debian:13\" or another one".into()),
        Some(image) if fits(&image) => Ok(image),
        Some(image) => Err(format!("image = {image:?}: must be an image such as \"debian:13\"")),
    }
}

fn pull(word: Option<&str>) -> Result<Pull, String> {
    match word {
        None | Some("if-not-present") => Ok(Pull::IfNotPresent),
        Some("always") => Ok(Pull::Always),
        Some("never") => Ok(Pull::Never),
        Some(other) => {
            Err(format!("pull = {other:?}: must be \"always\", \"if-not-present\" or \"never\""))
        }
    }
}

fn registry(keys: &mut Keys) -> Result<RegistryLogin, String> {
    let file = keys.text("registry_auth_file")?;
    let user = keys.text("registry_user")?;
    let password = keys.secret("registry_password")?;
    match (file, user, password) {
        (None, None, None) => Ok(RegistryLogin::None),
        (Some(file), None, None) => Ok(RegistryLogin::File(file.into())),
        (None, Some(user), Some(password)) => Ok(RegistryLogin::Password { user, password }),
        _ => Err("registry_auth_file, or registry_user with registry_password: write one of the \
                  two"
        .into()),
    }
}

fn reach(keys: &mut Keys, address: &Address) -> Result<Reach, String> {
    let bind = keys.text("publish_address")?;
    let (default, bind_default) = match address {
        Address::Unix(_) => ("container", "127.0.0.1"),
        Address::Tcp { .. } => ("published", "0.0.0.0"),
    };
    match keys.text("reach")?.as_deref().unwrap_or(default) {
        "container" if bind.is_some() => {
            Err("publish_address: has a meaning with reach = \"published\" only".into())
        }
        "container" => Ok(Reach::Container),
        "published" => {
            let bind = bind.unwrap_or_else(|| bind_default.into());
            if bind.parse::<std::net::IpAddr>().is_err() {
                return Err(format!("publish_address = {bind:?}: must be an IP address"));
            }
            Ok(Reach::Published { bind })
        }
        other => Err(format!("reach = {other:?}: must be \"container\" or \"published\"")),
    }
}

fn container(keys: &mut Keys) -> Result<ContainerOptions, String> {
    let options = ContainerOptions {
        user: keys.text("user")?,
        workdir: keys.text("workdir")?,
        command: keys.list("command")?,
        environment: keys.table("env")?,
        labels: keys.table("labels")?,
        mounts: keys.list("mounts")?,
        networks: keys.list("networks")?,
        nano_cpus: keys.cpus("cpus")?,
        memory_bytes: keys.bytes("memory")?,
        pids_limit: keys.number("pids_limit", 1..=u64::from(u32::MAX))?,
        shm_bytes: keys.bytes("shm_size")?,
        disk_bytes: keys.bytes("disk")?,
        privileged: keys.flag("privileged")?,
        cap_add: keys.list("cap_add")?,
        cap_drop: keys.list("cap_drop")?,
        security_opt: keys.list("security_opt")?,
        devices: keys.list("devices")?,
        docker: inner_docker(keys.text("docker")?.as_deref())?,
    };
    check_container(&options)?;
    Ok(options)
}

fn check_container(options: &ContainerOptions) -> Result<(), String> {
    if let Some(label) = options.labels.keys().find(|label| label.starts_with("mayfly.")) {
        return Err(format!(
            "labels: {label:?}: those that begin with \"mayfly.\" are the plugin's"
        ));
    }
    let cut_off = ["host", "none"];
    if let Some(network) = options.networks.iter().find(|one| cut_off.contains(&one.as_str())) {
        return Err(format!(
            "networks: {network:?}: instances need a network with an address of their own, such \
             as \"bridge\""
        ));
    }
    if options.networks.iter().any(|network| network.starts_with("container:")) {
        return Err("networks: \"container:…\" cannot be shared by instances".into());
    }
    if let Some(mount) = options.mounts.iter().find(|mount| !mount.contains(":/")) {
        return Err(format!("mounts: {mount:?}: must be \"/on/the/host:/inside[:ro]\""));
    }
    if options.workdir.as_ref().is_some_and(|workdir| !workdir.starts_with('/')) {
        return Err(format!("workdir = {:?}: must be absolute", options.workdir));
    }
    if options.docker == InnerDocker::Dind && !options.privileged {
        return Err("docker = \"dind\": a daemon inside needs privileged = true, and jobs are \
                    root on the daemon's machine then"
            .into());
    }
    Ok(())
}

fn inner_docker(word: Option<&str>) -> Result<InnerDocker, String> {
    match word {
        None | Some("none") => Ok(InnerDocker::None),
        Some("dind") => Ok(InnerDocker::Dind),
        Some("host-socket") => Ok(InnerDocker::HostSocket),
        Some(other) => {
            Err(format!("docker = {other:?}: must be \"none\", \"dind\" or \"host-socket\""))
        }
    }
}

#[cfg(test)]
mod tests;
