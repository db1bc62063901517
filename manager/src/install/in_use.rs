//! A version that someone runs: kept from being removed, and compared with what was
//! installed before each start.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::artifact::Digest;
use super::layout::Installed;
use super::lock::{Lock, LockError, digest_of};

/// An installed version for as long as it may be started.
#[derive(Debug)]
pub(crate) struct InUse {
    /// The program.
    pub(crate) path: PathBuf,
    root: PathBuf,
    plugin: String,
    installed: Installed,
    /// What files were when they were read.
    seen: Mutex<BTreeMap<PathBuf, (Stamp, Digest)>>,
    hold: Mutex<Option<File>>,
}

impl InUse {
    pub(super) fn new(root: &Path, plugin: String, installed: Installed) -> Self {
        Self {
            path: installed.path.clone(),
            root: root.to_owned(),
            plugin,
            installed,
            seen: Mutex::default(),
            hold: Mutex::default(),
        }
    }

    /// Whether it is still what was installed. A file is read again only if it may have
    /// changed since it was read last.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        let directory = self.installed.directory();
        if !directory.is_dir() {
            return Err(LockError::Gone(directory.to_owned()));
        }
        // Once more each time: it may have been installed again.
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = hold(directory);
        let lock = Lock::read(&self.root)?;
        match lock.get(&self.plugin, &self.installed.version) {
            Some(locked) => locked.verify_with(directory, |path| self.digest_of(path)),
            None => Ok(()),
        }
    }

    fn digest_of(&self, path: &Path) -> io::Result<Digest> {
        let now = Stamp::of(&std::fs::metadata(path)?);
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, digest)) = seen().get(path).filter(|(stamp, _)| *stamp == now) {
            return Ok(digest.clone());
        }
        let digest = digest_of(path)?;
        // Of before it was read: who wrote meanwhile is found out by the next look.
        seen().insert(path.to_owned(), (now, digest.clone()));
        Ok(digest)
    }
}

/// What changes with a file's content. The time of the last change of the inode cannot be
/// set by anyone, as that of the content can.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            file: (file.dev(), file.ino()),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Says to those who remove versions that this one is in use, until the file is closed.
/// Where a file system cannot say it, they remove nothing there.
fn hold(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::super::lock::Locked;
    use super::*;

    #[test]
    fn files_are_read_when_they_may_have_changed_and_only_then() {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = dir.path().join("host/x/1.0.0");
        std::fs::create_dir_all(&directory).expect("made");
        let path = directory.join("plugin");
        std::fs::write(&path, "one").expect("written");
        let version = "1.0.0".parse().unwrap_or_else(|error| panic!("{error}"));
        let digest = Digest::of(b"one").as_str().to_owned();
        let locked = Locked {
            index: digest.clone(),
            platform: "linux/amd64".into(),
            layer: digest.clone(),
            files: [("plugin".to_owned(), digest)].into(),
        };
        let mut lock = Lock::default();
        lock.put("host/x", &version, locked);
        lock.write(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        let installed = Installed { version, path: path.clone() };
        let used = InUse::new(dir.path(), "host/x".into(), installed);
        let problem = || used.check().err().map(|error| error.to_string());
        assert_eq!(problem(), None);

        // What was remembered is what counts while nothing changed.
        let known = Digest::of(b"remembered");
        used.seen.lock().expect("whole").get_mut(&path).expect("it was read").1 = known.clone();
        assert!(problem().is_some_and(|text| text.contains(known.as_str())));

        // The same number of bytes, and the time of before.
        let before = std::fs::metadata(&path).expect("there").modified().expect("a time");
        let replace = |content: &str| {
            let other = directory.join("other");
            std::fs::write(&other, content).expect("written");
            let file = File::options().write(true).open(&other).expect("opened");
            file.set_modified(before).expect("set");
            std::fs::rename(&other, &path).expect("renamed");
        };
        replace("two");
        let text = problem().expect("it was changed");
        let both = [Digest::of(b"two"), Digest::of(b"one")];
        assert!(both.iter().all(|digest| text.contains(digest.as_str())), "{text}");
        assert!(text.contains("mayfly fleeting install"), "{text}");
        replace("one");
        assert_eq!(problem(), None);

        std::fs::rename(&directory, dir.path().join("away")).expect("renamed");
        let text = problem().expect("it is gone");
        assert!(text.contains("rolled back") && text.contains("host/x/1.0.0"), "{text}");
    }
}
