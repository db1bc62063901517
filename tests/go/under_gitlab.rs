//! Our plugins under GitLab's own library, as in a GitLab Runner, and started by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Docker, binaries, processes, seconds, skip, until};
use tempfile::TempDir;

use super::host::{self, Seen};

/// A plugin with a configuration for one instance at least.
struct Case {
    name: &'static str,
    config: Value,
    /// What it says of an instance that it does not know.
    unknown: &'static str,
    /// Where it keeps what it keeps.
    kept: TempDir,
}

impl Case {
    fn local() -> Self {
        let kept = directory();
        let config = json!({"root": kept.path().join("instances"), "name": "go", "max_size": 3});
        let unknown = "code = Unknown desc = instance no-such-instance does not exist";
        Self { name: "local", config, unknown, kept }
    }

    fn minimal() -> Self {
        let kept = directory();
        let config = json!({"machines": ["192.0.2.1:2222"], "taken": kept.path().join("taken")});
        let unknown = "code = Unknown desc = there is no instance no-such-instance";
        Self { name: "minimal", config, unknown, kept }
    }

    fn static_test() -> Self {
        let machine = json!({"user": "ci", "addr": "192.0.2.1:2222", "password": "word"});
        let config = json!({"instances": {"interop-machine": machine}});
        let unknown = "code = Unknown desc = there is no machine \"no-such-instance\"";
        Self { name: "static-test", config, unknown, kept: directory() }
    }

    /// The directory is also the marker.
    fn drive(&self, drive: &str) -> Option<Seen> {
        host::drive(drive, &binaries().plugin(self.name), &self.config, &self.marker())
    }

    fn marker(&self) -> String {
        self.kept.path().display().to_string()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // Instances outlive plugin and host, but not a test that failed.
        processes::kill_mentioning(&self.marker());
    }
}

/// Users of instances must be able to look into it.
fn directory() -> TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new().permissions(mode).tempdir().expect("a directory")
}

#[test]
fn every_call_of_each_of_our_plugins() {
    for case in [Case::local(), Case::minimal(), Case::static_test()] {
        let Some(seen) = case.drive("calls") else { return };
        let name = case.name;
        let init = seen.one("init");
        assert!(!init["id"].as_str().unwrap_or_default().is_empty(), "{name}: {init}");
        assert!(init["max_size"].as_u64() >= Some(1), "{name}: {init}");
        assert_eq!(init["version"], env!("CARGO_PKG_VERSION"), "{name}");
        let build_info = init["build_info"].as_str().unwrap_or_default();
        assert!(build_info.starts_with("sha="), "{name}: {init}");
        assert_eq!(init["capabilities"], json!([]), "{name}");

        assert_eq!(seen.one("increase")["succeeded"], 1, "{name}");
        let id = seen.one("heartbeat")["instance"].as_str().expect("an instance");
        let updates = seen.all("update");
        let listed = |when| updates.iter().find(|u| u["when"] == when).map(|u| &u["instances"]);
        assert_eq!(listed("before"), Some(&json!({})), "{name}");
        assert_eq!(listed("running"), Some(&json!({id: "running"})), "{name}");
        assert_eq!(listed("after"), Some(&json!({})), "{name}");

        let info = seen.one("connect_info");
        assert_eq!(info["instance"], id, "{name}");
        assert_eq!((&info["keepalive"], &info["timeout"]), (&json!("20s"), &json!("1m0s")));
        let unknown = seen.one("unknown_instance")["connect_info"].as_str().unwrap_or_default();
        assert!(unknown.ends_with(case.unknown), "{name}: {unknown}");
        let suspend = seen.one("suspend_resume");
        assert_eq!(suspend["suspend_unsupported"], true, "{name}");
        assert_eq!(suspend["resume_unsupported"], true, "{name}");
        assert_eq!(seen.one("decrease")["succeeded"], json!([id]), "{name}");
        assert!(seen.one("stop")["milliseconds"].as_u64() < Some(2000), "{name}");
        assert_gone(&case, &[id]);
    }
}

