//! Keys: making them, reading them, and who may log in.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use russh::keys::ssh_key::authorized_keys::{ConfigOpts, Entry};
use russh::keys::ssh_key::{LineEnding, PublicKey};
use russh::keys::{Algorithm, PrivateKey};

use crate::server::Error;

/// The most that is read of one `authorized_keys` file.
const FILE_LIMIT_BYTES: u64 = 256 * 1024;

/// A fresh ed25519 key pair as text.
pub struct KeyPair {
    /// The private half in OpenSSH's PEM format, not encrypted.
    pub private: String,
    /// The public half as a line of `authorized_keys`.
    pub public: String,
}

impl KeyPair {
    /// Makes a pair; `comment` ends the public line.
    pub fn generate(comment: &str) -> Result<Self, Error> {
        let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
        key.set_comment(comment);
        Ok(Self {
            private: key.to_openssh(LineEnding::LF)?.to_string(),
            public: key.public_key().to_openssh()?,
        })
    }
}

/// The public half of a private key (PEM text) that somebody else made, as a line of
/// `authorized_keys`. Encrypted keys and kinds that the server cannot verify (RSA) are
/// errors.
pub fn public_half(private: &str) -> Result<String, Error> {
    let key = russh::keys::decode_secret_key(private, None)
        .map_err(|error| Error::Key(error.to_string()))?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key.public_key().to_openssh()?),
        other => Err(Error::Key(format!("{other} keys are not supported"))),
    }
}

/// Whether `key` stands in one of the `lines` or in one of the `files`, as they are now.
pub(crate) fn is_authorized(key: &PublicKey, lines: &[String], files: &[impl AsRef<Path>]) -> bool {
    lines.iter().any(|line| line_has(line, key))
        || files.iter().any(|file| match read(file.as_ref()) {
            Ok(text) => text.lines().any(|line| line_has(line, key)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(file = %file.as_ref().display(), %error, "cannot read keys");
                false
            }
        })
}

/// The file belongs to whoever uses the instance: a FIFO or an endless file in its place
/// must not hold the server.
fn read(path: &Path) -> std::io::Result<String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn line_has(line: &str, key: &PublicKey) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return false;
    }
    line.parse::<Entry>().is_ok_and(|entry| {
        entry.public_key().key_data() == key.key_data() && only_forbids(entry.config_opts())
    })
}

/// An option that this server does not carry out (`command`, `from`, …) would give its
/// key more rights than its owner meant; what it forbids is absent here anyway.
fn only_forbids(options: &ConfigOpts) -> bool {
    const FORBIDDING: [&str; 6] = [
        "restrict",
        "no-pty",
        "no-port-forwarding",
        "no-agent-forwarding",
        "no-x11-forwarding",
        "no-user-rc",
    ];
    options.iter().all(|option| FORBIDDING.contains(&option.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, PublicKey) {
        let pair = KeyPair::generate("test").expect("a key");
        let key = PublicKey::from_openssh(&pair.public).expect("parses");
        (pair.public, key)
    }

    #[test]
    fn lines_and_files_are_both_asked() {
        let (line, key) = pair();
        let (other, _) = pair();
        let none: [&Path; 0] = [];
        assert!(is_authorized(&key, std::slice::from_ref(&line), &none));
        assert!(!is_authorized(&key, std::slice::from_ref(&other), &none));

        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("authorized_keys");
        assert!(!is_authorized(&key, &[], &[&file]), "a missing file has no keys");
        std::fs::write(&file, format!("# keys\n\nbroken line\n{other}\n")).expect("written");
        assert!(!is_authorized(&key, &[], &[&file]));
        std::fs::write(&file, format!("broken line\n{other}\n{line}\n")).expect("written");
        assert!(is_authorized(&key, &[], &[&file]));
    }

    #[test]
    fn options_that_are_not_carried_out_refuse_the_key() {
        let (line, key) = pair();
        for (options, good) in [
            ("restrict ", true),
            ("no-pty,no-X11-forwarding ", true),
            ("command=\"/bin/true\" ", false),
            ("restrict,from=\"10.0.0.1\" ", false),
        ] {
            assert_eq!(line_has(&format!("{options}{line}"), &key), good, "{options}");
        }
    }

    #[test]
    fn a_fifo_in_place_of_the_keys_does_not_block() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("authorized_keys");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        assert!(!is_authorized(&pair().1, &[], &[fifo]));
    }

    #[test]
    fn the_public_half_belongs_to_the_private_one() {
        let pair = KeyPair::generate("").expect("a key");
        let half = public_half(&pair.private).expect("readable");
        assert_eq!(half.split(' ').nth(1), pair.public.split(' ').nth(1));
        assert!(public_half("nonsense").is_err());
    }
}
