//! Images from a registry: logins, refusals, and what comes of a pull.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use mayfly_plugin::InstanceState;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use support::{BUSYBOX, Docker, LIMIT, Rig, add_one, await_log, list, login, logs, until};

/// `me:hunter2`
const LOGIN: &str = "Basic bWU6aHVudGVyMg==";

/// A registry with one image, which lets one user in.
struct Registry {
    address: String,
    /// By path: type and content.
    content: Vec<(String, &'static str, Vec<u8>)>,
}

impl Registry {
    /// Its image `private:1` is the busybox of the daemon.
    fn start(rig: &Rig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("known").to_string();
        let content = Arc::new(image(rig));
        let served = Arc::clone(&content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&served);
                std::thread::spawn(move || answer(stream, &content));
            }
        });
        Self { address, content: content.to_vec() }
    }

    fn image(&self) -> String {
        format!("{}/private:1", self.address)
    }
}

fn answer(mut stream: TcpStream, content: &[(String, &'static str, Vec<u8>)]) {
    let reader = BufReader::new(stream.try_clone().expect("twice"));
    let head: Vec<String> =
        reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let may = head.iter().any(|line| line.strip_prefix("Authorization: ") == Some(LOGIN));
    let found = content.iter().find(|(known, ..)| known == path);
    let (status, kind, body) = match (may, found) {
        (false, _) => {
            ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", "text/plain", &[][..])
        }
        (true, None) => ("404 Not Found", "text/plain", &[][..]),
        (true, Some((_, kind, body))) => ("200 OK", *kind, body.as_slice()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that left needs no answer; `HEAD` has no body.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Manifest, configuration and the one layer of an image.
fn image(rig: &Rig) -> Vec<(String, &'static str, Vec<u8>)> {
    const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let docker = &rig.docker;
    let name = format!("export-{}", rig.name());
    docker.run(&["create", "--name", &name, BUSYBOX, "true"]);
    let pack = "docker -H \"$0\" export \"$1\" | gzip -1";
    let layer = Command::new("sh").args(["-c", pack, &docker.host(), &name]).output();
    let layer = layer.expect("sh runs").stdout;
    docker.run(&["rm", "-v", &name]);
    let mut unpacked = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(layer.as_slice());
    std::io::Read::read_to_end(&mut decoder, &mut unpacked).expect("gzip");
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux", "config": {}, "history": [{"created_by": "a test"}],
        "rootfs": {"type": "layers", "diff_ids": [digest(&unpacked)]},
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": config.len(), "digest": digest(&config)},
        "layers": [{"mediaType": LAYER, "size": layer.len(), "digest": digest(&layer)}],
    })
    .to_string()
    .into_bytes();
    let blob = |content: &[u8]| format!("/v2/private/blobs/{}", digest(content));
    vec![
        ("/v2/".into(), "application/json", b"{}".to_vec()),
        (format!("/v2/private/manifests/{}", digest(&manifest)), MANIFEST, manifest.clone()),
        ("/v2/private/manifests/1".into(), MANIFEST, manifest),
        (blob(&config), CONFIG, config),
        (blob(&layer), LAYER, layer),
    ]
}

fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[tokio::test]
async fn an_image_is_pulled_with_a_login_and_once() {
    let Some(mut rig) = Rig::new(json!({"pull": "if-not-present"})) else { return };
    let registry = Registry::start(&rig);
    assert_eq!(registry.content.len(), 5);
    rig.config["image"] = registry.image().into();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let auths = json!({"auths": {registry.address.as_str(): {"auth": &LOGIN["Basic ".len()..]}}});
    std::fs::write(file.path(), auths.to_string()).expect("written");
    rig.config["registry_auth_file"] = file.path().display().to_string().into();
    let plugin = rig.start().await;
    let id = add_one(&plugin).await;
    assert_eq!(login(&plugin, &id).await.output("echo pulled").await, "pulled");
    // It is there: the login is not needed again.
    std::fs::remove_file(file.path()).expect("removed");
    add_one(&plugin).await;
    drop(plugin);

    rig.config["pull"] = "always".into();
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(1, LIMIT).await.expect("accepted"), 1);
    let refused = until(async || plugin.increase(1, LIMIT).await.err()).await.to_string();
    assert!(
        refused.contains("registry_auth_file") && refused.contains("No such file"),
        "{refused}"
    );
    let image = registry.image();
    drop(rig);
    if let Some(docker) = Docker::shared() {
        docker.run(&["rmi", &image]);
    }
}

#[tokio::test]
async fn a_pull_that_is_refused_fails_the_instance_and_then_the_call() {
    logs();
    let Some(mut rig) = Rig::new(json!({
        "pull": "if-not-present", "registry_user": "me", "registry_password": "hunter3-wrong",
    })) else {
        return;
    };
    let registry = Registry::start(&rig);
    rig.config["image"] = registry.image().into();
    let plugin = rig.start().await;
    assert_eq!(plugin.increase(2, LIMIT).await.expect("accepted"), 2);
    until(async || {
        let states = list(&plugin).await;
        states.iter().all(|one| one.state == InstanceState::Deleted).then_some(())
    })
    .await;
    let error = plugin.increase(1, LIMIT).await.expect_err("known by now").to_string();
    assert!(error.contains("cannot pull image") && error.contains("registry_auth_file"), "{error}");
    await_log("cannot make an instance").await;
    assert!(!logs().lock().expect("whole").contains("hunter3") && !error.contains("hunter3"));
    assert_eq!(rig.containers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told_at_the_start() {
    let Some(mut rig) = Rig::new(json!({"image": "mayfly-test/none:1"})) else { return };
    let refused = rig.refusal().await;
    let parts = ["mayfly-test/none:1 is not on the Docker daemon", "pull = \"never\"", "load it"];
    assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    rig.config["imgae"] = "x".into();
    let refused = rig.refusal().await;
    assert!(refused.contains("unknown key \"imgae\""), "{refused}");
}
