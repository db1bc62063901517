//! The group's directory: one sub-directory per instance, made and read here only.
//!
//! ```text
//! <root>/<name>/lock              held by the plugin that owns the group
//!               lease             touched while a plugin asks for updates
//!               <id>/instance.json, server.json, keeper, ready, deleting, log, …
//!               <id>/home, tmp, var-tmp
//!               .gone-<id>        deleted, and perhaps not told to a host yet
//! ```
//!
//! An instance's directory appears complete, by a rename; files in it that say where it
//! stands appear whole, too. Names that no instance can have are left alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use instances::failed::{During as _, Failed};
use instances::processes::Identity;
use serde::de::DeserializeOwned;

use crate::record::{Account, Record, ServerSettings};
use crate::remove::remove_tree;

const ID_PREFIX: &str = "local-";
const UNFINISHED_PREFIX: &str = ".new-";
const GONE_PREFIX: &str = ".gone-";
/// A plugin that was killed gives its lock back at once; its successor may be as quick.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// As much of an instance's log as an error message can carry.
const LOG_TAIL_BYTES: usize = 600;

/// The directory of one group.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    directory: PathBuf,
}

/// The right to change a group; given back when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct GroupLock {
    _file: File,
}

impl Registry {
    /// Opens the group's directory, makes it if needed, and becomes its only user.
    pub(crate) fn open(root: &Path, name: &str) -> Result<(Self, GroupLock), String> {
        let make = |path: &Path| {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
                format!("root = {:?}: cannot make {}: {error}", root.display(), path.display())
            })
        };
        make(root)?;
        let root = fs::canonicalize(root)
            .map_err(|error| format!("root = {:?}: {error}", root.display()))?;
        check_owner(&root)?;
        let directory = root.join(name);
        make(&directory)?;
        check_owner(&directory)?;
        let lock = lock(&directory)?;
        let registry = Self { directory };
        registry.renew_lease().map_err(|failed| failed.to_string())?;
        Ok((registry, lock))
    }

    /// The directory above that of the group.
    pub(crate) fn root(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// Where the instance `id` is or would be; `None` for what cannot be an id.
    pub(crate) fn instance(&self, id: &str) -> Option<InstanceDir> {
        is_id(id).then(|| InstanceDir(self.directory.join(id)))
    }

    /// All instances, in the order of their ids.
    pub(crate) fn list(&self) -> Result<Vec<InstanceDir>, Failed> {
        let during = || format!("list {}", self.directory.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).during(during())? {
            let name = entry.during(during())?.file_name();
            found.extend(name.to_str().and_then(|id| self.instance(id)));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Tells all instances that a plugin is still there.
    pub(crate) fn renew_lease(&self) -> Result<(), Failed> {
        let path = self.directory.join("lease");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .during(format!("renew {}", path.display()))
    }

    /// Removes what a plugin that was killed did not finish.
    pub(crate) fn remove_unfinished(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX)
                && let Err(error) = remove_tree(&entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove leftovers");
            }
        }
    }

    /// Instances that were deleted and are not forgotten.
    pub(crate) fn gone(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let id_of = |name: &str| {
            let instance = self.instance(name.strip_prefix(GONE_PREFIX)?)?;
            // Its directory may still be on its way out.
            (!instance.exists()).then(|| instance.id().to_owned())
        };
        entries.filter_map(|entry| id_of(entry.file_name().to_str()?)).collect()
    }

    /// A host knows that the instance is gone.
    pub(crate) fn forget(&self, id: &str) {
        // What stays is told once more.
        let _ = fs::remove_file(self.directory.join(format!("{GONE_PREFIX}{id}")));
    }

    /// An id that no instance has, and the directory it will have.
    pub(crate) fn free_instance(&self) -> InstanceDir {
        loop {
            let id = format!("{ID_PREFIX}{:08x}", rand::random::<u32>());
            let directory = self.directory.join(id);
            if !directory.exists() {
                return InstanceDir(directory);
            }
        }
    }

    /// Writes an instance's directory, complete or not at all.
    pub(crate) fn add(
        &self,
        instance: &InstanceDir,
        record: &Record,
        server: &ServerSettings,
        files: &[(&str, &str)],
    ) -> Result<(), Failed> {
        let unfinished = self.directory.join(format!("{UNFINISHED_PREFIX}{}", instance.id()));
        let filled = fill(&unfinished, record, server, files)
            .and_then(|()| fs::rename(&unfinished, &instance.0))
            .during(format!("make {}", instance.0.display()));
        if filled.is_err() {
            // What stays is removed at the next start.
            let _ = remove_tree(&unfinished);
        }
        filled
    }
}

fn check_owner(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    let metadata = fs::metadata(directory).map_err(|error| format!("root: {shown}: {error}"))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!(
            "root: {shown} belongs to another user, choose a directory of your own"
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("root: others may write into {shown}, run chmod go-w on it"));
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<GroupLock, String> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("root: cannot open {}: {error}", path.display()))?;
    let patient_until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(GroupLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < patient_until => {
                sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(format!(
                    "another plugin process uses {}: give each runner its own name or root",
                    directory.display()
                ));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(format!("root: cannot lock {}: {error}", path.display()));
            }
        }
    }
}

