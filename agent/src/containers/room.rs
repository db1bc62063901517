//! Whether the instance has room: bytes and inodes, where its Docker and the jobs' files are.
//!
//! Between jobs, never during one, what nobody needs is removed in a fixed order until there
//! is room. Where there is none all the same, the instance takes no job: its manager replaces
//! it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use job::plan::Containers;
use rustix::fs::{StatVfs, statvfs};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::daemon::{Ask, Daemon, Fault, escape};
use super::{Job, warn};

/// Less than this is nothing: programs fail before the last block is used.
const NOTHING_BYTES: u64 = 1024 * 1024;
/// A job should have this much, or a tenth of a smaller file system.
const ENOUGH_BYTES: u64 = 1024 * 1024 * 1024;
/// The same of inodes, or a twentieth.
const ENOUGH_INODES: u64 = 20_000;
/// How long cleaning may keep a slot from its next job.
const CLEANING_LIMIT: Duration = Duration::from_secs(30);
/// The same where a job is there already: its manager waits 15 s for an agent's answer.
const QUICK_LIMIT: Duration = Duration::from_secs(10);
/// An image that a job used so lately stays: the next job would only pull it again.
const IN_USE_S: u64 = 3600;
/// Where the instance's Docker keeps its files, as it said when it was looked at.
const ROOT_FILE: &str = "docker-root";

/// The file system that is full, in words; `None` while there is any room.
pub(super) async fn full(job: &Job<'_>) -> Option<String> {
    let root = root_of(&job.daemon).await.unwrap_or_default();
    [Path::new(&job.containers.outside), &root].into_iter().find_map(|dir| {
        let stat = statvfs(dir).ok()?;
        // File systems that make inodes as they need them count none.
        let has_no_inodes = stat.f_files > 0 && stat.f_favail == 0;
        match (free(&stat) < NOTHING_BYTES, has_no_inodes) {
            (true, _) => Some(format!("the file system of {} is full", dir.display())),
            (_, true) => Some(format!("the file system of {} has no inodes left", dir.display())),
            _ => None,
        }
    })
}

/// Why a job should rather run elsewhere; `None` where there is enough room, or was made.
pub(crate) fn refusal(base: &Path, containers: &Containers) -> Option<String> {
    short(base, containers)?;
    if let (Ok(runtime), Ok(daemon)) = (super::runtime(), Daemon::of(&containers.host)) {
        runtime.block_on(async {
            if let Ok(root) = root_of(&daemon).await {
                make_room(&daemon, &root, QUICK_LIMIT).await;
            }
        });
    }
    short(base, containers)
}

fn short(base: &Path, containers: &Containers) -> Option<String> {
    let root = noted_root(base);
    let outside = Path::new(&containers.outside);
    let existing = outside.ancestors().find(|dir| dir.exists()).unwrap_or(base);
    [existing, &root].into_iter().find_map(shortage)
}

fn shortage(dir: &Path) -> Option<String> {
    let stat = statvfs(dir).ok()?;
    let (bytes, dir) = (free(&stat), dir.display());
    if bytes < ENOUGH_BYTES.min(stat.f_blocks.saturating_mul(stat.f_frsize) / 10) {
        return Some(format!(
            "the instance is short of space: {} MiB are left in the file system of {dir}",
            bytes / (1024 * 1024)
        ));
    }
    (stat.f_files > 0 && stat.f_favail < ENOUGH_INODES.min(stat.f_files / 20)).then(|| {
        format!("the instance is short of inodes: {} are left in that of {dir}", stat.f_favail)
    })
}

