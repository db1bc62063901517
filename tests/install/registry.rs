//! A real registry on this machine, on a port that is free, and pushes to it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use support::seconds;
use support::wait::look_until;
use tempfile::TempDir;

use crate::artifact::{Artifact, INDEX, MANIFEST, digest, hex};

/// What `htpasswd` is: bcrypt, the only form that the registry takes.
pub(crate) const USER: &str = "ada";
pub(crate) const PASSWORD: &str = "correct horse";
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2";

/// A registry; it ends with this value.
pub(crate) struct Registry {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
    directory: TempDir,
    storage: PathBuf,
}

impl Registry {
    /// One that takes everything; `None` after saying that there is none.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = directory.path().join("storage");
        Self::launch(directory, storage, &json!({}), &json!({}))
    }

    /// Another one with the same content. `http` and `auth` are parts of its configuration.
    pub(crate) fn beside(&self, http: &Value, auth: &Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::launch(directory, self.storage.clone(), http, auth).expect("there is one already")
    }

    /// Another one with the same content that wants user and password.
    pub(crate) fn with_password(&self, http: &Value) -> Self {
        let file = self.directory.path().join("htpasswd");
        std::fs::write(&file, format!("{USER}:{HASH}\n")).expect("written");
        self.beside(http, &json!({"htpasswd": {"realm": "test", "path": file}}))
    }

    fn launch(directory: TempDir, storage: PathBuf, http: &Value, auth: &Value) -> Option<Self> {
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": storage}},
            "http": {"addr": "127.0.0.1:0"},
        });
        if let (Some(into), Some(more)) = (config["http"].as_object_mut(), http.as_object()) {
            into.extend(more.clone());
        }
        if auth != &json!({}) {
            config["auth"] = auth.clone();
        }
        // JSON is YAML.
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config.to_string()).expect("written");
        let log = directory.path().join("log");
        let output = File::create(&log).expect("a log");
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the log twice"))
            .stderr(output)
            .spawn();
        let Ok(child) = spawned else {
            support::skipped("no docker-registry: run tests/setup");
            return None;
        };
        let mut registry = Self { child, address: String::new(), directory, storage };
        let address = look_until(seconds(60), || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            // The line may be half written.
            let (_, after) = text.split_once("listening on ")?;
            let address: String =
                after.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
            (address.len() < after.len()).then_some(address)
        });
        registry.address = address.unwrap_or_else(|| {
            panic!("no registry: {}", std::fs::read_to_string(&log).unwrap_or_default())
        });
        Some(registry)
    }

    /// Pushes a plugin under these tags.
    pub(crate) fn push(&self, repository: &str, artifact: &Artifact, tags: &[&str]) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(self.push_all(repository, artifact, tags));
    }

    async fn push_all(&self, repository: &str, artifact: &Artifact, tags: &[&str]) {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("one");
        let base = format!("http://{}/v2/{repository}", self.address);
        for blob in &artifact.blobs {
            let begun = http.post(format!("{base}/blobs/uploads/")).send().await.expect("sent");
            let location =
                begun.headers().get("location").expect("an upload").to_str().expect("text");
            let mark = if location.contains('?') { '&' } else { '?' };
            let put = http.put(format!("{location}{mark}digest={}", digest(blob)));
            let done = put.body(blob.clone()).send().await.expect("sent");
            assert!(done.status().is_success(), "{done:?}");
        }
        let manifests = artifact.manifests.iter().map(|m| (m, MANIFEST, digest(m)));
        let indexes = tags.iter().map(|tag| (&artifact.index, INDEX, (*tag).to_owned()));
        for (body, kind, name) in manifests.chain(indexes) {
            let put = http.put(format!("{base}/manifests/{name}")).header("content-type", kind);
            let done = put.body(body.clone()).send().await.expect("sent");
            let status = done.status();
            assert!(status.is_success(), "{name}: {status} {:?}", done.text().await);
        }
    }

    /// Something that it keeps is not any more what it was.
    pub(crate) fn spoil(&self, blob: &[u8]) {
        let hex = hex(blob);
        let blobs = Path::new("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex);
        let file = self.storage.join(blobs).join("data");
        let mut bytes = std::fs::read(&file).expect("it keeps it there");
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).expect("written");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
