//! Removing a directory that a hostile or careless job has filled.
//!
//! Jobs leave directories without permissions (Go's module cache), and could leave a
//! tree deeper than any recursion or path may be. So directories are first moved up to
//! the top and then emptied one by one. Must run only when nothing uses the tree any more.

use std::ffi::OsString;
use std::fs::{self, DirEntry, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Removes `top` and everything in it; symbolic links are not followed. A missing `top`
/// is fine.
pub(crate) fn remove_tree(top: &Path) -> io::Result<()> {
    match fs::symlink_metadata(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return fs::remove_file(top),
        Ok(_) => {}
    }
    open_up(top)?;
    let mut number: u64 = 0;
    loop {
        let directories = remove_files(top)?;
        if directories.is_empty() {
            return fs::remove_dir(top);
        }
        for directory in directories {
            let directory = top.join(directory);
            open_up(&directory)?;
            for child in remove_files(&directory)? {
                let child = directory.join(child);
                // A directory that is moved needs to be writable itself.
                open_up(&child)?;
                number = move_up(&child, top, number)?;
            }
            fs::remove_dir(&directory)?;
        }
    }
}

/// Removes what is not a directory and returns the names of those that are.
fn remove_files(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry: DirEntry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.file_name());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(directories)
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

/// Moves a directory to a free name in `top`; returns the number to go on with.
fn move_up(directory: &Path, top: &Path, mut number: u64) -> io::Result<u64> {
    loop {
        number += 1;
        let free = top.join(format!(".removing-{number}"));
        // An empty directory would be replaced by rename, which is as good.
        match fs::rename(directory, &free) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            result => return result.map(|()| number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_unfriendly_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        fs::write(&outside, "kept").expect("written");
        let top = dir.path().join("top");
        let locked = top.join("locked/inner");
        fs::create_dir_all(&locked).expect("made");
        fs::create_dir_all(top.join(".removing-1/x")).expect("made");
        fs::write(locked.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(dir.path(), top.join("link")).expect("linked");
        fs::set_permissions(&locked, Permissions::from_mode(0o000)).expect("locked");
        fs::set_permissions(top.join("locked"), Permissions::from_mode(0o555)).expect("locked");
        remove_tree(&top).expect("removed");
        assert!(!top.exists() && outside.exists());
        remove_tree(&top).expect("a missing tree is fine");
    }

    #[test]
    fn depth_is_no_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        let (top, step) = (dir.path().join("top"), "d".repeat(100));
        // Built from the inside out: a path to the bottom would be too long.
        fs::create_dir(&top).expect("made");
        for _ in 0..300 {
            let next = dir.path().join("next");
            fs::create_dir(&next).expect("made");
            fs::rename(&top, next.join(&step)).expect("moved");
            fs::rename(&next, &top).expect("moved");
        }
        remove_tree(&top).expect("removed");
        assert!(!top.exists());
    }
}
