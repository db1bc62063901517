//! `examples/providers/docker.sh` with a Docker daemon: containers that are logged in to.
//!
//! The image is made of this machine's own files, so no registry is needed.

#[path = "../../local/tests/support/ssh.rs"]
#[expect(dead_code, reason = "a part is used")]
mod ssh;
mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use mayfly_plugin::InstanceState;
use serde_json::json;
use support::*;

/// What this machine lacks.
fn missing() -> Option<String> {
    for (program, argument) in [("jq", "--version"), ("ssh-keygen", "-?")] {
        if Command::new(program).arg(argument).output().is_err() {
            return Some(format!("there is no {program}"));
        }
    }
    if !Path::new("/usr/sbin/sshd").is_file() {
        return Some("/usr/sbin/sshd is not there: apt-get install openssh-server".into());
    }
    match Command::new("docker").arg("version").stdout(Stdio::null()).output() {
        Err(_) => Some("there is no docker".into()),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Some(format!("no Docker daemon can be reached: {complaint}"))
        }
    }
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complaint}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The image and all containers go with it.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let name = &self.0;
        shell(&format!(
            "docker ps --all --quiet --filter label=mayfly.group={name} | xargs -r docker rm --force
            docker rmi --force {name}"
        ));
    }
}

#[tokio::test]
async fn containers_are_made_logged_in_to_paused_and_removed() {
    if let Some(missing) = missing() {
        return skipped(&missing);
    }
    let name = format!("mayfly-test-{}", std::process::id());
    let mut rig = Rig::ops(json!({"name": name}));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/providers/docker.sh");
    write_program(&rig.path("provider.sh"), &std::fs::read_to_string(program).expect("readable"));
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image.sh");
    let (root, key) = (rig.path("root"), rig.path("key"));
    shell(&format!("sh '{}' '{}'", make.display(), root.display()));
    shell(&format!("tar -C '{}' -c . | docker import - {name}", root.display()));
    let _image = Image(name.clone());
    shell(&format!("ssh-keygen -q -t ed25519 -N '' -f '{}'", key.display()));
    let public = shell(&format!("cat '{}.pub'", key.display()));
    rig.config["settings"] = json!({"image": name, "public_key": public});
    rig.settings.connector.username = "root".into();
    rig.settings.connector.key = std::fs::read(&key).expect("a key");

    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("created"), 2, "{}", rig.log());
    let listed = until(async || {
        let listed = list(&plugin).await;
        let all_run = listed.iter().all(|one| one.state == RUNNING);
        (listed.len() == 2 && all_run).then_some(listed)
    })
    .await;
    let id = listed[0].id.clone();
    let info = plugin.connect_info(&id, LIMIT).await.expect("an address");
    let client = until(async || ssh::Client::dial(&info).await.ok()).await;
    assert_eq!(client.output("id -un && cat /.dockerenv").await.trim(), "root");

    let state = async || {
        let listed = list(&plugin).await;
        listed.into_iter().find(|one| one.id == id).map(|one| one.state)
    };
    plugin.suspend(vec![id.clone()], LIMIT).await.expect("paused");
    assert_eq!(state().await, Some(InstanceState::Suspended));
    plugin.resume(vec![id.clone()], LIMIT).await.expect("goes on");
    assert_eq!(state().await, Some(RUNNING));
    for _ in 0..2 {
        let deleted = plugin.decrease(vec![id.clone()], LIMIT).await.expect("deleted");
        assert_eq!(deleted, std::slice::from_ref(&id));
    }
    assert_eq!(state().await, None);
    assert_eq!(list(&plugin).await.len(), 1);
}
