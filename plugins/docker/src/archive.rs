//! What is put into each container before it starts: this very binary, and who may log in.
//!
//! A tar archive, compressed once and sent often. Nothing in it is secret.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The directory in containers.
const DIRECTORY: &str = ".mayfly";
/// Where the binary lies in containers.
pub(crate) const BINARY: &str = "/.mayfly/fleeting-plugin-docker";
/// Where the keys lie that may log in.
pub(crate) const KEYS: &str = "/.mayfly/authorized_keys";

const BLOCK_BYTES: usize = 512;
/// A tar's end is two empty blocks.
const END_BYTES: usize = 2 * BLOCK_BYTES;
/// Of an ELF file: the entry of the program header that names a loader.
const ELF_INTERPRETER: u32 = 3;

/// Everything that a new container needs.
pub(crate) fn whole(binary: &[u8], keys: &str) -> io::Result<Bytes> {
    let mut tar = start();
    directory(&mut tar)?;
    file(&mut tar, BINARY, 0o755, binary)?;
    file(&mut tar, KEYS, 0o644, keys.as_bytes())?;
    finish(tar)
}

/// The keys alone, for a container that has the rest.
pub(crate) fn keys_only(keys: &str) -> io::Result<Bytes> {
    let mut tar = start();
    file(&mut tar, KEYS, 0o644, keys.as_bytes())?;
    finish(tar)
}

/// This process's own program.
pub(crate) fn own_binary() -> io::Result<Vec<u8>> {
    let mut binary = Vec::new();
    std::fs::File::open("/proc/self/exe")?.read_to_end(&mut binary)?;
    Ok(binary)
}

/// Whether a program needs a loader and libraries where it runs.
pub(crate) fn is_dynamic(binary: &[u8]) -> bool {
    let word = |at: usize| Some(u16::from_le_bytes(binary.get(at..at + 2)?.try_into().ok()?));
    let table = binary.get(32..40).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let (Some(table), Some(size), Some(count)) = (table, word(54), word(56)) else {
        return false;
    };
    let table = usize::try_from(table).unwrap_or(usize::MAX);
    (0..usize::from(count)).any(|index| {
        let at = table.saturating_add(index * usize::from(size));
        let kind = binary.get(at..at.saturating_add(4)).and_then(|bytes| bytes.try_into().ok());
        kind.map(u32::from_le_bytes) == Some(ELF_INTERPRETER)
    })
}

fn start() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

fn directory(tar: &mut impl io::Write) -> io::Result<()> {
    tar.write_all(&header(&format!("{DIRECTORY}/"), 0o755, 0, b'5'))
}

fn file(tar: &mut impl io::Write, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = Path::new(path).strip_prefix("/").map_err(io::Error::other)?;
    tar.write_all(&header(&name.to_string_lossy(), mode, content.len(), b'0'))?;
    tar.write_all(content)?;
    let rest = content.len() % BLOCK_BYTES;
    if rest > 0 {
        tar.write_all(&[0; BLOCK_BYTES][rest..])?;
    }
    Ok(())
}

fn finish(mut tar: GzEncoder<Vec<u8>>) -> io::Result<Bytes> {
    tar.write_all(&[0; END_BYTES])?;
    tar.finish().map(Bytes::from)
}

/// One header of the `ustar` format; the owner is root, the time is 1970.
fn header(name: &str, mode: u32, size: usize, kind: u8) -> [u8; BLOCK_BYTES] {
    let mut header = [0; BLOCK_BYTES];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The sum is taken with spaces in its own place.
    put(148, "        ");
    put(257, "ustar");
    put(263, "00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_stock_tar_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let binary = own_binary().expect("readable");
        let archive = whole(&binary, "a key\n").expect("packed");
        let mut tar = Command::new("tar")
            .args(["xzf", "-", "-C"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("tar runs");
        tar.stdin.take().expect("a pipe").write_all(&archive).expect("written");
        assert!(tar.wait().expect("waited").success());
        let inside = |path: &str| dir.path().join(&path[1..]);
        assert!(std::fs::read(inside(BINARY)).expect("unpacked") == binary);
        assert_eq!(std::fs::read_to_string(inside(KEYS)).expect("unpacked"), "a key\n");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(inside(BINARY)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn a_loader_is_noticed() {
        assert!(is_dynamic(&std::fs::read("/bin/sh").expect("there is a shell")));
        assert!(!is_dynamic(b"#!/bin/sh\n"));
        assert!(!is_dynamic(b""));
    }
}
