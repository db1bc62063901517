//! Plugins as registries keep them: layer, manifest per platform, index; pushed, or
//! written as an OCI layout.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One version of a plugin.
pub(crate) struct Artifact {
    pub(crate) layer: Vec<u8>,
    pub(crate) manifests: Vec<Vec<u8>>,
    pub(crate) index: Vec<u8>,
    /// All that is named by a digest, manifests left out.
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Artifact {
    /// A plugin that is this program.
    pub(crate) fn program(version: &str, program: &[u8]) -> Self {
        Self::new(version, &packed(&[("plugin/plugin", 0o755, program)]))
    }

    /// A plugin that says its version.
    pub(crate) fn script(version: &str) -> Self {
        Self::program(version, script(version).as_bytes())
    }

    /// A plugin with this layer, and beside it another for a machine that is not this one.
    pub(crate) fn new(version: &str, layer: &[u8]) -> Self {
        let other = packed(&[("plugin/plugin", 0o755, b"for another machine")]);
        let config = b"{}".to_vec();
        let manifest = |layer: &[u8]| {
            let mark = json!({"com.gitlab.fleeting.layer": version});
            let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": descriptor(&config, "application/vnd.oci.image.config.v1+json", None),
                "layers": [descriptor(layer, kind, Some(("annotations", mark)))],
            })
            .to_string()
            .into_bytes()
        };
        let manifests = vec![manifest(&other), manifest(layer)];
        let platforms = [("plan9", "mips"), ("linux", architecture())];
        let entries = manifests.iter().zip(platforms).map(|(manifest, (os, architecture))| {
            let platform = json!({"os": os, "architecture": architecture});
            descriptor(manifest, MANIFEST, Some(("platform", platform)))
        });
        let entries: Vec<Value> = entries.collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        Self {
            layer: layer.into(),
            index: index.to_string().into_bytes(),
            blobs: vec![config, other, layer.into()],
            manifests,
        }
    }

    /// Writes it into an OCI layout, under these names.
    pub(crate) fn write_layout(&self, directory: &Path, names: &[&str]) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("made");
        let manifests = self.manifests.iter().chain([&self.index]);
        for blob in self.blobs.iter().chain(manifests) {
            std::fs::write(blobs.join(hex(blob)), blob).expect("written");
        }
        let top = directory.join("index.json");
        let before = std::fs::read(&top).unwrap_or_else(|_| br#"{"manifests": []}"#.to_vec());
        let mut text: Value = serde_json::from_slice(&before).expect("an index");
        for name in names {
            let called = json!({"org.opencontainers.image.ref.name": name});
            let entry = descriptor(&self.index, INDEX, Some(("annotations", called)));
            text["manifests"].as_array_mut().expect("a list").push(entry);
        }
        std::fs::write(top, text.to_string()).expect("written");
        let version = r#"{"imageLayoutVersion": "1.0.0"}"#;
        std::fs::write(directory.join("oci-layout"), version).expect("written");
    }
}

/// What `Artifact::script` is.
pub(crate) fn script(version: &str) -> String {
    format!("#!/bin/sh\necho {version}\n")
}

/// A gzipped tar archive. Names are taken as they are.
pub(crate) fn packed(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).expect("appended");
    }
    gzipped(&builder.into_inner().expect("finished"))
}

/// An archive whose one entry is a link.
pub(crate) fn packed_link(name: &str, to: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, name, to).expect("appended");
    gzipped(&builder.into_inner().expect("finished"))
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn descriptor(bytes: &[u8], kind: &str, more: Option<(&str, Value)>) -> Value {
    let mut entry = json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    if let Some((key, value)) = more {
        entry[key] = value;
    }
    entry
}

/// This machine's, in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
