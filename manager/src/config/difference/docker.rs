//! The keys of `[runners.docker]` one by one, as they are compared and shown.

use std::fmt::Debug;
use std::time::Duration;

use job::compose::docker::{Docker, HostOptions, PullPolicy, Service};

/// A key, all that it says, and what of that may be shown.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) shown: String,
}

/// All keys, always the same ones in the same order, but for `host`: that is the template's.
pub(super) fn keys(docker: &Docker) -> Vec<Key> {
    let mut keys = Vec::new();
    of_jobs(docker, &mut keys);
    of_build(&docker.build, &mut keys);
    of_services(&docker.service, &mut keys);
    keys
}

fn key(name: &'static str, value: &dyn Debug) -> Key {
    let value = format!("{value:?}");
    Key { name, shown: value.clone(), value }
}

fn of_jobs(docker: &Docker, keys: &mut Vec<Key>) {
    // Named one by one: a key that is new here must not be forgotten.
    let Docker {
        host: _,
        image,
        pull_policies,
        allowed_pull_policies,
        allowed_images,
        allowed_services,
        allowed_privileged_images,
        allowed_privileged_services,
        allowed_users,
        user,
        hostname,
        privileged,
        services_privileged,
        disable_entrypoint_overwrite,
        volumes,
        disable_cache,
        cache_dir,
        services,
        services_limit,
        wait_for_services,
        helper_image,
        network_mode,
        enable_ipv6,
        network_mtu,
        labels,
        build: _,
        service: _,
    } = docker;
    keys.extend([
        key("image", image),
        key("pull_policy", &words(pull_policies)),
        key("allowed_pull_policies", &words(allowed_pull_policies)),
        key("allowed_images", allowed_images),
        key("allowed_services", allowed_services),
        key("allowed_privileged_images", allowed_privileged_images),
        key("allowed_privileged_services", allowed_privileged_services),
        key("allowed_users", allowed_users),
        key("user", user),
        key("hostname", hostname),
        key("privileged", privileged),
        key("services_privileged", services_privileged),
        key("disable_entrypoint_overwrite", disable_entrypoint_overwrite),
        key("volumes", volumes),
        key("disable_cache", disable_cache),
        key("cache_dir", cache_dir),
        Key { shown: format!("{:?}", images(services)), ..key("services", services) },
        key("services_limit", services_limit),
        key("wait_for_services_timeout", wait_for_services),
        key("helper_image", helper_image),
        key("network_mode", network_mode),
        key("enable_ipv6", enable_ipv6),
        key("network_mtu", network_mtu),
        key("container_labels", labels),
    ]);
}

/// Variables of services may be secrets: their images are shown.
fn images(services: &[Service]) -> Vec<&str> {
    services.iter().map(|service| service.name.as_str()).collect()
}

/// The system calls of a profile fill pages.
fn options(security_opt: &[String]) -> Vec<&str> {
    let shown =
        |option| if str::starts_with(option, "seccomp={") { "seccomp={…}" } else { option };
    security_opt.iter().map(|option| shown(option.as_str())).collect()
}

fn words(policies: &[PullPolicy]) -> Vec<&str> {
    policies.iter().map(|policy| policy.as_gitlab()).collect()
}

/// As the file says it.
fn cpus(nano_cpus: i64) -> f64 {
    Duration::from_nanos(nano_cpus.unsigned_abs()).as_secs_f64()
}

fn of_build(build: &HostOptions, keys: &mut Vec<Key>) {
    let HostOptions {
        cap_add,
        cap_drop,
        devices,
        device_cgroup_rules,
        gpus,
        dns,
        dns_search,
        extra_hosts,
        links,
        volumes_from,
        group_add,
        security_opt,
        sysctls,
        tmpfs,
        ulimits,
        log_options,
        memory: _,
        memory_swap: _,
        memory_reservation: _,
        nano_cpus: _,
        cpu_shares: _,
        cpuset_cpus: _,
        cpuset_mems: _,
        shm_size: _,
        oom_kill_disable: _,
        oom_score_adjust: _,
        userns_mode,
        runtime,
        cgroup_parent: _,
        ipc_mode,
    } = build;
    let profile = format!("{:?}", options(security_opt));
    keys.extend([
        key("cap_add", cap_add),
        key("cap_drop", cap_drop),
        key("devices", devices),
        key("device_cgroup_rules", device_cgroup_rules),
        key("gpus", gpus),
        key("dns", dns),
        key("dns_search", dns_search),
        key("extra_hosts", extra_hosts),
        key("links", links),
        key("volumes_from", volumes_from),
        key("group_add", group_add),
        Key { shown: profile, ..key("security_opt", security_opt) },
        key("sysctls", sysctls),
        key("tmpfs", tmpfs),
        key("ulimit", ulimits),
        key("log_options", log_options),
        key("userns_mode", userns_mode),
        key("runtime", runtime),
        key("ipcmode", ipc_mode),
    ]);
    of_limits(build, keys);
}

fn of_limits(build: &HostOptions, keys: &mut Vec<Key>) {
    keys.extend([
        key("memory", &build.memory),
        key("memory_swap", &build.memory_swap),
        key("memory_reservation", &build.memory_reservation),
        key("cpus", &cpus(build.nano_cpus)),
        key("cpu_shares", &build.cpu_shares),
        key("cpuset_cpus", &build.cpuset_cpus),
        key("cpuset_mems", &build.cpuset_mems),
        key("shm_size", &build.shm_size),
        key("oom_kill_disable", &build.oom_kill_disable),
        key("oom_score_adjust", &build.oom_score_adjust),
        key("cgroup_parent", &build.cgroup_parent),
    ]);
}

/// The keys that services have for themselves.
fn of_services(service: &HostOptions, keys: &mut Vec<Key>) {
    let profile = format!("{:?}", options(&service.security_opt));
    keys.extend([
        key("service_memory", &service.memory),
        key("service_memory_swap", &service.memory_swap),
        key("service_memory_reservation", &service.memory_reservation),
        key("service_cpus", &cpus(service.nano_cpus)),
        key("service_cpu_shares", &service.cpu_shares),
        key("service_cpuset_cpus", &service.cpuset_cpus),
        key("service_cgroup_parent", &service.cgroup_parent),
        key("service_gpus", &service.gpus),
        key("services_tmpfs", &service.tmpfs),
        Key { shown: profile, ..key("services_security_opt", &service.security_opt) },
    ]);
}
