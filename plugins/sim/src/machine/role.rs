//! `instance DIR`: the process that is an instance.
//!
//! It serves SSH, adopts and collects orphans, so that they can be found, and ends itself
//! with everything it started when its directory is gone: then nobody can delete it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};
use serde::{Deserialize, Serialize};

use super::process::{self, Identity};
use crate::failed::{During as _, Failed};
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
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    listener.set_nonblocking(true).during("use the listener")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during("start the async runtime")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).during("use the listener")?;
        let is_abandoned = watch(directory);
        server(settings)
            .serve(listener, is_abandoned)
            .await
            .map_err(std::io::Error::other)
            .during("serve SSH")
    })?;
    machine::end(directory, Identity::of(std::process::id().cast_signed()))
}

/// Collects orphans until the directory is gone.
async fn watch(directory: &Path) {
    let mut seen = Vec::new();
    while directory.exists() {
        tokio::time::sleep(LOOKS).await;
        let own = std::process::id().cast_signed();
        let mut zombies = process::all();
        zombies.retain(|process| process.parent == own && process.is_zombie);
        // Children of the server's own are collected by it at once.
        for orphan in zombies.iter().filter(|zombie| seen.contains(*zombie)) {
            let pid = Pid::from_raw(orphan.identity.pid);
            let _ = waitpid(pid, WaitOptions::NOHANG);
        }
        seen = zombies;
    }
}

/// Closes what the plugin's host left open for its children: it is none of the jobs'
/// business. Must come before this process opens anything.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The descriptor of the listing itself is closed already.
        let _ = nix::unistd::close(fd);
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
