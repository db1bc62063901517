//! What an instance sees of the machine's files.
//!
//! Everything is a cover laid over what is there: private temporary directories, empty
//! ones over what must stay hidden, and the instance's home put back where a cover took
//! it away. Runs in a mount namespace of its own; nothing of it reaches the machine's.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use instances::failed::{During as _, Failed};
use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags, open};

use crate::record::Record;
use crate::registry::InstanceDir;

const NO_SOURCE: Option<&str> = None;

/// Cuts the mounts off from the machine's, with `/proc` and shared memory of its own.
pub(super) fn own_mounts() -> Result<(), Failed> {
    mount(NO_SOURCE, "/", NO_SOURCE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_SOURCE)
        .during("make mounts private")?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("proc"), "/proc", Some("proc"), plain | MsFlags::MS_NOEXEC, NO_SOURCE)
        .during("mount /proc")?;
    if Path::new("/dev/shm").is_dir() {
        mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), plain, Some("mode=1777"))
            .during("mount /dev/shm")?;
    }
    Ok(())
}

/// The whole view of an instance.
pub(super) fn build(record: &Record, instance: &InstanceDir) -> Result<(), Failed> {
    own_mounts()?;
    let hold = |name: &str| Held::open(&instance.path().join(name));
    let (home, passwd, group) = (hold("home")?, hold("passwd")?, hold("group")?);
    let temporary = [("/tmp", hold("tmp")?), ("/var/tmp", hold("var-tmp")?)];

    let mut covers = Vec::new();
    for (path, own) in temporary {
        if let Some(path) = uncovered(Path::new(path), &covers) {
            own.bind_to(&path)?;
            covers.push(path);
        }
    }
    let mut empty = Vec::new();
    for hidden in by_length(&record.hidden) {
        if let Some(path) = uncovered(hidden, &covers) {
            if cover(&path)? {
                empty.push(path.clone());
            }
            covers.push(path);
        }
    }
    let place = &record.account.home;
    fs::create_dir_all(place).during(format!("make a place for {}", place.display()))?;
    home.bind_to(place)?;
    for path in empty {
        make_read_only(&path)?;
    }
    passwd.bind_to(Path::new("/etc/passwd"))?;
    group.bind_to(Path::new("/etc/group"))
}

/// Shorter paths first: a cover spares all that lies below it.
fn by_length(paths: &[PathBuf]) -> Vec<&PathBuf> {
    let mut sorted: Vec<&PathBuf> = paths.iter().collect();
    sorted.sort_by_key(|path| path.components().count());
    sorted
}

/// Where `path` really is, unless it does not exist or is covered already.
fn uncovered(path: &Path, covers: &[PathBuf]) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    (!covers.iter().any(|cover| path.starts_with(cover))).then_some(path)
}

/// Hides a directory behind an empty one, or a file behind nothing. True for a directory.
fn cover(path: &Path) -> Result<bool, Failed> {
    let during = || format!("hide {}", path.display());
    if path.is_dir() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=0755")).during(during())?;
        return Ok(true);
    }
    mount(Some("/dev/null"), path, NO_SOURCE, MsFlags::MS_BIND, NO_SOURCE).during(during())?;
    Ok(false)
}

fn make_read_only(path: &Path) -> Result<(), Failed> {
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV;
    mount(NO_SOURCE, path, NO_SOURCE, flags, NO_SOURCE)
        .during(format!("make {} read-only", path.display()))
}

/// A file or directory that stays reachable after its path is covered.
struct Held {
    fd: OwnedFd,
    shown: String,
}

impl Held {
    fn open(path: &Path) -> Result<Self, Failed> {
        let shown = path.display().to_string();
        let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .during(format!("open {shown}"))?;
        Ok(Self { fd, shown })
    }

    fn bind_to(&self, target: &Path) -> Result<(), Failed> {
        let source = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        mount(Some(source.as_str()), target, NO_SOURCE, MsFlags::MS_BIND, NO_SOURCE)
            .during(format!("show {} as {}", self.shown, target.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered_or_missing_needs_no_cover() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = fs::canonicalize(dir.path()).expect("exists");
        fs::create_dir(real.join("inner")).expect("made");
        assert_eq!(uncovered(&real, &[]), Some(real.clone()));
        assert_eq!(uncovered(&real.join("inner"), std::slice::from_ref(&real)), None);
        assert_eq!(uncovered(&real.join("missing"), &[]), None);
    }

    #[test]
    fn parents_come_first() {
        let paths = ["/a/b/c", "/a", "/a/b"].map(PathBuf::from);
        let sorted: Vec<&str> = by_length(&paths).iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(sorted, ["/a", "/a/b", "/a/b/c"]);
    }
}
