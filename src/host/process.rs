//! One guarded plugin process: its group, its private directory, its end.
//!
//! Dropping it kills the whole group and removes the directory.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;

use super::guard::GUARD;
use crate::guarding::Fate;
use crate::handshake::{APP_VERSION, COOKIE_NAME, COOKIE_VALUE};

/// A started plugin with its pipes.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

pub(super) struct Process {
    group: Pid,
    directory: PrivateDir,
    fate: watch::Receiver<Option<Fate>>,
}

impl Process {
    /// Starts `plugin` under the guard binary `guard`, with exactly `environment` and
    /// what the handshake adds. Must be called on a tokio runtime.
    pub(super) fn start(
        guard: &Path,
        plugin: &Path,
        environment: &[(OsString, OsString)],
    ) -> std::io::Result<Started> {
        let directory = PrivateDir::create()?;
        let (ours, guards) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(guard)
            .arg(GUARD)
            .arg(&directory.0)
            .arg(plugin)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env(COOKIE_NAME, COOKIE_VALUE)
            .env("PLUGIN_PROTOCOL_VERSIONS", APP_VERSION)
            .env("PLUGIN_MIN_PORT", "10000")
            .env("PLUGIN_MAX_PORT", "25000")
            .env("PLUGIN_UNIX_SOCKET_DIR", &directory.0)
            // Plugins of go-plugin before 1.5 put the socket into the temporary directory.
            .env("TMPDIR", &directory.0)
            .stdin(Stdio::from(OwnedFd::from(guards)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (Some(group), Some(stdout), Some(stderr)) =
            (pid, child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::Error::other("the plugin's guard ended at once"));
        };
        let (sender, fate) = watch::channel(None);
        tokio::spawn(watch_fate(UnixStream::from_std(ours)?, child, group, sender));
        Ok(Started { process: Self { group, directory, fate }, stdout, stderr })
    }

    /// The process group that everything of the plugin is in.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// The 0700 directory that must hold the plugin's socket.
    pub(super) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// Resolves when the plugin has ended.
    pub(super) fn ended(&self) -> impl Future<Output = Fate> + Send + 'static {
        let mut fate = self.fate.clone();
        async move {
            match fate.wait_for(Option::is_some).await {
                Ok(fate) => fate.unwrap_or(Fate::Signaled(9)),
                Err(_) => Fate::Signaled(9),
            }
        }
    }

    /// Sends a signal to the plugin itself, which the guard is the parent of.
    pub(super) fn signal(&self, signal: Signal) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name before may contain anything.
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent == Some(self.group.as_raw_nonzero().to_string().as_str()) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    pub(super) fn kill(&self) {
        // The group may be gone already.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.fate.borrow().is_none() {
            self.kill();
        }
    }
}

/// Holds the host's end of the guard's stdin open, learns the plugin's fate and reaps
/// the guard. Whatever the plugin left behind in its group is killed.
async fn watch_fate(
    mut control: UnixStream,
    mut guard: Child,
    group: Pid,
    sender: watch::Sender<Option<Fate>>,
) {
    let mut told = String::new();
    // The guard writes one line and ends; killed, it writes nothing.
    let _ = control.read_to_string(&mut told).await;
    let fate = Fate::parse(&told).unwrap_or(Fate::Signaled(9));
    // While the guard is not reaped its group id cannot be taken by anyone else.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = guard.wait().await;
    let _ = sender.send(Some(fate));
}

/// A fresh 0700 directory, removed on drop. Its path is short: a socket's path may have
/// 107 bytes.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn create() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        const ATTEMPTS: u32 = 1000;
        let root = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) if dir.is_absolute() && dir.is_dir() && dir.as_os_str().len() <= 40 => dir,
            _ => PathBuf::from("/tmp"),
        };
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| sweep(&root));
        let mut error = std::io::Error::other("no free name");
        for _ in 0..ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = root.join(format!("mayfly-{}-{number}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => error = e,
                Err(e) => return Err(e),
            }
        }
        Err(error)
    }
}

/// Removes what hosts left that were killed together with their guards.
fn sweep(root: &Path) {
    let own = rustix::process::geteuid().as_raw();
    let host_of = |name: &str| {
        let (host, number) = name.strip_prefix("mayfly-")?.split_once('-')?;
        number.parse::<u32>().ok()?;
        Pid::from_raw(host.parse().ok()?)
    };
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let Some(host) = entry.file_name().to_str().and_then(host_of) else { continue };
        let is_gone = test_kill_process(host) == Err(Errno::SRCH);
        // Not through links, and nothing of others: the root may be everyone's.
        let is_ours = entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == own);
        if is_gone && is_ours {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_host_left_is_swept_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("mayfly-sweep-{}", std::process::id()));
        let mut dead = std::process::Command::new("true").spawn().expect("it starts");
        dead.wait().expect("it ends");
        let names = [
            format!("mayfly-{}-3", dead.id()),
            format!("mayfly-{}-0", std::process::id()),
            format!("mayfly-{}-x", dead.id()),
            format!("other-{}-0", dead.id()),
        ];
        for name in &names {
            std::fs::create_dir_all(root.join(name).join("below")).expect("made");
        }
        sweep(&root);
        let left = names.iter().map(|name| root.join(name).exists());
        assert_eq!(left.collect::<Vec<_>>(), [false, true, true, true]);
        std::fs::remove_dir_all(&root).expect("removed");
    }
}
