//! Unpacks an archive so that nothing lands outside of its directory: neither by a name
//! with `..`, nor through a symlink of the archive or one that was there before.

use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::ZipFile;

use crate::Error;

pub(super) fn zip(archive: impl Read + Seek, into: &Path) -> Result<(), Error> {
    let mut archive = ZipArchive::new(archive)
        .map_err(|error| Error::new(format!("the archive is no zip: {error}")))?;
    let root = into.canonicalize().map_err(Error::io("the project directory"))?;
    // Links come last: until then no name can lead through one of the archive's.
    let mut links = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| Error::new(format!("the archive is damaged: {error}")))?;
        let name = entry.name().to_owned();
        let Some(path) = entry.enclosed_name() else {
            return Err(Error::new(format!("the archive's {name:?} leaves the project directory")));
        };
        let failed = format!("cannot unpack {name:?}");
        if entry.is_symlink() {
            let mut target = String::new();
            entry.read_to_string(&mut target).map_err(Error::io(&failed))?;
            links.push((path, target));
        } else {
            unpack(&root, &path, &mut entry).map_err(Error::io(&failed))?;
        }
    }
    for (path, target) in links {
        let failed = format!("cannot unpack the link {}", path.display());
        link(&root, &path, &target).map_err(Error::io(&failed))?;
    }
    Ok(())
}

fn unpack(root: &Path, path: &Path, entry: &mut ZipFile<'_, impl Read>) -> io::Result<()> {
    if entry.is_dir() {
        return fs::create_dir_all(safe(root, path)?);
    }
    let target = safe(root, path)?;
    remove_if_there(&target)?;
    let mut file = fs::File::create_new(&target)?;
    io::copy(entry, &mut file)?;
    if let Some(mode) = entry.unix_mode() {
        // No set-uid and its kind from an archive.
        fs::set_permissions(&target, fs::Permissions::from_mode(mode & 0o777))?;
    }
    Ok(())
}

fn link(root: &Path, path: &Path, target: &str) -> io::Result<()> {
    let place = safe(root, path)?;
    remove_if_there(&place)?;
    symlink(target, place)
}

/// Where an entry goes, its parent made; refused if the parent leads outside.
fn safe(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(root.to_owned());
    };
    let mut real = root.to_owned();
    for part in parent.components() {
        real.push(part);
        match fs::create_dir(&real) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        real = real.canonicalize()?;
        if !real.starts_with(root) {
            return Err(io::Error::other("a symlink leads outside of the project directory"));
        }
    }
    Ok(real.join(name))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use ::zip::ZipWriter;
    use ::zip::write::SimpleFileOptions;

    use super::*;

    fn archive(entries: &[(&str, &str)]) -> Cursor<Vec<u8>> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            let options = SimpleFileOptions::default().unix_permissions(0o4755);
            if let Some(target) = content.strip_prefix("-> ") {
                zip.add_symlink(*name, target, options).expect("added");
            } else {
                zip.start_file(*name, options).expect("added");
                zip.write_all(content.as_bytes()).expect("written");
            }
        }
        zip.finish().expect("an archive")
    }

    #[test]
    fn files_and_links_come_back_without_special_bits() {
        let dir = tempfile::tempdir().expect("a directory");
        let entries = archive(&[("a/b", "text"), ("a/c", "-> b")]);
        zip(entries, dir.path()).expect("unpacked");
        assert_eq!(fs::read_to_string(dir.path().join("a/c")).expect("read"), "text");
        let mode = fs::metadata(dir.path().join("a/b")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let cases: [&[(&str, &str)]; 3] = [
            &[("../escaped", "x")],
            &[("/escaped", "x"), ("a/../../escaped", "x")],
            &[("out/escaped", "x")],
        ];
        for entries in cases {
            let dir = tempfile::tempdir().expect("a directory");
            let project = dir.path().join("project");
            fs::create_dir(&project).expect("made");
            symlink(dir.path(), project.join("out")).expect("linked");
            let result = zip(archive(entries), &project);
            assert!(!dir.path().join("escaped").exists(), "{entries:?}: {result:?}");
            assert!(result.is_err() || project.join("escaped").exists(), "{entries:?}");
        }
    }

    #[test]
    fn a_link_of_the_archive_is_not_written_through() {
        let dir = tempfile::tempdir().expect("a directory");
        let project = dir.path().join("project");
        fs::create_dir(&project).expect("made");
        let entries = archive(&[("out", "-> .."), ("out/escaped", "x")]);
        let result = zip(entries, &project);
        assert!(!dir.path().join("escaped").exists(), "{result:?}");
    }
}
