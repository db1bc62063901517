//! What a file's words become for the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use job::compose::docker::{Device, Docker, HostOptions, PullPolicy, Service};

use crate::config::{Runner, load};

/// The entry of a file with this `[runners.docker]`, and what is warned of.
fn entry(docker: &str) -> (Runner, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.toml");
    let head = "[[runners]]\nname = \"a\"\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-a\"\n\
                executor = \"docker-autoscaler\"\n[runners.autoscaler]\nplugin = \"local\"\n\
                [runners.docker]\n";
    std::fs::write(&path, format!("{head}{docker}")).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("its mode");
    std::fs::write(directory.path().join("profile.json"), "{}").expect("a profile");
    let mut loaded = load(&path, None).expect("a good configuration");
    (loaded.config.runners.remove(0), loaded.warnings)
}

fn docker(text: &str) -> Docker {
    let (entry, warnings) = entry(text);
    assert!(warnings.is_empty(), "{warnings:?}");
    entry.engine.docker.expect("containers")
}

fn pairs(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_is_not_said_is_gitlabs_default() {
    let (entry, warnings) = entry("");
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(entry.engine.builds_dir, "/builds");
    assert_eq!(entry.engine.cache_dir, "/cache");
    assert!(entry.engine.custom_build_dir);
    assert_eq!(entry.autoscaler.template.docker_host.as_deref(), Some(""));
    let expected = Docker { wait_for_services: Duration::from_secs(30), ..Docker::default() };
    assert_eq!(entry.engine.docker, Some(expected));
}

/// Of the job's container, from what it shares with services.
fn build(shared: HostOptions) -> HostOptions {
    let tun = Device {
        outside: "/dev/net/tun".into(),
        inside: "/dev/net/tun".into(),
        permissions: "rwm".into(),
    };
    let other =
        Device { outside: "/dev/a".into(), inside: "/dev/b".into(), permissions: "r".into() };
    HostOptions {
        memory: 128 << 20,
        memory_swap: 256 << 20,
        memory_reservation: 64 << 20,
        nano_cpus: 2_500_000_000,
        cpuset_cpus: "0,1".into(),
        devices: vec![tun, other],
        gpus: "all".into(),
        security_opt: strings(&["label:disable", "seccomp={}", "seccomp=unconfined"]),
        tmpfs: pairs("/TMP", "rw"),
        ulimits: [("rtprio".into(), (99, 99)), ("nofile".into(), (1024, 2048))].into(),
        ipc_mode: "host".into(),
        sysctls: pairs("net.ipv4.ip_forward", "1"),
        ..shared
    }
}

const TABLE: &str = r#"
        Host = "unix:///run/docker.sock"
        tls_verify = false
        image = "ruby:3.3"
        pull_policy = ["always", "if-not-present"]
        allowed_pull_policies = ["always", "never"]
        privileged = true
        services_privileged = false
        user = "ci"
        volumes = ["", "/cache:ro", "/mnt/a:/a:ro,z"]
        cache_dir = "/mnt/cache"
        services_limit = -1
        wait_for_services_timeout = -1
        network_mtu = 1400
        container_labels = { Team = "$CI_PROJECT_NAME" }
        memory = "128m"
        memory_swap = "256M"
        memory_reservation = "64mb"
        cpus = "2.5"
        cpuset_cpus = "0,1"
        shm_size = 300000
        devices = ["/dev/net/tun", "/dev/a:/dev/b:r"]
        gpus = "all"
        dns = ["8.8.8.8"]
        extra_hosts = ["other-host:127.0.0.1"]
        security_opt = ["label:disable", "seccomp=profile.json", "seccomp=unconfined"]
        tmpfs = { "/TMP" = "rw" }
        ulimit = { rtprio = "99", nofile = "1024:2048" }
        log_options = { env = "CI_JOB_ID" }
        ipcmode = "host"
        service_memory = "1g"
        service_cpus = "1/2"
        services_tmpfs = { "/var/lib" = "rw" }
        [runners.docker.sysctls]
        "net.ipv4.ip_forward" = "1"
        [[runners.docker.services]]
        name = "postgres:17"
        alias = "db, $DB_ALIAS"
        environment = ["POSTGRES_DB=x"]
"#;

#[test]
fn keys_and_values_keep_their_meaning() {
    let shared = HostOptions {
        dns: strings(&["8.8.8.8"]),
        extra_hosts: strings(&["other-host:127.0.0.1"]),
        log_options: pairs("env", "CI_JOB_ID"),
        shm_size: 300_000,
        ..HostOptions::default()
    };
    let expected = Docker {
        host: "unix:///run/docker.sock".into(),
        image: "ruby:3.3".into(),
        pull_policies: vec![PullPolicy::PullAlways, PullPolicy::PullIfNotPresent],
        allowed_pull_policies: vec![PullPolicy::PullAlways, PullPolicy::PullNever],
        privileged: true,
        services_privileged: Some(false),
        user: "ci".into(),
        volumes: strings(&["/cache", "/mnt/a:/a:ro,z"]),
        cache_dir: "/mnt/cache".into(),
        network_mtu: 1400,
        labels: pairs("Team", "$CI_PROJECT_NAME"),
        services: vec![Service {
            name: "postgres:17".into(),
            aliases: strings(&["db", "$DB_ALIAS"]),
            environment: strings(&["POSTGRES_DB=x"]),
            ..Service::default()
        }],
        build: build(shared.clone()),
        service: HostOptions {
            memory: 1 << 30,
            nano_cpus: 500_000_000,
            tmpfs: pairs("/var/lib", "rw"),
            ..shared
        },
        ..Docker::default()
    };
    assert_eq!(docker(TABLE), expected);
}

#[test]
fn one_policy_may_stand_alone_and_zero_is_not_absence() {
    assert_eq!(docker("pull_policy = \"never\"").pull_policies, [PullPolicy::PullNever]);
    assert_eq!(docker("services_limit = 0").services_limit, Some(0));
    let waited = docker("wait_for_services_timeout = 5").wait_for_services;
    assert_eq!(waited, Duration::from_secs(5));
}

#[test]
fn what_is_odd_or_without_effect_is_warned_of() {
    let cases = [
        ("isolation = \"hyperv\"", "docker.isolation: is ignored: it is for Windows"),
        ("mac_address = \"92:d0:c6:0a:29:33\"", "docker.mac_address: is ignored"),
        ("volume_driver = \"nfs\"", "docker.volume_driver: is ignored"),
        ("volume_driver_ops = { type = \"nfs\" }", "docker.volume_driver_ops: is ignored"),
        ("volume_keep = true", "docker.volume_keep: is ignored"),
        ("pid_mode = \"host\"", "docker.pid_mode: is ignored"),
        ("services_devices = { \"**\" = [\"/dev/kvm\"] }", "docker.services_devices: is ignored"),
        ("service_slot_cgroup_template = \"a-${slot}\"", "cgroup_template: is ignored"),
        ("helper_image_flavor = \"ubuntu\"", "docker.helper_image_flavor: is ignored"),
        ("helper_image_autoset_arch_and_os = true", "arch_and_os: is ignored"),
        ("tls_cert_path = \"/certs\"", "counts only with tls_verify"),
        ("imge = \"a\"", "the key \"imge\" is unknown"),
        ("allowed_pull_policies = [\"never\"]", "has none of pull_policy"),
        (
            "services = [{ name = \"a\", alias = \"db\" }, { name = \"b\", alias = \"x db\" }]",
            "services[1].alias: \"db\" is the alias of a service before",
        ),
        (
            "services = [{ name = \"a\", environment = [\"A\"] }]",
            "services[0].environment: entry 0 has no `=`",
        ),
    ];
    for (text, says) in cases {
        let (_, warnings) = entry(text);
        assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
        assert!(warnings[0].contains(says), "{text}: {}", warnings[0]);
    }
    for text in ["isolation = \"\"", "volume_keep = false", "services_devices = {}"] {
        docker(text);
    }
}

/// All keys of GitLab Runner 19.4 (`DockerConfig`, `docker.Credentials`), by what says
/// nothing in each.
const ALL_KEYS: [(&str, &[&str]); 6] = [
    (
        "\"\"",
        &[
            "hostname",
            "image",
            "runtime",
            "memory",
            "memory_swap",
            "memory_reservation",
            "cgroup_parent",
            "cpuset_cpus",
            "cpuset_mems",
            "cpus",
            "user",
            "userns_mode",
            "gpus",
            "volume_driver",
            "cache_dir",
            "network_mode",
            "pid_mode",
            "ipcmode",
            "mac_address",
            "service_memory",
            "service_memory_swap",
            "service_memory_reservation",
            "service_cgroup_parent",
            "service_slot_cgroup_template",
            "service_cpuset_cpus",
            "service_cpus",
            "service_gpus",
            "isolation",
            "helper_image",
            "helper_image_flavor",
            "host",
            "tls_cert_path",
        ],
    ),
    (
        "0",
        &[
            "cpu_shares",
            "oom_score_adjust",
            "service_cpu_shares",
            "wait_for_services_timeout",
            "shm_size",
            "network_mtu",
        ],
    ),
    (
        "[]",
        &[
            "dns",
            "dns_search",
            "allowed_users",
            "group_add",
            "cap_add",
            "cap_drop",
            "security_opt",
            "services_security_opt",
            "devices",
            "device_cgroup_rules",
            "volumes",
            "extra_hosts",
            "volumes_from",
            "links",
            "services",
            "allowed_images",
            "allowed_privileged_images",
            "allowed_privileged_services",
            "allowed_pull_policies",
            "allowed_services",
            "pull_policy",
        ],
    ),
    (
        "false",
        &[
            "privileged",
            "services_privileged",
            "disable_entrypoint_overwrite",
            "oom_kill_disable",
            "disable_cache",
            "volume_keep",
            "enable_ipv6",
            "tls_verify",
        ],
    ),
    (
        "{}",
        &[
            "services_devices",
            "volume_driver_ops",
            "tmpfs",
            "services_tmpfs",
            "sysctls",
            "container_labels",
            "ulimit",
            "log_options",
        ],
    ),
    ("-1", &["services_limit"]),
];

#[test]
fn every_key_of_gitlab_is_known() {
    let line = |key: &str, value: &str| format!("{key} = {value}\n");
    let lines = ALL_KEYS.iter().flat_map(|(value, keys)| keys.iter().map(|key| line(key, value)));
    let expected = Docker {
        services_privileged: Some(false),
        wait_for_services: Duration::from_secs(30),
        ..Docker::default()
    };
    assert_eq!(docker(&lines.collect::<String>()), expected);
}
