//! What goes wrong around a plugin: images, registries, daemons, and its own sudden end.

mod support;

use std::time::Duration;

use mayfly_plugin::{ConnectorConfig, InstanceState};
use serde_json::json;
use support::{
    DEBIAN, LIMIT, OwnDocker, Rig, add_one, await_gone, await_log, in_state, info, list, login,
    logs, until,
};

#[tokio::test]
async fn a_plugin_killed_at_any_moment_leaves_nothing_unexplained() {
    let Some(rig) = Rig::new(json!({"max_size": 8})) else { return };
    // So many containers exist, and so many of them have been started.
    for (made, started) in [(0, 0), (1, 0), (4, 0), (6, 1), (6, 4), (6, 6)] {
        let plugin = rig.start().await;
        assert_eq!(plugin.increase(6, LIMIT).await.expect("accepted"), 6);
        until(async || (rig.containers().len() >= made && rig.started() >= started).then_some(()))
            .await;
        rig.kill_plugin(plugin).await;

        let plugin = rig.start().await;
        // What was never started goes; what runs is told to the host, and can be used.
        let ids = until(async || {
            let listed = list(&plugin).await;
            let running = in_state(&plugin, InstanceState::Running).await;
            (listed.len() == running.len() && rig.containers().len() == running.len())
                .then_some(running)
        })
        .await;
        for id in &ids {
            plugin.heartbeat(id, LIMIT).await.expect("healthy");
        }
        println!("killed with {made} made, {started} started: {} run", ids.len());
        assert!(ids.len() >= started);
        plugin.decrease(ids.clone(), LIMIT).await.expect("accepted");
        until(async || (rig.containers().len() <= made).then_some(())).await;
        rig.kill_plugin(plugin).await;

        let plugin = rig.start().await;
        // A host asks again for what it still sees.
        let left = in_state(&plugin, InstanceState::Running).await;
        plugin.decrease(left, LIMIT).await.expect("accepted");
        until(async || list(&plugin).await.is_empty().then_some(())).await;
        assert_eq!(rig.containers(), Vec::<String>::new(), "after {made} made, {started} started");
    }
}

