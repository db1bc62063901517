//! A directory in place of a registry: an OCI image layout, as `skopeo copy --all` and
//! `crane pull --format=oci` write it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::InstallError;
use super::artifact::{Descriptor, MAX_MANIFEST_BYTES};
use super::reference::Reference;
use super::version::{Constraint, Version};

/// Where a layout says what an entry is called, the more exact first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An OCI image layout.
pub(crate) struct Offline {
    directory: PathBuf,
}

#[derive(Deserialize)]
struct TopIndex {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Offline {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The index that fits a reference: that of its very tag, else of the newest version.
    pub(super) fn index(&self, reference: &Reference) -> Result<Vec<u8>, InstallError> {
        let path = self.directory.join("index.json");
        let text = read(&path, MAX_MANIFEST_BYTES)?;
        let top: TopIndex =
            serde_json::from_slice(&text).map_err(|error| InstallError::Offline {
                path: path.clone(),
                what: format!("this is no OCI image layout: {error}"),
            })?;
        let entry = choose(&top.manifests, reference).ok_or_else(|| InstallError::Offline {
            path,
            what: format!(
                "no entry is called {reference}; there are {}; an entry's name is its annotation {}",
                listed(&top.manifests),
                NAMES[1]
            ),
        })?;
        self.blob(entry)
    }

    /// A small blob; not checked yet.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, InstallError> {
        read(&self.path(descriptor), MAX_MANIFEST_BYTES)
    }

    /// A large one.
    pub(super) fn open(&self, descriptor: &Descriptor) -> Result<File, InstallError> {
        let path = self.path(descriptor);
        File::open(&path).map_err(|error| unreadable(&path, &error))
    }

    fn path(&self, descriptor: &Descriptor) -> PathBuf {
        self.directory.join("blobs/sha256").join(descriptor.digest.digits())
    }
}

fn choose<'a>(entries: &'a [Descriptor], reference: &Reference) -> Option<&'a Descriptor> {
    let named: Vec<(Reference, &Descriptor)> =
        entries.iter().filter_map(|entry| Some((name_of(entry)?.parse().ok()?, entry))).collect();
    let exact = named.iter().find(|(name, _)| name == reference);
    let version = |name: &Reference| -> Option<Version> {
        let Constraint::Exact(version) = &name.constraint else { return None };
        let fits = name.plugin() == reference.plugin() && reference.constraint.allows(version);
        fits.then(|| version.clone())
    };
    let fitting = || {
        let fitting = named.iter().filter_map(|(name, entry)| Some((version(name)?, *entry)));
        fitting.max_by(|a, b| a.0.cmp(&b.0)).map(|(_, entry)| entry)
    };
    exact.map(|(_, entry)| *entry).or_else(fitting)
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    let annotations: &BTreeMap<String, String> = &entry.annotations;
    NAMES.iter().find_map(|name| annotations.get(*name)).map(String::as_str)
}

fn listed(entries: &[Descriptor]) -> String {
    let names: Vec<&str> = entries.iter().filter_map(name_of).take(20).collect();
    if names.is_empty() {
        return "none with a name".into();
    }
    names.join(", ").escape_debug().to_string()
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, InstallError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Ok(n) if n as u64 > limit => Err(InstallError::TooLarge { what: "manifest", limit }),
        Ok(_) => Ok(bytes),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> InstallError {
    let what = format!("cannot read it: {error}; an OCI image layout has this file");
    InstallError::Offline { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_chosen_by_their_names() {
        let names = [
            "registry.gitlab.com/gitlab-org/fleeting/plugins/aws:1.2.3",
            "aws:1.10.0",
            "aws:2.0.0-rc.1",
            "host:5000/g/x:latest",
            "host:5000/g/x:0.1.0",
            "latest",
            "not a name",
        ];
        let entries: Vec<Descriptor> = names
            .iter()
            .map(|name| {
                let digest = super::super::artifact::Digest::of(name.as_bytes());
                let entry = json!({"digest": digest.as_str(), "size": 1,
                    "annotations": {"org.opencontainers.image.ref.name": name}});
                serde_json::from_value(entry).unwrap_or_else(|error| panic!("{error}"))
            })
            .collect();
        for (text, expected) in [
            ("aws", Some("aws:1.10.0")),
            ("aws:1.2", Some(names[0])),
            ("aws:2.0.0-rc.1", Some("aws:2.0.0-rc.1")),
            ("aws:2", None),
            ("azure", None),
            ("host:5000/g/x", Some("host:5000/g/x:latest")),
            ("host:5000/g/x:0", Some("host:5000/g/x:0.1.0")),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(choose(&entries, &reference).and_then(name_of), expected, "{text}");
        }
    }
}
