use super::*;
use serde_json::json;

fn check(config: Value) -> Result<Options, String> {
    let config: Config = serde_json::from_value(config).expect("an object");
    config.check(&Surroundings { machine: Some("m".into()), ..Surroundings::default() })
}

fn complaint(config: &Value) -> String {
    check(config.clone()).err().unwrap_or_else(|| panic!("{config} is taken"))
}

#[test]
fn an_image_is_enough() {
    let options = check(json!({"image": "debian:13"})).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((options.name.as_str(), options.owner.as_str()), ("docker", "m"));
    assert_eq!(options.address, Address::Unix("/var/run/docker.sock".into()));
    assert_eq!((options.pull, options.max_size), (Pull::IfNotPresent, 10));
    assert_eq!(options.reach, Reach::Container);
    assert_eq!(options.container, ContainerOptions::default());
}

#[test]
fn everything_can_be_written() {
    let options = check(json!({
        "image": "a/b@sha256:00", "name": "n", "owner": "o", "host": "tcp://h:1", "tls_certs": "/c",
        "pull": "always", "registry_user": "u", "registry_password": "p", "max_size": 3,
        "user": "ci", "workdir": "/w", "command": ["x"], "env": {"A": "b"}, "labels": {"l": "m"},
        "mounts": ["/a:/b:ro"], "networks": ["n"], "cpus": "1.5", "memory": "1g", "pids_limit": 5,
        "shm_size": 7, "disk": "2g", "privileged": true, "cap_add": ["A"], "cap_drop": ["B"],
        "security_opt": ["s"], "devices": ["/dev/kvm"], "docker": "dind",
        "publish_address": "10.0.0.1",
    }))
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(options.reach, Reach::Published { bind: "10.0.0.1".into() });
    assert_eq!(options.certificates, Some(Certificates("/c".into())));
    assert_eq!(options.container.nano_cpus, Some(1_500_000_000));
    assert_eq!(options.container.memory_bytes, Some(1 << 30));
    assert_eq!(options.container.docker, InnerDocker::Dind);
    assert!(matches!(options.registry, RegistryLogin::Password { .. }));
}

#[test]
fn complaints_name_key_and_value_in_one_line() {
    let with = |key: &str, value: Value| json!({"image": "i", key: value});
    for (config, parts) in [
        (json!({}), ["image", "missing"]),
        (json!({"image": "a b"}), ["image", "a b"]),
        (with("imgae", json!("x")), ["imgae", "known are cap_add"]),
        (with("name", json!("a/b")), ["name", "a/b"]),
        (with("host", json!("ssh://x")), ["host", "ssh://x"]),
        (with("tls_certs", json!("/x")), ["tls_certs", "unix"]),
        (with("pull", json!("often")), ["pull", "often"]),
        (with("registry_user", json!("u")), ["registry_user", "registry_password"]),
        (with("max_size", json!(0)), ["max_size", "0"]),
        (with("cpus", json!("many")), ["cpus", "many"]),
        (with("cpus", json!(0)), ["cpus", "0"]),
        (with("memory", json!("1x")), ["memory", "1x"]),
        (with("env", json!({"A=B": "c"})), ["env", "A=B"]),
        (with("labels", json!({"mayfly.group": "x"})), ["labels", "mayfly.group"]),
        (with("networks", json!(["host"])), ["networks", "host"]),
        (with("mounts", json!(["/a"])), ["mounts", "/a"]),
        (with("workdir", json!("w")), ["workdir", "w"]),
        (with("docker", json!("dind")), ["docker", "privileged"]),
        (with("docker", json!("yes")), ["docker", "yes"]),
        (with("reach", json!("magic")), ["reach", "magic"]),
        (with("publish_address", json!("1.1.1.1")), ["publish_address", "reach"]),
        (with("privileged", json!("true")), ["privileged", "true"]),
    ] {
        let complaint = complaint(&config);
        assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
        assert!(!complaint.contains('\n'), "{complaint}");
    }
}

#[test]
fn complaints_do_not_show_secrets() {
    let secret = json!({"image": "i", "registry_password": ["hunter2"]});
    assert!(!complaint(&secret).contains("hunter2"));
    let environment = json!({"image": "i", "env": {"TOKEN": ["hunter2"]}});
    assert!(!complaint(&environment).contains("hunter2"));
}

#[test]
fn the_environment_names_the_daemon_where_nothing_is_written() {
    let here = Surroundings {
        docker_host: Some("tcp://remote:2376".into()),
        docker_certificates: Some("/certs".into()),
        machine: Some("m".into()),
    };
    let check = |config: Value| {
        let config: Config = serde_json::from_value(config).expect("an object");
        config.check(&here).unwrap_or_else(|e| panic!("{e}"))
    };
    let options = check(json!({"image": "i"}));
    assert_eq!(options.address.to_string(), "tcp://remote:2376");
    assert_eq!(options.certificates, Some(Certificates("/certs".into())));
    let options = check(json!({"image": "i", "host": "unix:///x"}));
    assert_eq!((options.address.to_string().as_str(), options.certificates), ("unix:///x", None));
}
