//! The small file that survives the plugin: its books.
//!
//! It is whole or absent, for its owner only, and one process at a time uses it: the
//! holder of the lock beside it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A plugin that was killed gives its lock back at once; its successor may be as quick.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const VERSION: u32 = 1;

/// The file, ours until this value or the process ends.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Contents<B> {
    version: u32,
    books: B,
}

impl StateFile {
    /// Becomes the only one who uses this file, and reads it. Directories are made.
    pub(crate) fn open<B>(path: &Path) -> Result<(Self, B), String>
    where
        B: Default + DeserializeOwned,
    {
        let shown = path.display();
        let directory = path.parent().unwrap_or(path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| format!("state_file: cannot make {}: {error}", directory.display()))?;
        let metadata = fs::metadata(directory)
            .map_err(|error| format!("state_file = \"{shown}\": {error}"))?;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_ours || metadata.mode() & 0o022 != 0 {
            return Err(format!(
                "state_file: {} must belong to this user and be writable by nobody else: choose \
                 another one, or run chmod go-w on it",
                directory.display()
            ));
        }
        let lock = lock(&with_suffix(path, ".lock"))?;
        let books = match fs::read(path) {
            Ok(bytes) => read(&bytes).map_err(|why| {
                format!("state_file = \"{shown}\": {why}; move it away to begin anew")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => B::default(),
            Err(error) => return Err(format!("state_file = \"{shown}\": {error}")),
        };
        Ok((Self { path: path.to_owned(), _lock: lock }, books))
    }

    /// Writes all of it, or leaves it as it was.
    pub(crate) fn write<B: Serialize>(&self, books: &B) -> Result<(), String> {
        let unfinished = with_suffix(&self.path, ".new");
        let contents = Contents { version: VERSION, books };
        let written =
            serde_json::to_vec(&contents).map_err(std::io::Error::from).and_then(|bytes| {
                let mut options = OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&unfinished)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&unfinished, &self.path)
            });
        written.map_err(|error| format!("state_file = \"{}\": {error}", self.path.display()))
    }
}

fn read<B: DeserializeOwned>(bytes: &[u8]) -> Result<B, String> {
    let contents: Contents<B> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match contents.version {
        VERSION => Ok(contents.books),
        other => Err(format!("it is of version {other}, this plugin knows {VERSION}")),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("state_file: cannot lock {shown}: {error}");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(cannot)?;
    let patient_until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => return Err(cannot(error)),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < patient_until => {
                sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(format!(
                    "another plugin process uses {shown}: give each runner a name, or a \
                     state_file, of its own"
                ));
            }
        }
    }
}
