//! The directory of a group: what is there survives the plugin.
//!
//! Files are whole or absent, and one process at a time may change them: the holder of
//! the lock. Only `orders` is written by others; lines of it are never changed.
//!
//! ```text
//! lock, group.json, orders, ledger.jsonl, ledger.before.jsonl
//! instances/<id>/facts.json, and of a machine: server.json, login.json, process, log, home
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use instances::failed::{During as _, Failed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;

/// A plugin that was killed gives its lock back at once; its successor may be as quick.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const FACTS: &str = "facts.json";
const UNFINISHED_PREFIX: &str = ".new-";
/// Orders that are read at once.
const ORDERS_LIMIT_BYTES: u64 = 1 << 20;
/// Orders that were carried out are forgotten when there are more.
const OLD_ORDERS_BYTES: u64 = 1 << 16;

/// A group's directory, readable by all who may.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

/// The right to change a group; given back when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct GroupLock {
    _file: File,
}

/// Somebody outside ends an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KillOrder {
    pub(crate) id: String,
    pub(crate) at_ms: u64,
}

impl Store {
    /// The directory of a group that exists.
    pub(crate) fn existing(directory: &Path) -> Result<Self, String> {
        if !directory.join("group.json").is_file() {
            return Err(format!("there is no simulated group in {}", directory.display()));
        }
        let directory = fs::canonicalize(directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Makes the directory if needed.
    pub(crate) fn make(directory: &Path) -> Result<Self, String> {
        let shown = directory.display();
        for path in [directory.to_owned(), directory.join("instances")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| format!("state_dir: cannot make {}: {error}", path.display()))?;
        }
        let directory =
            fs::canonicalize(directory).map_err(|error| format!("state_dir = {shown}: {error}"))?;
        let metadata =
            fs::metadata(&directory).map_err(|error| format!("state_dir = {shown}: {error}"))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(format!("state_dir: {shown} belongs to another user, choose one of yours"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(format!("state_dir: others may write into {shown}, run chmod go-w on it"));
        }
        Ok(Self { directory })
    }

    /// Becomes the only one who may change the group.
    pub(crate) fn lock(&self) -> Result<GroupLock, String> {
        let patient_until = Instant::now() + LOCK_PATIENCE;
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if Instant::now() >= patient_until {
                return Err(format!(
                    "another plugin process uses {}: give each runner a state_dir of its own",
                    self.directory.display()
                ));
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// The same without waiting; `None` if another process has the lock.
    pub(crate) fn try_lock(&self) -> Result<Option<GroupLock>, String> {
        let path = self.directory.join("lock");
        let cannot =
            |error: io::Error| format!("state_dir: cannot lock {}: {error}", path.display());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(GroupLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the instance of this id is or would be.
    pub(crate) fn instance(&self, id: &str) -> PathBuf {
        self.directory.join("instances").join(id)
    }

    /// Reads a file of the group; `None` where there is none.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failed> {
        read(&self.directory.join(name))
    }

    /// Writes a file of the group, whole or not at all.
    pub(crate) fn write(&self, name: &str, value: &impl Serialize) -> Result<(), Failed> {
        write(&self.directory.join(name), value)
    }

    /// All instances. What a killed plugin did not finish is not one.
    pub(crate) fn all_facts(&self) -> Result<Vec<Facts>, Failed> {
        let directory = self.directory.join("instances");
        let during = || format!("list {}", directory.display());
        let mut all = Vec::new();
        for entry in fs::read_dir(&directory).during(during())? {
            let entry = entry.during(during())?;
            // One that is made at this very moment may have half its facts.
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
                continue;
            }
            // One that is removed at this very moment is none.
            all.extend(read::<Facts>(&entry.path().join(FACTS))?);
        }
        all.sort_by_key(|facts| facts.number);
        Ok(all)
    }

    /// Makes an instance's directory, complete or not at all.
    pub(crate) fn add(&self, facts: &Facts) -> Result<(), Failed> {
        let unfinished = self.instance(&format!("{UNFINISHED_PREFIX}{}", facts.id));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&unfinished)
            .and_then(|()| {
                fs::write(unfinished.join(FACTS), serde_json::to_vec(facts)?)?;
                fs::rename(&unfinished, self.instance(&facts.id))
            })
            .during(format!("make instance {}", facts.id))
    }

    /// Changes an instance's facts.
    pub(crate) fn put(&self, facts: &Facts) -> Result<(), Failed> {
        write(&self.instance(&facts.id).join(FACTS), facts)
    }

    /// Removes directories without facts: of creations that were not finished, and of
    /// removals.
    pub(crate) fn remove_unfinished(&self) -> Result<(), Failed> {
        let directory = self.directory.join("instances");
        for entry in fs::read_dir(&directory).during("look for leftovers")?.flatten() {
            if !entry.path().join(FACTS).is_file()
                || entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX)
            {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes an order for whoever holds the lock.
    pub(crate) fn order(&self, order: &KillOrder) -> Result<(), Failed> {
        let line = serde_json::to_string(order).map_err(io::Error::from).during("write orders")?;
        let mut options = OpenOptions::new();
        options
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.directory.join("orders"))
            // One write: lines of several writers do not mix.
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .during("write orders")
    }

    /// Removes orders of which so many bytes were carried out, if that is all of them and
    /// many. Returns how many are still to be skipped.
    pub(crate) fn forget_orders(&self, carried_out: u64) -> u64 {
        let path = self.directory.join("orders");
        let is_all = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == carried_out);
        if is_all && carried_out > OLD_ORDERS_BYTES && fs::remove_file(&path).is_ok() {
            return 0;
        }
        carried_out
    }

    /// Orders after this many bytes, and how many bytes there are now.
    pub(crate) fn orders(&self, after: u64) -> (Vec<KillOrder>, u64) {
        let text = File::open(self.directory.join("orders")).and_then(|mut file| {
            let mut text = String::new();
            if file.metadata()?.len() > after {
                file.seek(SeekFrom::Start(after))?;
                file.take(ORDERS_LIMIT_BYTES).read_to_string(&mut text)?;
            }
            Ok(text)
        });
        let text = text.unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let orders = whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (orders, after + whole.len() as u64)
    }
}

/// Reads JSON; `None` where there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failed> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(io::Error::from)
            .during(format!("read {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during(format!("read {}", path.display())),
    }
}

/// Writes JSON that others see either not at all or whole, and only this user.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), Failed> {
    let temporary = path.with_extension("tmp");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|bytes| options.open(&temporary)?.write_all(&bytes))
        .and_then(|()| fs::rename(&temporary, path))
        .during(format!("write {}", path.display()))
}

/// Removes a directory with everything in it, also what jobs left without permissions.
/// Facts go first: a directory without them is one that is being removed.
pub(crate) fn remove_tree(top: &Path) -> Result<(), Failed> {
    let _ = fs::remove_file(top.join(FACTS));
    open_up(top);
    match fs::remove_dir_all(top) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(format!("remove {}", top.display()))
        }
        _ => Ok(()),
    }
}

