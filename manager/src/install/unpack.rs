//! A plugin's archive becomes files, and nothing else than files below one directory.
//!
//! Two passes: the first looks at every header with bounds on all that an archive can
//! make grow, the second writes. Links, devices, ways up and what is not under `plugin/`
//! refuse the whole archive.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

use super::artifact::Digest;
use super::layout::{PLUGIN, make_directories};
use super::{InstallError, file_error};

/// The directory in the archive. On Windows it lies deeper; this build is none.
const PREFIX: &str = "plugin";
/// A plugin is one file, or a few.
const MAX_ENTRIES: u64 = 1000;
/// A plugin unpacked.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Long names and attributes of one entry.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;

/// Unpacks a gzipped tar archive into a new directory. Returns the digests of its files.
pub(super) fn unpack(
    archive: &Path,
    into: &Path,
) -> Result<BTreeMap<String, String>, InstallError> {
    check(open(archive)?)?;
    let parent = into.parent().unwrap_or(Path::new("/"));
    make_directories(parent, into)?;
    let mut files = BTreeMap::new();
    let mut archive = open(archive)?;
    for entry in archive.entries().map_err(refused)? {
        let mut entry = entry.map_err(refused)?;
        let name = entry.path().map_err(refused)?.into_owned();
        let inside = inside(&name)?;
        match (entry.header().entry_type(), inside) {
            (EntryType::Directory, _) | (EntryType::XGlobalHeader, _) => {}
            (EntryType::Regular, Some(inside)) => {
                let runnable = entry.header().mode().map_err(refused)? & 0o111 != 0;
                let digest = write(&mut entry, into, &inside, runnable)?;
                if runnable || inside != Path::new(PLUGIN) {
                    files.insert(inside.to_string_lossy().into_owned(), digest);
                }
            }
            _ => return Err(InstallError::Archive(format!("{} is no file", name.display()))),
        }
    }
    if !files.contains_key(PLUGIN) {
        return Err(InstallError::Archive("there is no program plugin/plugin in it".into()));
    }
    Ok(files)
}

/// The first pass.
fn check(mut archive: Archive<impl Read>) -> Result<(), InstallError> {
    let (mut entries, mut bytes) = (0, 0_u64);
    for entry in archive.entries().map_err(refused)?.raw(true) {
        let mut entry = entry.map_err(refused)?;
        entries += 1;
        let kind = entry.header().entry_type();
        let is_extension = kind.is_pax_global_extensions()
            || kind.is_pax_local_extensions()
            || kind.is_gnu_longname();
        let allowed = is_extension || matches!(kind, EntryType::Regular | EntryType::Directory);
        if !allowed {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(InstallError::Archive(format!("{name:?} is neither file nor directory")));
        }
        // What is really there counts, not what the header says.
        let limit = if is_extension { MAX_EXTENSION_BYTES } else { MAX_BYTES };
        let found =
            io::copy(&mut entry.by_ref().take(limit + 1), &mut io::sink()).map_err(refused)?;
        bytes = bytes.saturating_add(found);
        if found > limit || bytes > MAX_BYTES || entries > MAX_ENTRIES {
            return Err(InstallError::TooLarge { what: "content", limit: MAX_BYTES });
        }
    }
    Ok(())
}

fn open(archive: &Path) -> Result<Archive<impl Read>, InstallError> {
    let file = File::open(archive).map_err(file_error("open", archive))?;
    // With room for headers and padding.
    let unzipped = MultiGzDecoder::new(BufReader::new(file)).take(MAX_BYTES + MAX_BYTES / 2);
    Ok(Archive::new(unzipped))
}

/// The path below `plugin/`; `None` is that directory itself, or one above.
fn inside(name: &Path) -> Result<Option<PathBuf>, InstallError> {
    let refuse = |why: &str| Err(InstallError::Archive(format!("{:?} {why}", name.display())));
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) if part.to_str().is_some() => parts.push(part),
            _ => return refuse("leads out of the directory"),
        }
    }
    match parts.split_first() {
        None => Ok(None),
        Some((first, rest)) if *first == PREFIX => {
            Ok((!rest.is_empty()).then(|| rest.iter().collect()))
        }
        Some(_) => refuse("is not under plugin/"),
    }
}

fn write(
    entry: &mut impl Read,
    root: &Path,
    inside: &Path,
    runnable: bool,
) -> Result<String, InstallError> {
    let path = root.join(inside);
    make_directories(root, path.parent().unwrap_or(root))?;
    let mode = if runnable { 0o755 } else { 0o644 };
    // A name that comes twice is refused here.
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    let mut file = Hashing { file: file.map_err(file_error("write", &path))?, hash: Sha256::new() };
    io::copy(entry, &mut file).map_err(file_error("write", &path))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    let done = file.file.set_permissions(mode).and_then(|()| file.file.sync_all());
    done.map_err(file_error("write", &path))?;
    Ok(Digest::finished(file.hash).as_str().to_owned())
}

