//! Bodies of the requests that make containers, as the Engine API names their fields.

use serde_json::{Map, Value, json};

use super::volumes::Volumes;
use super::{Docker, HostOptions};
use crate::compose::Context;
use crate::payload::Image;
use crate::variables::Variables;

/// The first shell of GitLab Runner's list takes the whole script from stdin, then runs it:
/// what the script starts must not read it.
const SHELL: &str = "for shell in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh \
                     /usr/bin/sh /bin/sh /busybox/sh; do if [ -x \"$shell\" ]; then \
                     exec \"$shell\" -c 'eval \"$(cat)\"'; fi; done; \
                     echo shell not found >&2; exit 1";

/// A body under construction.
pub(super) struct Body(Map<String, Value>);

impl Body {
    pub(super) fn json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    fn new(name: &str, variables: &Variables, temp_dir: &str) -> Self {
        let mut body = Self(Map::new());
        let variables = variables.iter().map(|variable| match variable.file {
            true => format!("{}={temp_dir}/{}", variable.key, variable.key),
            false => format!("{}={}", variable.key, variable.value),
        });
        body.set("Image", name);
        body.set("Env", variables.collect::<Vec<_>>());
        body
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// Unless it is empty: then the image's own counts.
    fn set_list(&mut self, key: &str, list: &[String]) {
        if !list.is_empty() {
            self.set(key, list);
        }
    }

    fn set_word(&mut self, key: &str, word: &str) {
        if !word.is_empty() {
            self.set(key, word);
        }
    }

    /// A shell that gets its script by stdin.
    fn takes_a_script(&mut self) {
        for key in ["AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "StdinOnce"] {
            self.set(key, true);
        }
        self.set("Cmd", vec!["sh", "-c", SHELL]);
    }

    /// The job's container.
    pub(super) fn build(
        context: &Context<'_>,
        docker: &Docker,
        volumes: &Volumes,
        (name, user, privileged): (&str, &str, bool),
    ) -> Self {
        let mut body = Self::new(name, context.variables, &context.place.temp_dir);
        body.takes_a_script();
        let hostname = match docker.hostname.as_str() {
            "" => format!(
                "runner-{}-project-{}",
                context.runner.short_token, context.job.job_info.project_id
            ),
            own => own.to_owned(),
        };
        // Longer names are refused by the kernel.
        body.set("Hostname", hostname.chars().take(63).collect::<String>());
        body.set_word("User", user);
        if let Some(image) =
            context.job.image.as_ref().filter(|_| !docker.disable_entrypoint_overwrite)
        {
            body.set_list("Entrypoint", &image.entrypoint);
        }
        body.surround(&docker.build, docker, volumes, privileged);
        body
    }

    /// A container that fetches the sources.
    pub(super) fn helper(context: &Context<'_>, docker: &Docker) -> Self {
        let mut body = Self::new(
            &context.variables.expand(&docker.helper_image),
            context.variables,
            &context.place.temp_dir,
        );
        body.takes_a_script();
        let host = HostOptions {
            dns: docker.build.dns.clone(),
            dns_search: docker.build.dns_search.clone(),
            extra_hosts: docker.build.extra_hosts.clone(),
            ..HostOptions::default()
        };
        body.surround(&host, docker, &Volumes::default(), false);
        body
    }

    /// A service.
    pub(super) fn service(
        docker: &Docker,
        volumes: &Volumes,
        image: &Image,
        variables: &Variables,
        (name, user, privileged): (&str, &str, bool),
    ) -> Self {
        let mut body = Self::new(name, variables, "");
        body.set_list("Entrypoint", &image.entrypoint);
        body.set_list("Cmd", &image.command);
        body.set_word("User", user);
        body.surround(&docker.service, docker, volumes, privileged);
        body
    }

    fn surround(
        &mut self,
        host: &HostOptions,
        docker: &Docker,
        volumes: &Volumes,
        privileged: bool,
    ) {
        let passing = volumes.passing.iter().map(|inside| (inside.clone(), json!({})));
        let passing: Map<String, Value> = passing.collect();
        if !passing.is_empty() {
            self.set("Volumes", passing);
        }
        let mut config = host_config(host);
        config.insert("Binds".into(), json!(volumes.binds));
        config.insert("Privileged".into(), json!(privileged));
        if !docker.network_mode.is_empty() {
            config.insert("NetworkMode".into(), json!(docker.network_mode));
        }
        self.set("HostConfig", config);
    }
}

/// `HostConfig`; what is not set is left to the daemon.
fn host_config(host: &HostOptions) -> Map<String, Value> {
    let lists = [
        ("CapAdd", &host.cap_add),
        ("CapDrop", &host.cap_drop),
        ("DeviceCgroupRules", &host.device_cgroup_rules),
        ("Dns", &host.dns),
        ("DnsSearch", &host.dns_search),
        ("ExtraHosts", &host.extra_hosts),
        ("Links", &host.links),
        ("VolumesFrom", &host.volumes_from),
        ("GroupAdd", &host.group_add),
        ("SecurityOpt", &host.security_opt),
    ];
    let numbers = [
        ("Memory", host.memory),
        ("MemorySwap", host.memory_swap),
        ("MemoryReservation", host.memory_reservation),
        ("NanoCpus", host.nano_cpus),
        ("CpuShares", host.cpu_shares),
        ("ShmSize", host.shm_size),
        ("OomScoreAdj", host.oom_score_adjust),
    ];
    let words = [
        ("CpusetCpus", &host.cpuset_cpus),
        ("CpusetMems", &host.cpuset_mems),
        ("UsernsMode", &host.userns_mode),
        ("Runtime", &host.runtime),
        ("CgroupParent", &host.cgroup_parent),
        ("IpcMode", &host.ipc_mode),
    ];
    let maps = [("Sysctls", &host.sysctls), ("Tmpfs", &host.tmpfs)];
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        set(key, json!(list));
    }
    for (key, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        set(key, json!(number));
    }
    for (key, word) in words.into_iter().filter(|(_, word)| !word.is_empty()) {
        set(key, json!(word));
    }
    for (key, map) in maps.into_iter().filter(|(_, map)| !map.is_empty()) {
        set(key, json!(map));
    }
    if host.oom_kill_disable {
        set("OomKillDisable", json!(true));
    }
    let structures = [
        ("Devices", host.devices.iter().map(device).collect()),
        ("Ulimits", host.ulimits.iter().map(ulimit).collect()),
        ("DeviceRequests", (!host.gpus.is_empty()).then(|| gpus(&host.gpus)).into_iter().collect()),
    ];
    for (key, list) in structures.into_iter().filter(|(_, list): &(_, Vec<Value>)| !list.is_empty())
    {
        set(key, Value::Array(list));
    }
    if !host.log_options.is_empty() {
        set("LogConfig", json!({ "Type": "json-file", "Config": host.log_options }));
    }
    config
}

fn device(device: &super::Device) -> Value {
    json!({
        "PathOnHost": device.outside,
        "PathInContainer": device.inside,
        "CgroupPermissions": device.permissions,
    })
}

fn ulimit((name, (soft, hard)): (&String, &(i64, i64))) -> Value {
    json!({ "Name": name, "Soft": soft, "Hard": hard })
}

/// `all`, a number, or `device=id,id`, as `docker run --gpus` reads it.
fn gpus(text: &str) -> Value {
    let mut request = json!({ "Capabilities": [["gpu"]] });
    match (text.trim().parse::<i64>(), text.trim().strip_prefix("device=")) {
        (Ok(count), _) => request["Count"] = json!(count),
        (_, Some(ids)) => request["DeviceIDs"] = json!(ids.split(',').collect::<Vec<_>>()),
        _ => request["Count"] = json!(-1),
    }
    request
}
