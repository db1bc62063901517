//! Whether there is room for the state. A database may go on for a while in what it has;
//! without more, jobs would be taken that cannot begin.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Many jobs, and what the file grows by.
const ROOM_BYTES: u64 = 1024 * 1024;

/// Takes as much room as may be needed, and gives it back.
pub(super) fn check(dir: &Path) -> Result<(), String> {
    let path = dir.join("room");
    let taken =
        File::create(&path).and_then(|file| take(&file)).and_then(|()| std::fs::remove_file(&path));
    taken.map_err(|error| {
        let _ = std::fs::remove_file(&path);
        format!("there is no room for {ROOM_BYTES} bytes beside it, make some: {error}")
    })
}

fn take(file: &File) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, ROOM_BYTES) {
        // Not every file system can tell.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        told => Ok(told?),
    }
}
