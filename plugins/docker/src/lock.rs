//! One plugin per group on one machine.
//!
//! The lock is a name among the abstract unix sockets, which the kernel gives back with
//! the process that holds it: no file can be left over. It reaches as far as the network
//! namespace; plugins on other machines have another owner label and see nothing of us.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// A plugin that was killed, and is started again, may find the old one still ending.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// Held as long as the plugin lives.
pub(crate) struct GroupLock(#[expect(dead_code, reason = "held, never used")] UnixListener);

impl GroupLock {
    /// Takes the lock of a group, or tells that somebody has it.
    pub(crate) async fn take(name: &str, owner: &str, host: &str) -> Result<Self, String> {
        let digest = Sha256::digest(format!("{name}\n{owner}\n{host}"));
        let short: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let address = SocketAddr::from_abstract_name(format!("mayfly-docker-{short}"))
            .map_err(|error| format!("cannot name the lock of group {name:?}: {error}"))?;
        let started = tokio::time::Instant::now();
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(format!("cannot lock group {name:?}: {error}"));
                }
                Err(_) if started.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(_) => {
                    return Err(format!(
                        "another plugin on this machine serves the group {name:?} of the Docker \
                         daemon at {host}: end it, or give one of the two another name"
                    ));
                }
            }
        }
    }
}