fn open_up(top: &Path) {
    let mut next = vec![top.to_owned()];
    while let Some(directory) = next.pop() {
        // What cannot be opened is told by the removal.
        let _ = fs::set_permissions(&directory, Permissions::from_mode(0o700));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        next.extend(entries.filter(is_dir).map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::make(&dir.path().join("a")).expect("made");
        let lock = store.lock().expect("free");
        let refused = store.lock().expect_err("in use");
        assert!(refused.contains("another plugin process"), "{refused}");
        assert!(store.try_lock().expect("asked").is_none());
        drop(lock);
        assert!(store.try_lock().expect("asked").is_some());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("opened up");
        let refused = Store::make(dir.path()).expect_err("unsafe");
        assert!(refused.contains("chmod"), "{refused}");
    }

    #[test]
    fn an_instance_that_is_half_made_is_none_yet() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::make(&dir.path().join("a")).expect("made");
        let unfinished = store.instance(".new-sim-00006");
        fs::create_dir_all(&unfinished).expect("made");
        fs::write(unfinished.join(FACTS), "").expect("written");
        assert!(store.all_facts().expect("listed").is_empty());
    }

    #[test]
    fn orders_are_read_once_and_only_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::make(&dir.path().join("a")).expect("made");
        let order = |id: &str| KillOrder { id: id.into(), at_ms: 7 };
        assert_eq!(store.orders(0), (vec![], 0));
        store.order(&order("x")).expect("written");
        let (read, end) = store.orders(0);
        assert_eq!(read, [order("x")]);
        let path = store.directory().join("orders");
        let half = OpenOptions::new().append(true).open(path);
        half.expect("open").write_all(b"{\"id\":").expect("written");
        assert_eq!(store.orders(end), (vec![], end));
    }

    #[test]
    fn orders_do_not_pile_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::make(&dir.path().join("a")).expect("made");
        let mut read = 0;
        while read <= OLD_ORDERS_BYTES {
            assert_eq!(store.forget_orders(read), read);
            store.order(&KillOrder { id: "x".repeat(10_000), at_ms: 7 }).expect("written");
            assert_eq!(store.forget_orders(read), read, "some are still to be carried out");
            read = store.orders(read).1;
        }
        assert_eq!(store.forget_orders(read), 0);
        assert_eq!(store.orders(0), (vec![], 0));
    }

    #[test]
    fn what_jobs_leave_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).expect("made");
        fs::write(top.join("a/b/c"), "x").expect("written");
        std::os::unix::fs::symlink(dir.path(), top.join("link")).expect("linked");
        fs::set_permissions(top.join("a/b"), Permissions::from_mode(0o000)).expect("locked");
        remove_tree(&top).expect("removed");
        remove_tree(&top).expect("a missing tree is fine");
        assert!(!top.exists() && dir.path().exists());
    }
}