#[test]
fn gitlab_s_own_loop_makes_uses_and_deletes_instances() {
    let case = Case::local();
    let Some(seen) = case.drive("provisioner") else { return };
    let instances = seen.all("instance");
    let ids: Vec<&str> = instances.iter().filter_map(|i| i["instance"].as_str()).collect();
    assert_eq!(ids.len(), 2, "{seen:#?}");
    for (instance, login) in instances.iter().zip(seen.all("login")) {
        assert_eq!(instance["cause"], "requested");
        assert_eq!((&instance["protocol"], &instance["os"]), (&json!("ssh"), &json!("linux")));
        assert_eq!(instance["has_key"], true);
        assert_eq!(
            (&instance["keepalive"], &instance["timeout"]),
            (&json!("30s"), &json!("10m0s"))
        );
        let id = instance["instance"].as_str().expect("an id");
        let lines = &login["lines"];
        assert_eq!((&login["instance"], &lines[0]), (&instance["instance"], &instance["user"]));
        let home = Path::new(lines[1].as_str().expect("a home"));
        assert!(home.starts_with(case.kept.path()) && home.to_string_lossy().contains(id));
        assert_eq!(lines[2], "writable");
    }
    for command in seen.all("command") {
        assert_eq!(command["exit_code"], 7);
        assert_eq!(command["stdout"], "through stdin");
        assert_eq!(command["stderr"], "on stderr\n");
    }
    let echoes = seen.all("echo");
    assert_eq!(echoes.len(), 4);
    assert!(echoes.iter().all(|echo| echo["sent"] == echo["back"]), "{echoes:?}");
    let capacity = seen.one("capacity");
    assert_eq!((&capacity["running"], &capacity["max"]), (&json!(2), &json!(2)));
    assert_eq!(seen.one("shutdown")["left"], 0);
    assert_gone(&case, &ids);
}

#[test]
fn gitlab_s_own_loop_drives_containers_too() {
    let docker = match Docker::find() {
        Ok(docker) => docker,
        Err(missing) => skip!("{missing}"),
    };
    let config = docker.plugin_config("mayfly-test/busybox");
    let marker = config["name"].as_str().expect("a name").to_owned();
    let Some(seen) = host::drive("provisioner", &docker.plugin(), &config, &marker) else { return };
    assert_eq!(seen.all("instance").len(), 2, "{seen:#?}");
    for login in seen.all("login") {
        assert_eq!(login["lines"], json!(["root", "/root", "writable"]));
    }
    for command in seen.all("command") {
        assert_eq!(
            (&command["exit_code"], &command["stdout"]),
            (&json!(7), &json!("through stdin"))
        );
    }
    assert_eq!(seen.all("echo").len(), 4);
    assert_eq!(seen.one("shutdown")["left"], 0);
    until("all containers are gone", seconds(20), || docker.containers().is_empty());
    let Some(seen) = host::drive("calls", &docker.plugin(), &config, &marker) else { return };
    assert_eq!(seen.one("init")["capabilities"], json!(["suspend_resume"]));
    assert_eq!(seen.one("suspend_resume")["suspend_unsupported"], false);
}

/// No process of host, plugin or instances is left, and no file of an instance.
fn assert_gone(case: &Case, ids: &[&str]) {
    let marker = case.marker();
    for text in ids.iter().copied().chain([marker.as_str()]) {
        let gone = processes::wait_until_gone(seconds(10), || processes::mentioning(text));
        assert_eq!(gone, Ok(()), "{}", case.name);
    }
    let left = files(case.kept.path());
    let is_of_instance = |path: &PathBuf| ids.iter().any(|id| path.to_string_lossy().contains(id));
    assert!(!left.iter().any(is_of_instance), "{left:?}");
}

fn files(below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let inner = if path.is_dir() { files(&path) } else { Vec::new() };
            std::iter::once(path).chain(inner)
        })
        .collect()
}

const BY_HAND: &str = "\
This binary is a plugin. These are not meant to be executed directly.
Please execute the program that consumes these plugins, which will
load any plugins automatically
";

#[test]
fn started_by_hand_our_plugins_say_what_they_are() {
    for name in ["local", "minimal", "static-test"] {
        for cookie in [None, Some("wrong"), Some("")] {
            let output = by_hand(&binaries().plugin(name), &[], cookie);
            assert_eq!(output.status.code(), Some(1), "{name}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{name}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), BY_HAND, "{name}");
        }
    }
}

#[test]
fn our_plugins_tell_their_version_in_seven_lines() {
    for name in ["local", "minimal", "static-test"] {
        for word in ["version", "-version", "--version"] {
            let output = by_hand(&binaries().plugin(name), &[word], None);
            assert_eq!(output.status.code(), Some(0), "{name} {word}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let lines: Vec<&str> = text.trim_end().lines().collect();
            assert_eq!(lines.len(), 7, "{text}");
            assert_eq!(lines[0], format!("Name:         fleeting-plugin-{name}"));
            assert_eq!(lines[1], concat!("Version:      ", env!("CARGO_PKG_VERSION")));
            let is_aligned =
                |line: &&str| line.as_bytes()[13] == b' ' && line.as_bytes()[14] != b' ';
            assert!(lines.iter().all(is_aligned), "{text}");
        }
    }
}

fn by_hand(plugin: &Path, arguments: &[&str], cookie: Option<&str>) -> Output {
    let mut command = Command::new(plugin);
    command.args(arguments).env_remove("FLEETING_INSTANCE_GROUP_PLUGIN");
    if let Some(cookie) = cookie {
        command.env("FLEETING_INSTANCE_GROUP_PLUGIN", cookie);
    }
    command.output().expect("it can be run")
}
