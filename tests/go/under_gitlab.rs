//! Our plugins under GitLab's own library, as in a GitLab Runner, and started by hand.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{binaries, skip};

use super::host::{self, Host};
use super::ours::{Case, NAMES};

#[test]
fn every_call_of_each_of_our_plugins_under_the_library_of_2026() {
    every_call(host::OF_2026);
}

#[test]
fn every_call_of_each_of_our_plugins_under_the_library_of_2025() {
    every_call(host::OF_2025);
}

fn every_call(host: Host) {
    for name in NAMES {
        let case = match Case::of(name) {
            Ok(case) => case,
            Err(missing) => {
                support::skipped(&format!("{name}: {missing}"));
                continue;
            }
        };
        let Some(seen) = case.drive(host, "calls") else { return };
        let init = seen.one("init");
        assert!(!init["id"].as_str().unwrap_or_default().is_empty(), "{name}: {init}");
        assert!(init["max_size"].as_u64() >= Some(1), "{name}: {init}");
        assert_eq!(init["version"], env!("CARGO_PKG_VERSION"), "{name}");
        let build_info = init["build_info"].as_str().unwrap_or_default();
        assert!(build_info.starts_with("sha="), "{name}: {init}");

        assert_eq!(seen.one("increase")["succeeded"], 1, "{name}");
        let info = seen.one("connect_info");
        let id = info["instance"].as_str().expect("an instance");
        assert_eq!((&info["keepalive"], &info["timeout"]), (&json!("20s"), &json!("1m0s")));
        let updates = seen.all("update");
        let listed = |when| updates.iter().find(|u| u["when"] == when).map(|u| &u["instances"]);
        assert_eq!(listed("before"), Some(&json!({})), "{name}");
        assert_eq!(listed("running"), Some(&json!({id: "running"})), "{name}");
        // Some go on to tell it for a while.
        let after = listed("after").and_then(Value::as_object).expect("a list");
        assert!(after.values().all(|state| state == "deleted"), "{name}: {after:?}");

        let unknown = seen.one("unknown_instance")["connect_info"].as_str().unwrap_or_default();
        let expected = format!("code = Unknown desc = {}", case.unknown);
        assert!(unknown.ends_with(&expected), "{name}: {unknown}");
        if host.knows_health {
            let capabilities = if case.suspends { json!(["suspend_resume"]) } else { json!([]) };
            assert_eq!(init["capabilities"], capabilities, "{name}");
            assert_eq!(seen.one("heartbeat")["instance"], id, "{name}");
            let suspend = seen.one("suspend_resume");
            assert_eq!(suspend["suspended"], case.suspends, "{name}");
            assert_eq!(suspend["suspend_unsupported"], !case.suspends, "{name}");
            assert_eq!(suspend["resume_unsupported"], !case.suspends, "{name}");
        }
        assert_eq!(seen.one("decrease")["succeeded"], json!([id]), "{name}");
        seen.one("stop");
        case.assert_gone(&[id]);
    }
}

#[test]
fn gitlab_s_own_loop_makes_uses_and_deletes_instances() {
    for host in host::ALL {
        let case = Case::of("local").expect("nothing is missing");
        let Some(seen) = case.drive(host, "provisioner") else { return };
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
            assert!(case.keeps(home) && home.to_string_lossy().contains(id), "{home:?}");
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
        case.assert_gone(&ids);
    }
}

#[test]
fn gitlab_s_own_loop_drives_containers_too() {
    for host in host::ALL {
        let case = match Case::of("docker") {
            Ok(case) => case,
            Err(missing) => skip!("{missing}"),
        };
        let Some(seen) = case.drive(host, "provisioner") else { return };
        let instances = seen.all("instance");
        assert_eq!(instances.len(), 2, "{seen:#?}");
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
        case.assert_gone(&[]);
    }
}

/// The checks that make a call and take its answer.
const CALLS: [&str; 7] =
    ["init", "update", "increase-answers", "connect-info", "heartbeat", "decrease", "shutdown"];

/// What the manager does, as `mayfly plugin check` does it.
#[test]
fn every_call_of_each_of_our_plugins_under_our_own_host() {
    // The test plugin forgets its machines with its process, which the check does not take.
    for name in NAMES.into_iter().filter(|name| *name != "static-test") {
        let case = match Case::of(name) {
            Ok(case) => case,
            Err(missing) => {
                support::skipped(&format!("{name}: {missing}"));
                continue;
            }
        };
        let config = case.file("config.json");
        std::fs::write(&config, case.config.to_string()).expect("written");
        let output = Command::new(binaries().mayfly())
            .args(["plugin", "check", "--json", "--create", "--config"])
            .arg(&config)
            .arg(case.binary())
            .env("MAYFLY_PLUGIN_TEST", case.marker())
            .output()
            .expect("mayfly can be run");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        let report: Value = serde_json::from_str(&stdout).expect("one document of JSON");
        let checks = report["checks"].as_array().expect("checks");
        for call in CALLS {
            let check = checks.iter().find(|check| check["id"] == call).expect("it is known");
            // A script without heartbeats says so.
            let is_missing = call == "heartbeat" && check["outcome"] == "not_applicable";
            assert!(is_missing || check["outcome"] == "passed", "{name}: {check}");
        }
        case.assert_gone(&[]);
    }
}

const BY_HAND: &str = "\
This binary is a plugin. These are not meant to be executed directly.
Please execute the program that consumes these plugins, which will
load any plugins automatically
";

#[test]
fn started_by_hand_our_plugins_say_what_they_are() {
    for name in NAMES {
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
    for name in NAMES {
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
