//! A plugin started directly, as someone at a terminal or another host would, without a
//! guard. It ends with the value that started it.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// A line on stdout that is longer is none.
const LONGEST_BYTES: usize = 64 * 1024;
/// How long stdout is looked at after its first line.
const LOOK: Duration = Duration::from_millis(300);

/// A running process, leader of its own group.
pub(super) struct Bare {
    child: Child,
    group: Option<Pid>,
    stdout: ChildStdout,
    directory: TempDir,
}

impl Bare {
    /// Starts `command` with a directory of its own for sockets and temporary files.
    pub(super) fn start(mut command: Command, stderr: Stdio) -> std::io::Result<Self> {
        let directory = directory()?;
        let mut child = command
            .env("TMPDIR", directory.path())
            .env("PLUGIN_UNIX_SOCKET_DIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("no stdout"))?;
        Ok(Self { child, group, stdout, directory })
    }

    /// The first line on stdout, and what follows it within moments.
    pub(super) async fn first_line(&mut self, limit: Duration) -> Option<(String, String)> {
        let mut bytes = Vec::new();
        let read = async {
            loop {
                if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                    return Some(end);
                }
                if bytes.len() > LONGEST_BYTES
                    || matches!(self.stdout.read_buf(&mut bytes).await, Ok(0) | Err(_))
                {
                    return None;
                }
            }
        };
        let end = timeout(limit, read).await.ok()??;
        let _ = timeout(LOOK, self.stdout.read_buf(&mut bytes)).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(&bytes[..end]), text(&bytes[end + 1..])))
    }

    /// Its own directory, which goes with it.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Not reaped yet, so the id is still this group's.
        if let (Some(group), Some(_)) = (self.group, self.child.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A short path: that of a socket may have 107 bytes.
fn directory() -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("mayfly-check-").tempdir_in("/tmp")
}

/// Runs a command to its end; `None` where it does not end in time.
pub(super) async fn run_to_end(
    mut command: Command,
    arguments: &[&OsStr],
    limit: Duration,
) -> std::io::Result<Option<Output>> {
    let directory = directory()?;
    let child = command
        .args(arguments)
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let ending = child.wait_with_output();
    tokio::pin!(ending);
    match timeout(limit, &mut ending).await {
        Ok(output) => output.map(Some),
        Err(_) => {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            Ok(None)
        }
    }
}
