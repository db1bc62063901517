//! `mayfly.lock` in the install directory: what each version was when it was installed.
//!
//! It is only ever replaced whole. A version that it does not know was installed by
//! another program, and is taken as it is.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::artifact::Digest;
use super::version::Version;

const NAME: &str = "mayfly.lock";
/// The form that this build reads and writes.
const FORM: u32 = 1;

/// A lock file, or a plugin that is not what it says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// It cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Its content.
    #[error("{}: {why}; restore it, or remove it and install the plugins again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file of a plugin.
    #[error(
        "{} was changed since it was installed: {why}; remove its directory and run `mayfly fleeting install`",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// A version that was there when its program was looked for.
    #[error(
        "{} was rolled back or removed; start the manager again, so that it takes the version that is installed now",
        .0.display()
    )]
    Gone(PathBuf),
}

/// What was installed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lock {
    form: u32,
    /// By registry and repository, then by version.
    plugins: BTreeMap<String, BTreeMap<String, Locked>>,
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locked {
    /// Digest of the index that named it.
    pub(crate) index: String,
    /// The platform whose image was taken.
    pub(crate) platform: String,
    /// Digest of the layer.
    pub(crate) layer: String,
    /// Digest of each file, by its path in the version's directory.
    pub(crate) files: BTreeMap<String, String>,
}

impl Lock {
    /// Where it is in this install directory.
    pub(crate) fn path(root: &Path) -> PathBuf {
        root.join(NAME)
    }

    /// Reads it. None is an empty one.
    pub(crate) fn read(root: &Path) -> Result<Self, LockError> {
        let path = Self::path(root);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LockError::File { doing: "read", path, source }),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(lock) if lock.form == FORM => Ok(lock),
            Ok(lock) => {
                let why = format!("it has form {}, and this build knows form {FORM}", lock.form);
                Err(LockError::Unreadable { path, why })
            }
            Err(error) => Err(LockError::Unreadable { path, why: error.to_string() }),
        }
    }

    pub(super) fn write(&mut self, root: &Path) -> Result<(), LockError> {
        self.form = FORM;
        let path = Self::path(root);
        let written = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".mayfly.lock-").tempfile_in(root)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            // A manager may run as another user than the one who installs.
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        written().map_err(|source| LockError::File { doing: "write", path: path.clone(), source })
    }

    pub(crate) fn get(&self, plugin: &str, version: &Version) -> Option<&Locked> {
        self.plugins.get(plugin)?.get(&version.to_string())
    }

    pub(super) fn put(&mut self, plugin: &str, version: &Version, locked: Locked) {
        self.plugins.entry(plugin.into()).or_default().insert(version.to_string(), locked);
    }
}

impl Locked {
    /// Whether the directory holds what was installed.
    pub(crate) fn verify(&self, directory: &Path) -> Result<(), LockError> {
        self.verify_with(directory, digest_of)
    }

    /// The same, with the digests of who may know them already.
    pub(super) fn verify_with(
        &self,
        directory: &Path,
        digest_of: impl Fn(&Path) -> io::Result<Digest>,
    ) -> Result<(), LockError> {
        for (name, expected) in &self.files {
            let path = directory.join(name);
            let found = match digest_of(&path) {
                Ok(found) => found,
                Err(error) => return Err(LockError::Changed { path, why: error.to_string() }),
            };
            if found.as_str() != expected {
                let why = format!("its digest is {}, not {expected}", found.as_str());
                return Err(LockError::Changed { path, why });
            }
        }
        Ok(())
    }
}

/// The digest of a file's content. Who opens a pipe may wait for ever: only files are.
pub(super) fn digest_of(path: &Path) -> io::Result<Digest> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut hash = Sha256::new();
    io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(Digest::finished(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(content: &[u8]) -> Locked {
        let digest = Digest::of(content).as_str().to_owned();
        Locked {
            index: digest.clone(),
            platform: "linux/amd64".into(),
            layer: digest.clone(),
            files: [("plugin".to_owned(), digest)].into(),
        }
    }

    #[test]
    fn a_changed_file_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("plugin");
        std::fs::write(&file, "one").expect("written");
        assert!(locked(b"one").verify(dir.path()).is_ok());
        std::fs::write(&file, "two").expect("written");
        let error = locked(b"one").verify(dir.path()).expect_err("changed").to_string();
        assert!(
            error.contains("was changed") && error.contains("mayfly fleeting install"),
            "{error}"
        );
        std::fs::remove_file(&file).expect("removed");
        assert!(locked(b"one").verify(dir.path()).is_err());
    }

    #[test]
    fn it_is_read_as_it_was_written_and_refused_otherwise() {
        let dir = tempfile::tempdir().expect("a directory");
        let version: Version = "1.2.3".parse().unwrap_or_else(|e| panic!("{e}"));
        let mut lock = Lock::read(dir.path()).unwrap_or_else(|e| panic!("{e}"));
        lock.put("host/x", &version, locked(b"one"));
        lock.write(dir.path()).unwrap_or_else(|e| panic!("{e}"));
        let read = Lock::read(dir.path()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(read.get("host/x", &version), Some(&locked(b"one")));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
        for text in ["", "{", r#"{"form": 2, "plugins": {}}"#] {
            std::fs::write(Lock::path(dir.path()), text).expect("written");
            let error = Lock::read(dir.path()).expect_err(text).to_string();
            assert!(error.contains("mayfly.lock") && error.contains("restore it"), "{error}");
        }
    }
}
