//! Ends the plugin when its parent is gone: an orphan would go on to hold an instance
//! group that another process now owns.

use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use tokio_util::sync::CancellationToken;

/// How often the parent is looked at where the kernel has no pidfd.
const FALLBACK_INTERVAL: Duration = Duration::from_millis(500);

/// Cancels `ending` once the process that started this one has ended.
pub(super) fn watch(ending: CancellationToken) {
    let Some(parent) = getppid() else {
        return;
    };
    let watched = thread::Builder::new().name("parent-watch".into()).stack_size(64 * 1024).spawn({
        let ending = ending.clone();
        move || {
            wait_for_end(parent);
            tracing::debug!("the host is gone, ending");
            ending.cancel();
        }
    });
    if let Err(error) = watched {
        tracing::warn!(%error, "cannot watch the host, this plugin may outlive it");
    }
}

fn wait_for_end(parent: Pid) {
    if let Ok(pidfd) = pidfd_open(parent, PidfdFlags::empty()) {
        // The parent may have ended, and its id been taken again, before the open.
        while getppid() == Some(parent) {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            if matches!(poll(&mut fds, None), Ok(n) if n > 0) {
                return;
            }
        }
        return;
    }
    while getppid() == Some(parent) {
        thread::sleep(FALLBACK_INTERVAL);
    }
}
