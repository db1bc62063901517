//! `instance DIR`: the process that is an instance.
//!
//! It serves SSH, adopts and collects orphans, so that they can be found, and ends itself
//! with everything it started when its directory is gone: then nobody can delete it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use instances::failed::{During as _, Failed};
use instances::processes::{self, Identity};
use instances::{close_inherited, serve_ssh};
use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};
use serde::{Deserialize, Serialize};

use crate::{machine, store};

/// The first argument.
pub(crate) const ROLE: &str = "instance";
/// Channels per connection: eight agents and their siblings, several times over.
const MAX_CHANNELS: usize = 32;
const LOOKS: Duration = Duration::from_secs(1);

/// What the instance's SSH server is told. No `Debug`: it holds a private key.
#[derive(Serialize, Deserialize)]
pub(super) struct ServerSettings {
    pub(super) user: String,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
    pub(super) host_key: String,
    pub(super) trusted_keys: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// Is an instance until it is ended. Its listening socket is stdin. Must run before any
/// thread exists.
pub(crate) fn run(directory: &Path) -> Result<(), Failed> {
    close_inherited();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    set_child_subreaper(Pid::from_raw(1)).during("adopt orphans")?;
    let settings: Option<ServerSettings> = store::read(&directory.join("server.json"))?;
    let settings = settings
        .ok_or_else(|| std::io::Error::other("there is no server.json"))
        .during("read settings")?;
    let listener = take_listener()?;
    serve_ssh(server(settings), listener, watch(directory))?;
    machine::end(directory, Identity::of(std::process::id().cast_signed()))
}

/// Collects orphans until the directory is gone.
async fn watch(directory: &Path) {
    let mut seen = Vec::new();
    while directory.exists() {
        tokio::time::sleep(LOOKS).await;
        let own = std::process::id().cast_signed();
        let mut zombies = processes::all();
        zombies.retain(|process| process.parent == own && process.is_dead);
        // Children of the server's own are collected by it at once.
        for orphan in zombies.iter().filter(|zombie| seen.contains(*zombie)) {
            let pid = Pid::from_raw(orphan.identity.pid);
            let _ = waitpid(pid, WaitOptions::NOHANG);
        }
        seen = zombies;
    }
}

fn take_listener() -> Result<TcpListener, Failed> {
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .during("take over the listener")?;
    let null = std::fs::File::open("/dev/null").map(OwnedFd::from).during("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).during("close the listener")?;
    Ok(TcpListener::from(listener))
}

fn server(settings: ServerSettings) -> sshd::Server {
    sshd::Server {
        host_key: settings.host_key,
        environment: settings.environment,
        authorized_keys: vec![settings.home.join(".ssh/authorized_keys")],
        trusted_keys: settings.trusted_keys,
        user: settings.user,
        home: settings.home,
        shell: settings.shell,
        max_channels: MAX_CHANNELS,
    }
}