#[tokio::test]
async fn a_promise_can_be_taken_back() {
    let Some(rig) = Rig::new(json!({})) else { return };
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(4, LIMIT).await.expect("accepted"), 4);
    let ids = in_state(&plugin, InstanceState::Creating).await;
    plugin.decrease(ids, LIMIT).await.expect("accepted");
    until(async || {
        let gone = list(&plugin).await.iter().all(|one| one.state == InstanceState::Deleted);
        (gone && rig.containers().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_daemon_that_ends_and_comes_back_is_used_again() {
    let Some(own) = OwnDocker::start(&json!({})) else { return };
    let docker = &own.docker;
    let rig = Rig::on(docker.clone(), json!({}));
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    docker.script("stop");
    let error = plugin.update(LIMIT).await.expect_err("no daemon").to_string();
    let parts = ["cannot list containers", &docker.host(), "cannot be reached", "is it running"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    assert!(plugin.increase(1, LIMIT).await.is_err());
    assert!(plugin.decrease(vec![id.clone()], LIMIT).await.is_err());
    assert!(plugin.connect_info(&id, LIMIT).await.is_err());
    let refused = Rig::on(docker.clone(), json!({})).refusal().await;
    assert!(refused.contains("is it running there? start it, or set host"), "{refused}");

    docker.script("start");
    // The container ended with its daemon.
    await_gone(&plugin, &id).await;
    let id = add_one(&plugin).await;
    assert_eq!(login(&plugin, &id).await.output("echo up").await, "up");
}

#[tokio::test]
async fn with_live_restore_instances_outlive_their_daemon() {
    let Some(own) = OwnDocker::start(&json!({"live-restore": true})) else { return };
    let rig = Rig::on(own.docker.clone(), json!({}));
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let client = login(&plugin, &id).await;
    own.docker.script("stop");
    assert_eq!(client.output("echo without a daemon").await, "without a daemon");
    plugin.update(LIMIT).await.expect_err("no daemon");
    own.docker.script("start");
    assert_eq!(in_state(&plugin, InstanceState::Running).await, std::slice::from_ref(&id));
    assert_eq!(login(&plugin, &id).await.output("echo again").await, "again");
    plugin.decrease(vec![id.clone()], LIMIT).await.expect("accepted");
    await_gone(&plugin, &id).await;
}

#[tokio::test]
async fn over_tls_instances_are_reached_by_published_ports() {
    let Some(mut rig) = Rig::new(json!({"publish_address": "127.0.0.1"})) else { return };
    let certificates = rig.docker.directory.join("certs");
    rig.config["host"] = rig.docker.tls_host().into();
    rig.config["tls_certs"] = certificates.display().to_string().into();
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let address = info(&plugin, &id).await.external_addr;
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":20022"), "{address}");
    assert_eq!(login(&plugin, &id).await.output("echo published").await, "published");
    drop(plugin);

    // Another authority's client is not let in, and a server of another one not trusted.
    let strangers = tempfile::tempdir().expect("a directory");
    let openssl = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout"])
        .args([strangers.path().join("key.pem"), "-out".into(), strangers.path().join("cert.pem")])
        .output();
    assert!(openssl.expect("openssl runs").status.success());
    std::fs::copy(strangers.path().join("cert.pem"), strangers.path().join("ca.pem"))
        .expect("copied");
    rig.config["tls_certs"] = strangers.path().display().to_string().into();
    let refused = rig.refusal().await;
    assert!(refused.contains("certificate") && refused.contains("check tls_certs"), "{refused}");
    rig.config["tls_certs"] = "/nonexistent".into();
    let refused = rig.refusal().await;
    assert!(refused.contains("tls_certs: cannot read /nonexistent/cert.pem"), "{refused}");
}

#[tokio::test]
async fn a_dynamic_build_says_which_images_it_serves() {
    logs();
    let Some(mut rig) = Rig::new(json!({})) else { return };
    rig.binary = env!("CARGO_BIN_EXE_fleeting-plugin-docker").into();
    let plugin = rig.start().await;
    await_log("this plugin is linked dynamically").await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 1);
    await_log("use the static one that `make build` makes").await;
    until(async || rig.containers().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_static_build_serves_debian_with_bash() {
    let Some(mut rig) = Rig::new(json!({})) else { return };
    if rig.docker.run(&["images", "-q", DEBIAN]).is_empty() {
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: no image {DEBIAN}");
        println!("skipped: no image {DEBIAN}: run tests/setup");
        return;
    }
    rig.config["image"] = DEBIAN.into();
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let client = login(&plugin, &id).await;
    assert_eq!(client.output("echo $SHELL ${BASH##*/}").await, "/bin/bash bash");
    client.output("git --version").await;
}

#[tokio::test]
async fn the_operator_s_own_key_and_name_are_taken() {
    let Some(mut rig) = Rig::new(json!({})) else { return };
    let pair = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(rig.docker.directory.join(format!("key-{}", rig.name())))
        .output();
    assert!(pair.expect("ssh-keygen runs").status.success());
    let path = rig.docker.directory.join(format!("key-{}", rig.name()));
    let key = std::fs::read(&path).expect("readable");
    std::fs::remove_file(&path).expect("removed");
    std::fs::remove_file(path.with_extension("pub")).expect("removed");
    rig.settings.connector = ConnectorConfig {
        username: "ci".into(),
        key: key.clone(),
        use_static_credentials: true,
        keepalive: Duration::from_secs(7),
        timeout: Duration::from_secs(8),
        ..ConnectorConfig::default()
    };
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    let connector = info(&plugin, &id).await.connector;
    assert_eq!((connector.key, connector.username.as_str()), (key, "ci"));
    assert_eq!((connector.keepalive.as_secs(), connector.timeout.as_secs()), (7, 8));
    assert_eq!(login(&plugin, &id).await.output("id -un").await, "ci");
    let trusted = login(&plugin, &id).await.output("wc -l < /.mayfly/authorized_keys").await;
    assert_eq!(trusted, "1");
}

/// What only the daemon knows to be wrong is in the log, in its words.
#[tokio::test]
async fn settings_that_the_daemon_refuses_are_told() {
    logs();
    for (settings, said) in [
        (json!({"user": "nobody-of-that-name"}), "unable to find user nobody-of-that-name"),
        (json!({"networks": ["no-such-network"]}), "network no-such-network not found"),
        (json!({"devices": ["/dev/no-such-device"]}), "/dev/no-such-device"),
        (json!({"command": ["no-such-program"]}), "no-such-program"),
    ] {
        let Some(rig) = Rig::new(settings) else { return };
        let plugin = rig.start().await;
        assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 1);
        await_log(said).await;
        until(async || rig.containers().is_empty().then_some(())).await;
    }
}