struct Hashing {
    file: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn refused(error: io::Error) -> InstallError {
    InstallError::Archive(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry: its kind, name, mode, link target and content.
    type Entry<'a> = (EntryType, &'a str, u32, &'a str, &'a [u8]);

    fn packed(entries: &[Entry]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, mode, link, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            // Past the checks of those who write archives honestly.
            let gnu = header.as_gnu_mut().expect("a GNU header");
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).expect("appended");
        }
        gzipped(&builder.into_inner().expect("finished"))
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("packed");
        encoder.finish().expect("packed")
    }

    fn unpacked(archive: &[u8]) -> (tempfile::TempDir, Result<BTreeMap<String, String>, String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("archive");
        std::fs::write(&file, archive).expect("written");
        let result = unpack(&file, &dir.path().join("tree"));
        (dir, result.map_err(|error| error.to_string()))
    }

    const GOOD: Entry = (EntryType::Regular, "plugin/plugin", 0o755, "", b"#!/bin/sh\n");

    #[test]
    fn files_get_their_places_and_plain_modes() {
        let (dir, files) = unpacked(&packed(&[
            (EntryType::Directory, "plugin/", 0o777, "", b""),
            (EntryType::Regular, "plugin/plugin", 0o6777, "", b"#!/bin/sh\n"),
            (EntryType::Regular, "./plugin/share/notes", 0o666, "", b"notes"),
        ]));
        let files = files.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(files.keys().collect::<Vec<_>>(), ["plugin", "share/notes"]);
        assert_eq!(files["share/notes"], Digest::of(b"notes").as_str());
        let mode = |path: &str| {
            let path = dir.path().join("tree").join(path);
            let metadata = std::fs::metadata(path).expect("it is there");
            std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777
        };
        assert_eq!(
            [mode(""), mode("plugin"), mode("share"), mode("share/notes")],
            [0o755, 0o755, 0o755, 0o644]
        );
    }

    #[test]
    fn no_archive_reaches_out() {
        use EntryType as T;
        let many = vec![(T::Directory, "plugin/", 0o755, "", &b""[..]); 1001];
        let cases: &[(&[Entry], &str)] = &[
            (&[GOOD, (T::Regular, "plugin/../../evil", 0o644, "", b"x")], "leads out"),
            (&[GOOD, (T::Regular, "../evil", 0o644, "", b"x")], "leads out"),
            (&[GOOD, (T::Regular, "/evil", 0o644, "", b"x")], "leads out"),
            (&[GOOD, (T::Regular, "evil", 0o644, "", b"x")], "not under plugin/"),
            (
                &[GOOD, (T::Symlink, "plugin/link", 0o777, "/etc", b"")],
                "neither file nor directory",
            ),
            (
                &[GOOD, (T::Link, "plugin/link", 0o777, "/etc/passwd", b"")],
                "neither file nor directory",
            ),
            (&[GOOD, (T::Fifo, "plugin/pipe", 0o777, "", b"")], "neither file nor directory"),
            (&[GOOD, (T::Char, "plugin/null", 0o777, "", b"")], "neither file nor directory"),
            (&[GOOD, GOOD], "exists"),
            (&[GOOD, (T::Regular, "plugin/plugin/x", 0o644, "", b"x")], "cannot"),
            (&[(T::Regular, "plugin/plugin", 0o644, "", b"x")], "no program plugin/plugin"),
            (&[(T::Regular, "plugin/other", 0o755, "", b"x")], "no program plugin/plugin"),
            (&[(T::Directory, "plugin/plugin", 0o755, "", b"")], "no program plugin/plugin"),
            (&[], "no program plugin/plugin"),
            (&many, "larger than"),
        ];
        for (entries, expected) in cases {
            let (dir, result) = unpacked(&packed(entries));
            let error = result.expect_err(expected);
            assert!(error.contains(expected), "{expected}: {error}");
            let outside: Vec<_> = std::fs::read_dir(dir.path())
                .expect("readable")
                .flatten()
                .map(|entry| entry.file_name())
                .filter(|name| name != "tree" && name != "archive")
                .collect();
            assert!(outside.is_empty(), "{outside:?}");
        }
    }

    #[test]
    fn names_that_grow_without_bound_are_refused() {
        let name = vec![b'x'; 1024 * 1024];
        let (_dir, result) =
            unpacked(&packed(&[(EntryType::GNULongName, "././@LongLink", 0o644, "", &name), GOOD]));
        assert!(result.expect_err("refused").contains("larger than"));
    }

    #[test]
    fn a_cut_or_broken_archive_is_refused() {
        let whole = packed(&[GOOD]);
        for archive in [&whole[..whole.len() / 2], b"no archive", &gzipped(b"no archive"), b""] {
            let (_dir, result) = unpacked(archive);
            assert!(result.is_err());
        }
    }
}
