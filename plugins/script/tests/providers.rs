//! The providers of `examples/providers`, against stubs of the tools that they call. A
//! stub keeps what it is told and answers in the words of the real tool.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mayfly_plugin::InstanceState;
use mayfly_plugin::host::Plugin;
use serde_json::{Value, json};
use support::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok()
}

/// A provider of the examples with the stub of its tool in front of all other tools;
/// nothing, with the reason printed, where there is no jq.
fn provider(name: &str, tool: &str, settings: Value) -> Option<Rig> {
    if !is_there("jq") {
        skipped("there is no jq: apt-get install jq");
        return None;
    }
    let rig = Rig::ops(json!({"name": "ci", "settings": settings}));
    for directory in ["stub", "stub/things", "stub/booted", "bin"] {
        std::fs::create_dir(rig.path(directory)).expect("made");
    }
    let copy = |from: PathBuf, to: PathBuf| {
        write_program(&to, &std::fs::read_to_string(from).expect("readable"));
    };
    copy(repository().join(format!("examples/providers/{name}.sh")), rig.path("provider.sh"));
    copy(
        repository().join(format!("plugins/script/tests/stubs/{tool}")),
        rig.path(&format!("bin/{tool}")),
    );
    let stub = rig.path("stub").display().to_string();
    let path = format!("{}:{}", rig.path("bin").display(), std::env::var("PATH").expect("a path"));
    Some(rig.env("MAYFLY_PLUGIN_STUB", &stub).env("PATH", &path))
}

fn calls(rig: &Rig) -> String {
    std::fs::read_to_string(rig.path("stub/calls")).unwrap_or_default()
}

fn states(listed: &[mayfly_plugin::InstanceStatus]) -> Vec<InstanceState> {
    listed.iter().map(|one| one.state).collect()
}

/// What holds for each of them: instances are made once, come up, are logged in to, go,
/// and failures are told in the tool's words. Returns the plugin with one instance.
async fn drive(rig: &Rig, address: &str, complaint: &str) -> (Plugin, String) {
    use InstanceState::{Creating, Running};
    let plugin = rig.start().await;
    assert!(list(&plugin).await.is_empty());
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2, "{}", rig.log());
    assert_eq!(states(&list(&plugin).await), [Creating, Creating], "{}", calls(rig));
    let listed = list(&plugin).await;
    assert_eq!(states(&listed), [Running, Running]);
    let info = plugin.connect_info(&listed[0].id, LIMIT).await.expect("an address");
    assert_eq!(info.internal_addr, address);
    plugin.heartbeat(&listed[0].id, LIMIT).await.expect("healthy");

    let gone = vec![listed[0].id.clone()];
    for _ in 0..2 {
        // The second time it is gone, which is as good.
        let deleted = plugin.decrease(gone.clone(), LIMIT).await.expect("deleted");
        assert_eq!(deleted, gone, "{}", rig.log());
    }
    let left = list(&plugin).await;
    assert_eq!(left.iter().map(|one| &one.id).collect::<Vec<_>>(), [&listed[1].id]);
    std::fs::write(rig.path("stub/fail"), "").expect("written");
    let refused = plugin.increase(1, LIMIT).await.expect_err("refused").to_string();
    assert!(refused.contains("create: ") && refused.contains(complaint), "{refused}");
    std::fs::remove_file(rig.path("stub/fail")).expect("removed");
    (plugin, listed[1].id.clone())
}

