//! The agent's binary, ready to be copied to an instance: part of this program where the
//! build put it there, else a file beside it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

/// Builds that are part of this program: architecture in Go's words, zstd.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/agents.rs"));

/// Copies that may be under way at a time: each takes megabytes on its way.
const COPIES: usize = 4;

/// The agents of all architectures that there are.
#[derive(Debug)]
pub(crate) struct Agents {
    known: Mutex<BTreeMap<String, Arc<AgentBinary>>>,
    /// Places for copies.
    pub(super) copies: Semaphore,
}

impl Default for Agents {
    fn default() -> Self {
        Self { known: Mutex::default(), copies: Semaphore::new(COPIES) }
    }
}

/// One agent build.
#[derive(Debug)]
pub(crate) struct AgentBinary {
    /// SHA-256 of the binary, in hex: its name on the instance.
    pub(crate) hash: String,
    zstd: Bytes,
    gzip: Mutex<Option<Bytes>>,
}

/// How the instance can unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Zstd,
    Gzip,
    Plain,
}

impl Packing {
    /// The filter that unpacks on the instance.
    pub(crate) fn filter(self) -> &'static str {
        match self {
            Self::Zstd => "zstd -dcq",
            Self::Gzip => "gzip -dc",
            Self::Plain => "cat",
        }
    }
}

impl Agents {
    /// The agent for an architecture in Go's words. Blocks: for a moment at first use.
    pub(crate) fn get(&self, arch: &str) -> Result<Arc<AgentBinary>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = known.get(arch) {
            return Ok(Arc::clone(agent));
        }
        let agent = Arc::new(load(arch)?);
        known.insert(arch.to_owned(), Arc::clone(&agent));
        Ok(agent)
    }
}

impl AgentBinary {
    /// The binary in a form that the instance can unpack. Blocks.
    pub(crate) fn packed(&self, packing: Packing) -> std::io::Result<Bytes> {
        match packing {
            Packing::Zstd => Ok(self.zstd.clone()),
            Packing::Plain => self.plain().map(Bytes::from),
            Packing::Gzip => {
                let mut gzip = self.gzip.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(gzip) = &*gzip {
                    return Ok(gzip.clone());
                }
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(&self.plain()?)?;
                let made = Bytes::from(encoder.finish()?);
                *gzip = Some(made.clone());
                Ok(made)
            }
        }
    }

    fn plain(&self) -> std::io::Result<Vec<u8>> {
        zstd::decode_all(self.zstd.as_ref())
    }
}

fn load(arch: &str) -> Result<AgentBinary, String> {
    if let Some((_, packed)) = EMBEDDED.iter().find(|(name, _)| *name == arch) {
        let zstd = Bytes::from_static(packed);
        let plain = zstd::decode_all(zstd.as_ref()).map_err(|error| error.to_string())?;
        return Ok(AgentBinary { hash: hash(&plain), zstd, gzip: Mutex::default() });
    }
    let path = beside(arch).ok_or_else(|| {
        format!(
            "there is no mayfly-agent for {arch}: this build of mayfly has none inside, and none lies beside it"
        )
    })?;
    let read = || -> std::io::Result<AgentBinary> {
        let mut plain = Vec::new();
        std::fs::File::open(&path)?.read_to_end(&mut plain)?;
        // Fast, not small: this is the way of a developer's machine.
        let zstd = Bytes::from(zstd::encode_all(plain.as_slice(), 1)?);
        Ok(AgentBinary { hash: hash(&plain), zstd, gzip: Mutex::default() })
    };
    read().map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// `mayfly-agent-<arch>` beside this program, or `mayfly-agent` for its own architecture.
fn beside(arch: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let dir = own.parent()?;
    let named = dir.join(format!("mayfly-agent-{arch}"));
    let same = dir.join("mayfly-agent");
    let is_file = |path: &Path| path.is_file();
    if is_file(&named) {
        return Some(named);
    }
    (arch == crate::go_arch() && is_file(&same)).then_some(same)
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
