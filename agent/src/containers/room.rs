//! Whether the instance has space left: bytes and inodes.

use rustix::fs::statvfs;

use super::Job;
use super::daemon::Ask;

/// Less than this is nothing: programs fail before the last block is used.
const LEAST_BYTES: u64 = 1024 * 1024;

/// The file system that is full, in words; `None` while there is room.
pub(super) async fn full(job: &Job<'_>) -> Option<String> {
    let info = job.daemon.call(Ask::get("/info")).await.unwrap_or_default();
    let root = info["DockerRootDir"].as_str().unwrap_or_default();
    [job.containers.outside.as_str(), root].into_iter().find_map(|dir| {
        let stat = statvfs(dir).ok()?;
        let is_short = stat.f_bavail.saturating_mul(stat.f_frsize) < LEAST_BYTES;
        // File systems that make inodes as they need them count none.
        let has_no_inodes = stat.f_files > 0 && stat.f_favail == 0;
        match (is_short, has_no_inodes) {
            (true, _) => Some(format!("the file system of {dir} is full")),
            (_, true) => Some(format!("the file system of {dir} has no inodes left")),
            _ => None,
        }
    })
}
