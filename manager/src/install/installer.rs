//! From a reference to files in their place, and the way back.
//!
//! Index → image of this platform → marked layer → lock → download → unpack → lock file →
//! rename. What ends anywhere on this way leaves no version that is not whole.

use std::path::PathBuf;

use super::artifact::{Digest, Index, Layer, Platform, layer_of};
use super::fetch::{Progress, Source};
use super::layout::{Installed, Layout};
use super::lock::{Lock, Locked};
use super::reference::Reference;
use super::unpack::unpack;
use super::version::Version;
use super::{InstallError, file_error};

/// How an installation ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was not there before.
    New(Installed),
    /// It is there already.
    Present(Installed),
    /// It was there, and was rolled back; this is what is used instead.
    RolledBack(Version, Option<Installed>),
}

/// Installs plugins into a directory.
pub(crate) struct Installer<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) progress: Progress<'a>,
    /// Whether a version comes back that was rolled back.
    pub(crate) take_back: bool,
}

impl Installer<'_> {
    /// Installs what the reference's tag holds now.
    pub(crate) async fn install(
        &self,
        reference: &Reference,
        source: &mut Source,
    ) -> Result<Outcome, InstallError> {
        let _guard = self.layout.guard(self.progress).await?;
        (self.progress)(&format!("{reference}: asks what there is"));
        let index = source.index(reference, self.progress).await?;
        let platform = Platform::own();
        let image = Index::parse(&index)?.image_for(&platform)?.clone();
        let layer = layer_of(&source.manifest(reference, &image, self.progress).await?)?;
        let version = &layer.version;
        if !reference.constraint.allows(version) {
            return Err(InstallError::OtherVersion {
                tag: reference.constraint.to_string(),
                version: version.to_string(),
            });
        }
        let locked = Locked {
            index: Digest::of(&index).as_str().into(),
            platform: platform.to_string(),
            layer: layer.descriptor.digest.as_str().into(),
            files: Default::default(),
        };
        let mut lock = Lock::read(self.layout.root())?;
        let before = lock.get(&reference.plugin(), version);
        self.check_unchanged(version, &locked, before)?;
        let target = self.layout.directory(reference, version);
        let installed = self.there(reference, version);
        if target.exists() {
            if let Some(before) = before {
                before.verify(&target)?;
            }
            return Ok(Outcome::Present(installed));
        }
        let withdrawn = self.layout.rolled_back(reference, version);
        if withdrawn.exists() && !self.take_back {
            return Ok(Outcome::RolledBack(version.clone(), self.layout.newest(reference)));
        }
        self.fetch(reference, source, layer.clone(), (&mut lock, locked)).await?;
        if withdrawn.exists() {
            // What is left of it is only in the way.
            std::fs::remove_dir_all(&withdrawn).map_err(file_error("remove", &withdrawn))?;
        }
        Ok(Outcome::New(installed))
    }

    async fn fetch(
        &self,
        reference: &Reference,
        source: &mut Source,
        layer: Layer,
        (lock, mut locked): (&mut Lock, Locked),
    ) -> Result<(), InstallError> {
        let Layer { descriptor, version } = layer;
        let mib = descriptor.size.div_ceil(1 << 20);
        (self.progress)(&format!(
            "{reference}: fetches {version} for {}, {mib} MiB",
            locked.platform
        ));
        let unfinished = self.layout.unfinished()?;
        let archive = unfinished.path().join("archive");
        source.layer(reference, &descriptor, &archive, self.progress).await?;
        let tree = unfinished.path().join("tree");
        let into = tree.clone();
        let unpacked = tokio::task::spawn_blocking(move || unpack(&archive, &into)).await;
        locked.files = unpacked.map_err(|error| InstallError::Archive(error.to_string()))??;
        // Before the files: a version that is there is always in it.
        lock.put(&reference.plugin(), &version, locked);
        lock.write(self.layout.root())?;
        self.layout.put(&tree, &self.layout.directory(reference, &version))
    }

    /// A version is for ever what it was, wherever it comes from.
    fn check_unchanged(
        &self,
        version: &Version,
        now: &Locked,
        before: Option<&Locked>,
    ) -> Result<(), InstallError> {
        match before {
            Some(before) if before.platform == now.platform && before.layer != now.layer => {
                Err(InstallError::Changed {
                    version: version.to_string(),
                    now: now.layer.clone(),
                    locked: before.layer.clone(),
                    lock: Lock::path(self.layout.root()),
                })
            }
            _ => Ok(()),
        }
    }

    fn there(&self, reference: &Reference, version: &Version) -> Installed {
        let path: PathBuf = self.layout.directory(reference, version).join(super::layout::PLUGIN);
        Installed { version: version.clone(), path }
    }
}

/// Takes the newest version that the reference allows out of use. Returns it, and the one
/// before, which is used from now on.
pub(crate) async fn roll_back(
    layout: &Layout,
    reference: &Reference,
    progress: Progress<'_>,
) -> Result<(Version, Installed), InstallError> {
    let _guard = layout.guard(progress).await?;
    let mut allowed = layout.versions(reference);
    allowed.retain(|installed| reference.constraint.allows(&installed.version));
    let (newest, before) = match (allowed.pop(), allowed.pop()) {
        (Some(newest), Some(before)) => (newest.version, before),
        (Some(only), None) => {
            return Err(InstallError::NothingBefore(format!(
                "{reference}: {} is the only version that is installed; install an older one first, by its whole number",
                only.version
            )));
        }
        _ => return Err(InstallError::NothingBefore(format!("{reference} is not installed"))),
    };
    if let Some(locked) = Lock::read(layout.root())?.get(&reference.plugin(), &before.version) {
        locked.verify(&layout.directory(reference, &before.version))?;
    }
    let (from, to) = (layout.directory(reference, &newest), layout.rolled_back(reference, &newest));
    if to.exists() {
        std::fs::remove_dir_all(&to).map_err(file_error("remove", &to))?;
    }
    std::fs::rename(&from, &to).map_err(file_error("rename", &from))?;
    Ok((newest, before))
}
