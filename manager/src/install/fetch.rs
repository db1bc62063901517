//! Where artifacts come from, each part checked against its digest before it is used.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::artifact::{ACCEPT, Descriptor, Digest, MANIFEST_TYPE, MAX_MANIFEST_BYTES};
use super::offline::Offline;
use super::reference::Reference;
use super::registry::{Registry, RegistryError};
use super::version::{Constraint, Version};
use super::{InstallError, file_error};

/// Pauses before further attempts, where one may do better.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How often a long transfer says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const TAGS_PER_PAGE: usize = 1000;
const MAX_TAG_PAGES: usize = 20;
const PIECE: usize = 64 * 1024;

/// Takes lines for people who wait.
pub(crate) type Progress<'a> = &'a dyn Fn(&str);

/// A registry, or a directory in place of one.
pub(crate) enum Source {
    /// Over the network.
    Registry(Box<Registry>),
    /// An OCI image layout.
    Offline(Offline),
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Source {
    /// A directory in place of a registry.
    pub(crate) fn directory(path: &Path) -> Self {
        Self::Offline(Offline::new(path))
    }

    /// The index that fits a reference.
    pub(super) async fn index(
        &mut self,
        reference: &Reference,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, InstallError> {
        let registry = match self {
            Self::Offline(offline) => return offline.index(reference),
            Self::Registry(registry) => registry,
        };
        let tag = reference.constraint.to_string();
        match tagged(registry, reference, &tag, progress).await {
            // Not everybody moves alias tags at each release.
            Err(InstallError::Registry(RegistryError::NotFound { .. }))
                if !matches!(reference.constraint, Constraint::Exact(_)) =>
            {
                let tag = newest(registry, reference, progress).await?.to_string();
                tagged(registry, reference, &tag, progress).await
            }
            answer => answer,
        }
    }

    /// A manifest.
    pub(super) async fn manifest(
        &mut self,
        reference: &Reference,
        descriptor: &Descriptor,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, InstallError> {
        let bytes = match self {
            Self::Offline(offline) => offline.blob(descriptor)?,
            Self::Registry(registry) => {
                let digest = descriptor.digest.as_str();
                let path = format!("{}/manifests/{digest}", reference.repository);
                small(registry, &path, MANIFEST_TYPE, "manifest", progress).await?.0
            }
        };
        check("manifest", &descriptor.digest, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// A layer, into a file.
    pub(super) async fn layer(
        &mut self,
        reference: &Reference,
        descriptor: &Descriptor,
        into: &Path,
        progress: Progress<'_>,
    ) -> Result<(), InstallError> {
        let mut file = File::create_new(into).map_err(file_error("write", into))?;
        let found = match self {
            Self::Offline(offline) => {
                let mut from = offline.open(descriptor)?.take(descriptor.size + 1);
                let mut hash = Sha256::new();
                let mut piece = vec![0; PIECE];
                loop {
                    match from.read(&mut piece).map_err(file_error("read the layer for", into))? {
                        0 => break Digest::finished(hash),
                        n => {
                            hash.update(&piece[..n]);
                            file.write_all(&piece[..n]).map_err(file_error("write", into))?;
                        }
                    }
                }
            }
            Self::Registry(registry) => {
                let mut pauses = PAUSES.iter();
                loop {
                    let attempt =
                        download(registry, &reference.repository, descriptor, &mut file, progress);
                    match (attempt.await, pauses.next()) {
                        (Err(InstallError::Registry(error)), Some(pause)) if error.is_passing() => {
                            progress(&format!("{error}; tries again"));
                            tokio::time::sleep(*pause).await;
                        }
                        (answer, _) => break answer?,
                    }
                }
            }
        };
        check("layer", &descriptor.digest, &found)
    }
}

/// The index of a tag.
async fn tagged(
    registry: &mut Registry,
    reference: &Reference,
    tag: &str,
    progress: Progress<'_>,
) -> Result<Vec<u8>, InstallError> {
    let path = format!("{}/manifests/{tag}", reference.repository);
    let what = format!("{}:{tag}", reference.plugin());
    let (bytes, digest) = small(registry, &path, ACCEPT, &what, progress).await?;
    if let Some(digest) = digest {
        check("index", &digest, &Digest::of(&bytes))?;
    }
    Ok(bytes)
}

/// The newest version among the tags that fits.
async fn newest(
    registry: &mut Registry,
    reference: &Reference,
    progress: Progress<'_>,
) -> Result<Version, InstallError> {
    let mut found: Option<Version> = None;
    let mut last = String::new();
    for _ in 0..MAX_TAG_PAGES {
        let page = format!("{}/tags/list?n={TAGS_PER_PAGE}&last={last}", reference.repository);
        let what = format!("versions of {}", reference.plugin());
        let (bytes, _) = small(registry, &page, "application/json", &what, progress).await?;
        let tags: Tags =
            serde_json::from_slice(&bytes).map_err(|error| RegistryError::Refused {
                host: registry.host().into(),
                why: format!("its list of tags cannot be read: {error}"),
            })?;
        let tags = tags.tags.unwrap_or_default();
        let versions = tags.iter().filter_map(|tag| tag.parse().ok());
        let fitting = versions.filter(|version| reference.constraint.allows(version));
        found = found.into_iter().chain(fitting).max();
        match tags.last() {
            // A tag is made of characters that need no escape.
            Some(tag) if tags.len() == TAGS_PER_PAGE && *tag > last => last.clone_from(tag),
            _ => break,
        }
    }
    found.ok_or_else(|| {
        let what =
            format!("version of {} that {} allows", reference.plugin(), reference.constraint);
        RegistryError::NotFound { host: registry.host().into(), what }.into()
    })
}

/// Something small, and the digest that the registry says it has.
async fn small(
    registry: &mut Registry,
    path: &str,
    accept: &str,
    what: &str,
    progress: Progress<'_>,
) -> Result<(Vec<u8>, Option<Digest>), InstallError> {
    let mut pauses = PAUSES.iter();
    loop {
        match (small_once(registry, path, accept, what).await, pauses.next()) {
            (Err(error), Some(pause)) if error.is_passing() => {
                progress(&format!("{error}; tries again"));
                tokio::time::sleep(*pause).await;
            }
            (answer, _) => return Ok(answer?),
        }
    }
}

async fn small_once(
    registry: &mut Registry,
    path: &str,
    accept: &str,
    what: &str,
) -> Result<(Vec<u8>, Option<Digest>), RegistryError> {
    let response = registry.get(path, accept, what).await?;
    let digest = response.headers().get("docker-content-digest");
    let digest = digest.and_then(|value| Digest::try_from(value.to_str().ok()?.to_owned()).ok());
    Ok((registry.body(response, MAX_MANIFEST_BYTES, what).await?, digest))
}

async fn download(
    registry: &mut Registry,
    repository: &str,
    descriptor: &Descriptor,
    file: &mut File,
    progress: Progress<'_>,
) -> Result<Digest, InstallError> {
    let failed = |source| InstallError::File {
        doing: "write the layer to",
        path: "the install directory".into(),
        source,
    };
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    let path = format!("{repository}/blobs/{}", descriptor.digest.as_str());
    let mut response = registry.get(&path, "*/*", "layer").await?;
    let (mut hash, mut bytes, mut said) = (Sha256::new(), 0, Instant::now());
    while let Some(piece) = registry.piece(&mut response).await? {
        bytes += piece.len() as u64;
        if bytes > descriptor.size {
            return Err(InstallError::TooLarge { what: "layer", limit: descriptor.size });
        }
        hash.update(&piece);
        file.write_all(&piece).map_err(failed)?;
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            progress(&format!("{} of {} MiB", bytes >> 20, descriptor.size >> 20));
        }
    }
    if bytes < descriptor.size {
        let why = format!("the transfer was cut after {bytes} of {} bytes", descriptor.size);
        return Err(RegistryError::Unreachable { host: registry.host().into(), why }.into());
    }
    Ok(Digest::finished(hash))
}

fn check(what: &'static str, expected: &Digest, found: &Digest) -> Result<(), InstallError> {
    if expected == found {
        return Ok(());
    }
    Err(InstallError::WrongDigest {
        what,
        expected: expected.as_str().into(),
        found: found.as_str().into(),
    })
}