/// Another attempt with the same tokens makes nothing twice.
fn create_twice(rig: &Rig, settings: &Value) {
    let things = || std::fs::read_dir(rig.path("stub/things")).expect("readable").count();
    let before = things();
    let request = json!({"version": 1, "group": "ci", "settings": settings, "count": 2,
        "tokens": ["00000000000000aa", "00000000000000bb"]});
    let mut answers = [(); 2].map(|()| {
        let mut child = Command::new(rig.path("provider.sh"))
            .arg("create")
            .env("MAYFLY_PLUGIN_STUB", rig.path("stub"))
            .env(
                "PATH",
                format!("{}:{}", rig.path("bin").display(), std::env::var("PATH").expect("a path")),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        use std::io::Write as _;
        child.stdin.take().expect("piped").write_all(request.to_string().as_bytes()).expect("fed");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        parse(&String::from_utf8_lossy(&output.stdout))
    });
    let [first, second] = &mut answers;
    assert_eq!(first, second);
    assert_eq!(first["created"].as_array().map(Vec::len), Some(2));
    assert_eq!(things(), before + 2);
    schema::check(&schema::of("create", "response"), first).expect("fits");
}

fn login(rig: &mut Rig) {
    rig.settings.connector.username = "root".into();
    rig.settings.connector.key = b"KEY".to_vec();
}

#[tokio::test]
async fn kubernetes() {
    let settings = json!({"namespace": "ci-pods", "image": "debian", "public_key": "ssh-ed25519 A",
        "spec": {"nodeSelector": {"pool": "ci"}}});
    let Some(mut rig) = provider("kubernetes", "kubectl", settings.clone()) else { return };
    login(&mut rig);
    let (_plugin, id) = drive(&rig, "10.244.0.7", "pods is forbidden").await;
    let pod = std::fs::read_to_string(rig.path("stub/things").join(&id)).expect("there");
    let pod = parse(&pod);
    assert_eq!((&pod["kind"], &pod["metadata"]["namespace"]), (&json!("Pod"), &json!("ci-pods")));
    let spec = &pod["spec"];
    assert_eq!(spec["nodeSelector"]["pool"], "ci");
    assert_eq!(
        (&spec["restartPolicy"], &spec["automountServiceAccountToken"]),
        (&json!("Never"), &json!(false))
    );
    let container = &spec["containers"][0];
    assert_eq!(
        (&container["image"], &container["env"][0]["value"]),
        (&json!("debian"), &json!("ssh-ed25519 A"))
    );
    let script = container["command"][2].as_str().expect("a script");
    assert!(script.contains("echo \"$PUBLIC_KEY\""), "{script}");
    create_twice(&rig, &settings);
}

#[tokio::test]
async fn ecs() {
    let settings =
        json!({"task_definition": "sshd:3", "subnets": ["subnet-1"], "cluster": "builds"});
    let Some(mut rig) = provider("ecs", "aws", settings.clone()) else { return };
    login(&mut rig);
    let (plugin, _) = drive(&rig, "172.31.0.7", "not authorized").await;
    let run = calls(&rig).lines().find(|line| line.contains("run-task")).map(str::to_owned);
    let run = run.expect("called");
    for part in
        ["--started-by ci", "--task-definition sshd:3", "--launch-type FARGATE", "--cluster builds"]
    {
        assert!(run.contains(part), "{run}");
    }
    create_twice(&rig, &settings);
    // No room is not an error of the tool, but in its answer.
    std::fs::write(rig.path("stub/full"), "").expect("written");
    let refused = plugin.increase(1, LIMIT).await.expect_err("refused").to_string();
    assert!(refused.contains("create: RESOURCE:MEMORY"), "{refused}");
}

#[tokio::test]
async fn nomad() {
    let settings = json!({"job": "runner"});
    let Some(mut rig) = provider("nomad", "nomad", settings.clone()) else { return };
    login(&mut rig);
    let (plugin, id) = drive(&rig, "10.1.0.5:23022", "Permission denied").await;
    assert!(id.starts_with("runner/dispatch-"), "{id}");
    create_twice(&rig, &settings);
    assert_eq!(list(&plugin).await.len(), 3);
}

#[tokio::test]
async fn libvirt() {
    let Some(mut rig) = provider("libvirt", "virsh", json!({})) else { return };
    let xml = "<domain type='kvm'>\n<name>@NAME@</name>\n<source file='@DISK@'/>\n</domain>";
    std::fs::write(rig.path("domain.xml"), xml).expect("written");
    let settings = json!({"domain": rig.path("domain.xml"), "base": "base.qcow2"});
    rig.config["settings"] = settings.clone();
    login(&mut rig);
    let (plugin, id) = drive(&rig, "192.168.122.45", "process exited").await;
    let domain = std::fs::read_to_string(rig.path("stub/things").join(&id)).expect("there");
    let disk = format!("<source file='/var/lib/libvirt/images/{id}.qcow2'/>");
    assert!(domain.contains(&disk), "{domain}");
    assert!(calls(&rig).contains("--backing-vol base.qcow2 --backing-vol-format qcow2"));
    create_twice(&rig, &settings);

    // Nobody's else domain is touched, and what ended by itself leaves no volume for ever.
    let foreign = plugin.decrease(vec!["database".into()], LIMIT).await.expect_err("refused");
    assert!(foreign.to_string().contains("database is not of the group ci"), "{foreign}");
    std::fs::remove_file(rig.path("stub/things").join(&id)).expect("removed");
    assert!(rig.path(&format!("stub/volumes/{id}.qcow2")).exists());
    rig.kill_plugin(plugin).await;
    let plugin = rig.start().await;
    assert!(!rig.path(&format!("stub/volumes/{id}.qcow2")).exists());
    assert!(rig.path("stub/volumes/base.qcow2").exists());
    assert_eq!(list(&plugin).await.len(), 2);
}

#[tokio::test]
async fn docker() {
    let settings = json!({"image": "sshd"});
    let Some(mut rig) = provider("docker", "docker", settings.clone()) else { return };
    login(&mut rig);
    let (plugin, id) = drive(&rig, "127.0.0.1:32768", "Cannot connect to the Docker daemon").await;
    let run = calls(&rig).lines().find(|line| line.starts_with("run ")).map(str::to_owned);
    assert!(run.is_some_and(|run| run.contains("--label mayfly.group=ci --publish 127.0.0.1::22")));
    let ids = || vec![id.clone()];
    assert!(plugin.info().suspend_resume);
    assert_eq!(plugin.suspend(ids(), LIMIT).await.expect("paused").succeeded, ids());
    assert_eq!(states(&list(&plugin).await), [InstanceState::Suspended]);
    assert_eq!(plugin.resume(ids(), LIMIT).await.expect("goes on").succeeded, ids());
    assert_eq!(states(&list(&plugin).await), [InstanceState::Running]);
    create_twice(&rig, &settings);
}

#[test]
fn all_of_them_are_clean_scripts_of_posix() {
    let scripts = |below: &str| {
        let entries = std::fs::read_dir(repository().join(below)).expect("readable").flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| std::fs::read(path).is_ok_and(|text| text.starts_with(b"#!/bin/sh\n")));
        assert!(paths.len() >= 5, "{paths:?}");
        paths
    };
    let providers = scripts("examples/providers");
    for path in &providers {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path:?}");
    }
    if !is_there("shellcheck") {
        return skipped("there is no shellcheck: apt-get install shellcheck");
    }
    let output = Command::new("shellcheck")
        .arg("--shell=sh")
        .args(providers.iter().chain(&scripts("plugins/script/tests/stubs")))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
