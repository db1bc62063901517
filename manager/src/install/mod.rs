//! Plugins from registries: what a reference means, where it is fetched, and the
//! directory that GitLab Runner and Mayfly share.
//!
//! A plugin is written into its place whole or not at all, and what is on disk is what
//! the lock file says. Nothing here runs a plugin.

mod artifact;
mod auth;
mod challenge;
mod fetch;
mod in_use;
mod installer;
mod layout;
mod lock;
mod offline;
mod prune;
mod reference;
mod registry;
mod unpack;
mod version;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use auth::{Credentials, store, stored};
pub(crate) use fetch::Source;
pub(crate) use in_use::InUse;
pub(crate) use installer::{Installer, Outcome, roll_back};
pub(crate) use layout::Layout;
pub(crate) use lock::{Lock, LockError};
pub(crate) use prune::{Keep, prune};
pub(crate) use reference::{BadReference, DEFAULT_REGISTRY, Reference, is_registry};
pub(crate) use registry::{Registry, RegistryError};
pub(crate) use version::Version;

/// Why a plugin is not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An OCI layout that cannot be used.
    #[error("{}: {what}", path.display())]
    Offline {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Something else than a plugin has that name.
    #[error("this is no fleeting plugin: {0}")]
    NotAPlugin(String),
    /// Not for this machine.
    #[error("it has no image for {platform}; there are {offered}")]
    NoImage {
        /// This machine's.
        platform: String,
        /// Those that there are.
        offered: String,
    },
    /// Another version than was asked for.
    #[error("the tag {tag} holds version {version}; ask for that version, or for another tag")]
    OtherVersion {
        /// What was asked for.
        tag: String,
        /// What came.
        version: String,
    },
    /// A version that has changed.
    #[error(
        "version {version} is not what it was: its layer is {now}, and {} says {locked}; if the change is meant, remove this version from that file and from the directory",
        lock.display()
    )]
    Changed {
        /// Which.
        version: String,
        /// The digest that the registry names.
        now: String,
        /// The one that was installed.
        locked: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// Bytes that are not what they should be.
    #[error(
        "the {what} has the digest {found}, not {expected}; it was changed on its way or at its place"
    )]
    WrongDigest {
        /// Which part.
        what: &'static str,
        /// The one it must have.
        expected: String,
        /// The one it has.
        found: String,
    },
    /// More than is taken.
    #[error("its {what} is larger than {limit} bytes")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An archive that holds what no plugin has.
    #[error("its archive is refused: {0}")]
    Archive(String),
    /// The lock file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another installation does not end.
    #[error("{}: another installation is still running; try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// There is no older version.
    #[error("{0}")]
    NothingBefore(String),
    /// A file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Names the file in an error.
fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { doing, path, source }
}