fn free(stat: &StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

/// Where Docker keeps its files: as noted, or as it says.
async fn root_of(daemon: &Daemon) -> Result<PathBuf, Fault> {
    match base().map(|base| noted_root(&base)) {
        Some(root) if !root.as_os_str().is_empty() => Ok(root),
        _ => asked_root(daemon).await,
    }
}

/// Empty where it was not noted.
fn noted_root(base: &Path) -> PathBuf {
    fs::read_to_string(base.join(ROOT_FILE)).unwrap_or_default().into()
}

async fn asked_root(daemon: &Daemon) -> Result<PathBuf, Fault> {
    let info = daemon.call(Ask::get("/info")).await?;
    Ok(PathBuf::from(info["DockerRootDir"].as_str().unwrap_or_default()))
}

/// Notes where Docker keeps its files, for [`refusal`], and makes room there.
pub(super) async fn note_root(daemon: &Daemon, base: &Path) -> Result<Option<String>, Fault> {
    let root = asked_root(daemon).await?;
    // Where it cannot be noted only the builds directory is watched.
    let _ = fs::write(base.join(ROOT_FILE), root.display().to_string());
    make_room(daemon, &root, CLEANING_LIMIT).await;
    Ok(shortage(&root))
}

impl Job<'_> {
    /// After a job: its own containers are gone.
    pub(super) async fn make_room(&self) {
        let Ok(root) = root_of(&self.daemon).await else { return };
        if !make_room(&self.daemon, &root, CLEANING_LIMIT).await {
            warn(
                "WARNING: the instance is short of space, and nothing can be removed: it takes no more jobs",
            );
        }
    }
}

/// Removes what is not in use until there is enough room: the build cache, images without a
/// name, all other images from the one on that was not used for longest, caches of
/// projects. Containers of others are never touched. Returns whether there is enough room now.
async fn make_room(daemon: &Daemon, root: &Path, limit: Duration) -> bool {
    if shortage(root).is_none() {
        return true;
    }
    let deadline = Instant::now() + limit;
    for prune in ["/build/prune", "/images/prune"] {
        let _ = timeout_at(deadline, daemon.call(Ask::order(prune))).await;
        if shortage(root).is_none() {
            return true;
        }
    }
    timeout_at(deadline, remove_one_by_one(daemon, root)).await.unwrap_or(false)
}

/// The agents' directory: this one's is in it, two levels down.
fn base() -> Option<PathBuf> {
    let agent = fs::read_link("/proc/self/exe").ok()?;
    Some(agent.parent()?.parent()?.to_owned())
}

/// The directory of marks of images that jobs used.
fn marks() -> Option<PathBuf> {
    Some(base()?.join("images"))
}

fn mark(id: &str) -> Option<PathBuf> {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':');
    plain.then(|| Some(marks()?.join(id.replace(':', "-"))))?
}

/// A job uses an image.
pub(super) fn note_use(id: &str) {
    if let (Some(dir), Some(mark)) = (marks(), mark(id)) {
        // Where it cannot be noted the image's own age counts.
        let _ = fs::create_dir_all(dir).and_then(|()| fs::write(mark, b""));
    }
}

/// Seconds since the epoch; 0 where no job used it.
fn last_used(id: &str) -> u64 {
    let modified = mark(id).and_then(|mark| fs::metadata(mark).ok()?.modified().ok());
    let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

/// Whether there is enough room now.
async fn remove_one_by_one(daemon: &Daemon, root: &Path) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let images = daemon.call(Ask::get("/images/json")).await.unwrap_or_default();
    let mut images: Vec<(u64, String)> = images
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|image| {
            let id = image["Id"].as_str()?.to_owned();
            let used = last_used(&id);
            let stays = used + IN_USE_S > now;
            (!stays).then(|| (used.max(image["Created"].as_u64().unwrap_or(0)), id))
        })
        .collect();
    images.sort();
    let images = images.into_iter().map(|(_, id)| {
        if let Some(mark) = mark(&id) {
            let _ = fs::remove_file(mark);
        }
        format!("/images/{}?force=1", escape(&id))
    });
    let filters = escape("{\"label\":[\"mayfly.cache\"],\"dangling\":[\"true\"]}");
    let path = format!("/volumes?filters={filters}");
    let volumes = daemon.call(Ask::get(&path)).await.unwrap_or_default();
    let names = |list: &Value| -> Vec<String> {
        let all = list["Volumes"].as_array().into_iter().flatten();
        all.filter_map(|volume| Some(format!("/volumes/{}", volume["Name"].as_str()?))).collect()
    };
    for path in images.chain(names(&volumes)) {
        match daemon.call(Ask::delete(&path)).await {
            // A container has it.
            Err(fault) if fault.is(StatusCode::CONFLICT) => {}
            Err(Fault::Unreachable(_) | Fault::Late(_)) => return false,
            _ if shortage(root).is_none() => return true,
            _ => {}
        }
    }
    shortage(root).is_none()
}