fn fill(
    directory: &Path,
    record: &Record,
    server: &ServerSettings,
    files: &[(&str, &str)],
) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)?;
    write_whole(directory, "instance.json", &serde_json::to_vec(record)?, 0o600)?;
    write_whole(directory, "server.json", &serde_json::to_vec(server)?, 0o600)?;
    for (name, text) in files {
        write_whole(directory, name, text.as_bytes(), 0o644)?;
    }
    write_whole(directory, "log", b"", 0o600)?;
    for (name, mode) in [("home", 0o700), ("tmp", 0o1777), ("var-tmp", 0o1777)] {
        owned_dir(&directory.join(name), mode, &record.account)?;
    }
    let ssh = directory.join("home/.ssh");
    owned_dir(&ssh, 0o700, &record.account)?;
    let authorized = ssh.join("authorized_keys");
    fs::write(&authorized, server.trusted_keys.join("\n") + "\n")?;
    fs::set_permissions(&authorized, Permissions::from_mode(0o600))?;
    give(&authorized, &record.account)
}

fn owned_dir(path: &Path, mode: u32, owner: &Account) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    give(path, owner)
}

fn give(path: &Path, owner: &Account) -> io::Result<()> {
    if rustix::process::geteuid().as_raw() == owner.uid {
        return Ok(());
    }
    chown(path, Some(owner.uid), Some(owner.gid))
}

/// Writes a file that others see either not at all or whole.
fn write_whole(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.tmp"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    fs::rename(&temporary, directory.join(name))
}

fn is_id(id: &str) -> bool {
    id.strip_prefix(ID_PREFIX).is_some_and(|digits| {
        digits.len() == 8
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// The directory of one instance, which may be gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstanceDir(PathBuf);

impl InstanceDir {
    /// The directory that a role was started for.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn id(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(crate) fn exists(&self) -> bool {
        self.0.exists()
    }

    pub(crate) fn record(&self) -> Result<Record, Failed> {
        self.read("instance.json")
    }

    /// The process that keeps the instance, if one was started.
    pub(crate) fn keeper(&self) -> Option<Identity> {
        self.read("keeper").ok()
    }

    pub(crate) fn set_keeper(&self, keeper: Identity) -> Result<(), Failed> {
        serde_json::to_vec(&keeper)
            .map_err(io::Error::from)
            .and_then(|bytes| write_whole(&self.0, "keeper", &bytes, 0o600))
            .during(format!("write {}", self.0.join("keeper").display()))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.join("ready").exists()
    }

    pub(crate) fn set_ready(&self) -> Result<(), Failed> {
        self.mark("ready")
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.0.join("deleting").exists()
    }

    /// From now on the instance can only go; also a plugin started later knows it.
    pub(crate) fn set_deleting(&self) -> Result<(), Failed> {
        self.mark("deleting")
    }

    /// The instance's end outlives its directory: also a plugin started later tells it.
    pub(crate) fn set_gone(&self) -> Result<(), Failed> {
        self.mark(&format!("../{GONE_PREFIX}{}", self.id()))
    }

    pub(crate) fn open_log(&self) -> Result<File, Failed> {
        OpenOptions::new().append(true).open(self.0.join("log")).during("open the log")
    }

    pub(crate) fn open_server_settings(&self) -> Result<File, Failed> {
        File::open(self.0.join("server.json")).during("open server.json")
    }

    /// The end of the log on one line; empty if there is none.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.0.join("log")).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim().replace('\n', "; ")
    }

    /// When a plugin last renewed the lease of the group.
    pub(crate) fn lease_renewed(&self) -> Option<SystemTime> {
        fs::metadata(self.0.parent()?.join("lease")).ok()?.modified().ok()
    }

    /// Whether a plugin owns the group now.
    pub(crate) fn has_plugin(&self) -> bool {
        let lock = self.0.parent().map(|group| File::open(group.join("lock")));
        matches!(lock, Some(Ok(lock)) if matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, Failed> {
        let path = self.0.join(name);
        fs::read(&path)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
            .during(format!("read {}", path.display()))
    }

    /// Makes a file whose existence says everything; plugin and keeper may both do it.
    fn mark(&self, name: &str) -> Result<(), Failed> {
        let path = self.0.join(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map(drop)
            .during(format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_ours_are_ids() {
        assert!(is_id("local-0123abcd"));
        for id in ["", "local-", "local-0123ABCD", "local-0123abcde", "../local-0123abcd", "lock"] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn a_group_has_one_user_at_a_time() {
        let root = tempfile::tempdir().expect("a directory");
        let (first, lock) = Registry::open(root.path(), "a").expect("free");
        let refused = Registry::open(root.path(), "a").expect_err("in use");
        assert!(refused.contains("another plugin process"), "{refused}");
        Registry::open(root.path(), "b").expect("another group is free");
        assert!(first.free_instance().has_plugin());
        drop(lock);
        assert!(!first.free_instance().has_plugin());
        Registry::open(root.path(), "a").expect("free again");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        fs::set_permissions(root.path(), Permissions::from_mode(0o777)).expect("opened up");
        let refused = Registry::open(root.path(), "a").expect_err("unsafe");
        assert!(refused.contains("chmod"), "{refused}");
    }
}
