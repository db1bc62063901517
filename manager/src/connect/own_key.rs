//! The manager's own SSH key.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use russh::keys::PrivateKey;

/// A key of the manager's own, added to each instance while it is prepared: what a plugin
/// provides may end with the plugin.
#[derive(Clone)]
pub(crate) struct OwnKey {
    private: Arc<PrivateKey>,
    /// The line for `authorized_keys`.
    pub(super) public_line: String,
}

impl OwnKey {
    /// The key to log in with.
    pub(super) fn private(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.private)
    }

    /// Reads the key, or makes it; 0600.
    pub(crate) fn read_or_make(path: &Path) -> std::io::Result<Self> {
        let invalid = |error: russh::keys::ssh_key::Error| {
            let text = format!("{}: {error}; remove the file to have a new key", path.display());
            std::io::Error::new(std::io::ErrorKind::InvalidData, text)
        };
        let private = match std::fs::read_to_string(path) {
            Ok(pem) => PrivateKey::from_openssh(pem).map_err(invalid)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = new_key().map_err(invalid)?;
                let pem = key.to_openssh(russh::keys::ssh_key::LineEnding::LF).map_err(invalid)?;
                write_whole(path, pem.as_bytes())?;
                key
            }
            Err(error) => return Err(error),
        };
        let public = private.public_key().to_openssh().map_err(invalid)?;
        let public_line = format!("{} mayfly", public.trim());
        Ok(Self { private: Arc::new(private), public_line })
    }
}

/// A file that is there is a whole one.
fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

fn new_key() -> Result<PrivateKey, russh::keys::ssh_key::Error> {
    let mut seed = [0; 32];
    rand::fill(&mut seed);
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
    PrivateKey::new(pair.into(), "mayfly")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_key_is_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let made = OwnKey::read_or_make(&path).expect("made");
        let read = OwnKey::read_or_make(&path).expect("read");
        assert_eq!(made.public_line, read.public_line);
        assert!(made.public_line.starts_with("ssh-ed25519 "), "{}", made.public_line);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
