//! The guard of one running script: the leader of its process group.
//!
//! Its stdin is one end of a socket pair. The plugin writes the request on it and closes
//! its half; the guard answers with one line, what became of the script. When the plugin
//! is gone the socket hangs up, and the guard kills the group, itself included. It does
//! the same when the script has ended: what a script leaves in its group ends with it.
//!
//! Deliberately absent: what left the group by `setsid`. That is how a script starts
//! something that is meant to stay.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use mayfly_plugin::guarding::{Fate, let_go_of_outputs, wait};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_current_process_group};

/// The first argument of a guard; the script and its arguments follow.
pub(crate) const ROLE: &str = "script-guard";

/// Acts as a guard if this process was started as one. Must run before any thread exists.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ROLE {
        return None;
    }
    let program = arguments.next()?;
    // The plugin's end makes an orphan of the group; where a process of it is stopped then,
    // the kernel hangs up on all of it. The guard must live on to end them.
    let _ = SigSet::from(nix::sys::signal::Signal::SIGHUP).thread_block();
    if let Some(fate) = guard(&program, arguments.collect()) {
        fate.tell();
    }
    let _ = kill_current_process_group(Signal::KILL);
    Some(ExitCode::SUCCESS)
}

/// Runs the script to its end; `None` if the plugin's end came first.
fn guard(program: &OsString, arguments: Vec<OsString>) -> Option<Fate> {
    let unable = |error: &std::io::Error| Fate::NotExecuted(error.raw_os_error().unwrap_or(0));
    let request = match request() {
        Ok(request) => request,
        Err(error) => return Some(unable(&error)),
    };
    if plugin_is_gone() {
        return None;
    }
    let spawned = Command::new(program).args(arguments).stdin(Stdio::from(request)).spawn();
    let_go_of_outputs();
    match spawned {
        Ok(mut child) => wait(&mut child, PollFlags::empty()),
        Err(error) => Some(unable(&error)),
    }
}

/// The request as a file in memory: a script that never reads it blocks nobody.
fn request() -> std::io::Result<File> {
    let memory = rustix::fs::memfd_create(c"request", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Whether the plugin closed its end of the socket, and not only its writing half.
fn plugin_is_gone() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && !fds[0].revents().is_empty()
}
