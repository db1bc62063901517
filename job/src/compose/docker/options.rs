//! `[runners.docker]`: what a runner's configuration says about containers.
//!
//! Keys and meanings are GitLab Runner's (docs, "The `[runners.docker]` section"). Sizes and
//! times are numbers already: who reads the file says what is wrong with its words.

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::plan::PullPolicy;

/// Where containers come from and what they may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Docker {
    /// `host`: the daemon as the instance sees it, such as `unix:///run/docker.sock`; empty is
    /// the instance's own.
    pub host: String,
    /// `image`, for jobs that name none.
    pub image: String,
    /// `pull_policy`, in the order in which they are tried; empty is `always`.
    pub pull_policies: Vec<PullPolicy>,
    /// `allowed_pull_policies`; empty allows `pull_policies`.
    pub allowed_pull_policies: Vec<PullPolicy>,
    /// `allowed_images`; empty allows all. Globs, `**` crosses slashes.
    pub allowed_images: Vec<String>,
    /// `allowed_services`, likewise.
    pub allowed_services: Vec<String>,
    /// `allowed_privileged_images`: others run without privileges; empty is all.
    pub allowed_privileged_images: Vec<String>,
    /// `allowed_privileged_services`, likewise.
    pub allowed_privileged_services: Vec<String>,
    /// `allowed_users`; empty allows all.
    pub allowed_users: Vec<String>,
    /// `user` of the job's container; empty is the image's.
    pub user: String,
    /// `hostname` of the job's container.
    pub hostname: String,
    /// `privileged`.
    pub privileged: bool,
    /// `services_privileged`; `privileged` where it is absent.
    pub services_privileged: Option<bool>,
    /// `disable_entrypoint_overwrite`.
    pub disable_entrypoint_overwrite: bool,
    /// `volumes`, as Docker writes them: `/inside` or `/outside:/inside[:mode]`.
    pub volumes: Vec<String>,
    /// `disable_cache`: volumes without a source live no longer than the job.
    pub disable_cache: bool,
    /// `cache_dir`: an absolute path on the daemon's machine for such volumes.
    pub cache_dir: String,
    /// `services`, before those of the job.
    pub services: Vec<Service>,
    /// `services_limit`; `None` is no limit.
    pub services_limit: Option<u32>,
    /// `wait_for_services_timeout`; zero does not wait.
    pub wait_for_services: Duration,
    /// `helper_image`, for sources where the instance has no git; empty is none.
    pub helper_image: String,
    /// `network_mode`.
    pub network_mode: String,
    /// `enable_ipv6` of a network of the job's own.
    pub enable_ipv6: bool,
    /// `network_mtu` of such a network; 0 is the daemon's.
    pub network_mtu: u32,
    /// `container_labels`.
    pub labels: BTreeMap<String, String>,
    /// What the job's container may do.
    pub build: HostOptions,
    /// What its services may do; limits of their own (`service_memory` and its kind).
    pub service: HostOptions,
}

/// One entry of `[[runners.docker.services]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Image.
    pub name: String,
    /// More names under which the job reaches it.
    pub aliases: Vec<String>,
    /// Replaces the image's.
    pub entrypoint: Vec<String>,
    /// Replaces the image's.
    pub command: Vec<String>,
    /// Variables, as `NAME=value`.
    pub environment: Vec<String>,
}

/// What the daemon is told of a container's surroundings (`HostConfig` of its API).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostOptions {
    /// `cap_add`.
    pub cap_add: Vec<String>,
    /// `cap_drop`.
    pub cap_drop: Vec<String>,
    /// `devices`.
    pub devices: Vec<Device>,
    /// `device_cgroup_rules`.
    pub device_cgroup_rules: Vec<String>,
    /// `gpus`: `all`, a number, or `device=…`; empty is none.
    pub gpus: String,
    /// `dns`.
    pub dns: Vec<String>,
    /// `dns_search`.
    pub dns_search: Vec<String>,
    /// `extra_hosts`, as `name:address`.
    pub extra_hosts: Vec<String>,
    /// `links`, as `container:alias`.
    pub links: Vec<String>,
    /// `volumes_from`.
    pub volumes_from: Vec<String>,
    /// `group_add`.
    pub group_add: Vec<String>,
    /// `security_opt`.
    pub security_opt: Vec<String>,
    /// `sysctls`.
    pub sysctls: BTreeMap<String, String>,
    /// `tmpfs`, by directory.
    pub tmpfs: BTreeMap<String, String>,
    /// `ulimit`: soft and hard.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// `log_options`; only the daemon's drivers `json-file` and its kind read them.
    pub log_options: BTreeMap<String, String>,
    /// `memory` in bytes; 0 is no limit, here and below.
    pub memory: i64,
    /// `memory_swap` in bytes; -1 is unlimited.
    pub memory_swap: i64,
    /// `memory_reservation` in bytes.
    pub memory_reservation: i64,
    /// `cpus`, in billionths.
    pub nano_cpus: i64,
    /// `cpu_shares`.
    pub cpu_shares: i64,
    /// `cpuset_cpus`.
    pub cpuset_cpus: String,
    /// `cpuset_mems`.
    pub cpuset_mems: String,
    /// `shm_size` in bytes.
    pub shm_size: i64,
    /// `oom_kill_disable`.
    pub oom_kill_disable: bool,
    /// `oom_score_adjust`.
    pub oom_score_adjust: i64,
    /// `userns_mode`.
    pub userns_mode: String,
    /// `runtime`.
    pub runtime: String,
    /// `cgroup_parent`.
    pub cgroup_parent: String,
    /// `ipcmode`.
    pub ipc_mode: String,
}

/// A device of the host in a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    /// On the host.
    pub outside: String,
    /// In the container.
    pub inside: String,
    /// Some of `rwm`.
    pub permissions: String,
}
