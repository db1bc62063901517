//! The guard: two re-executions of the host binary between host and plugin.
//!
//! `plugin-guard` leads the plugin's process group and kills it when its stdin, one end
//! of a socket pair, shows that the host is gone. Under it `plugin-exec` asks the kernel
//! to be killed with the guard, and becomes the plugin. Only in the guard, which has one
//! thread, is the parent-death signal safe: it fires when the *thread* that spawned ends.
//!
//! The guard tells the host what became of the plugin, in lines on the same socket:
//! `exec ERRNO`, `exit STATUS` or `signal NUMBER`.

use std::ffi::{CString, OsString};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_current_process_group, pidfd_open,
    set_parent_process_death_signal,
};

pub(super) const GUARD: &str = "plugin-guard";
const EXEC: &str = "plugin-exec";
/// Exit status of `plugin-exec` when the plugin cannot be executed, as in shells.
const CANNOT_EXECUTE: u8 = 126;

/// What became of the plugin process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The kernel refused to execute it.
    NotExecuted(i32),
    /// It ended with this status.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

impl Fate {
    fn line(self) -> String {
        match self {
            Self::NotExecuted(errno) => format!("exec {errno}\n"),
            Self::Exited(status) => format!("exit {status}\n"),
            Self::Signaled(number) => format!("signal {number}\n"),
        }
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, number) = line.trim_end().split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "exec" => Some(Self::NotExecuted(number)),
            "exit" => Some(Self::Exited(number)),
            "signal" => Some(Self::Signaled(number)),
            _ => None,
        }
    }
}

/// Acts as the guard if this process was started as one; `None` otherwise. Must be the
/// first statement of `main`, before any thread, runtime or log.
pub fn run_guard_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    if role == GUARD {
        let (directory, plugin) = (args.next()?, args.next()?);
        return Some(guard(Path::new(&directory), &plugin));
    }
    if role == EXEC {
        let (guard, plugin) = (args.next()?, args.next()?);
        return Some(become_plugin(&guard, plugin));
    }
    None
}

fn guard(directory: &Path, plugin: &OsString) -> ExitCode {
    // The host's end makes an orphan of the group; if the plugin is stopped then, the kernel
    // hangs up on all of it. The guard must live on to clean up. Its child begins anew.
    let _ = SigSet::from(nix::sys::signal::Signal::SIGHUP).thread_block();
    let Ok((reader, writer)) = std::io::pipe() else {
        return ExitCode::from(CANNOT_EXECUTE);
    };
    let child = Command::new("/proc/self/exe")
        .arg(EXEC)
        .arg(getpid().as_raw_nonzero().to_string())
        .arg(plugin)
        .stdin(Stdio::from(writer))
        .spawn();
    let_go_of_outputs();
    let fate = match child {
        Ok(mut child) => match wait(&mut child) {
            Some(fate) => not_executed(reader).unwrap_or(fate),
            None => return host_is_gone(child, directory),
        },
        Err(error) => Fate::NotExecuted(error.raw_os_error().unwrap_or_default()),
    };
    let told = fate.line();
    // The host may be gone by now; then nobody needs to know.
    let _ = rustix::net::send(
        rustix::stdio::stdin(),
        told.as_bytes(),
        rustix::net::SendFlags::NOSIGNAL,
    );
    ExitCode::SUCCESS
}

/// Only the plugin holds its outputs: the host sees them end when it closes them.
fn let_go_of_outputs() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Waits for the plugin's end; `None` if the host's end came first.
fn wait(child: &mut Child) -> Option<Fate> {
    let pid = Pid::from_child(child);
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut fds = [
                PollFd::new(&pidfd, PollFlags::IN),
                PollFd::new(&stdin, PollFlags::IN | PollFlags::RDHUP),
            ];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                break;
            }
            // The host never writes: whatever comes is its end.
            if !fds[1].revents().is_empty() {
                return None;
            }
        }
    }
    let status = child.wait().ok()?;
    Some(match (status.code(), status.signal()) {
        (Some(code), _) => Fate::Exited(code),
        (None, signal) => Fate::Signaled(signal.unwrap_or_default()),
    })
}

/// The errno of a failed `execve`: `plugin-exec` writes it into the pipe that closes by
/// itself when the plugin is executed.
fn not_executed(mut reader: std::io::PipeReader) -> Option<Fate> {
    let mut errno = [0; 4];
    reader.read_exact(&mut errno).ok()?;
    Some(Fate::NotExecuted(i32::from_ne_bytes(errno)))
}

/// Kills the plugin, removes its socket directory, then kills whatever else is in the
/// group, this process included.
fn host_is_gone(mut child: Child, directory: &Path) -> ExitCode {
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_dir_all(directory);
    let _ = kill_current_process_group(Signal::KILL);
    ExitCode::SUCCESS
}

fn become_plugin(guard: &OsString, plugin: OsString) -> ExitCode {
    let errno = execute(guard, plugin);
    // stdin is the pipe to the guard.
    let _ = rustix::io::write(rustix::stdio::stdin(), &errno.raw_os_error().to_ne_bytes());
    ExitCode::from(CANNOT_EXECUTE)
}

/// Becomes the plugin; returns only why it could not. Not `CommandExt::exec`: that hands
/// a file the kernel refuses to `/bin/sh`.
fn execute(guard: &OsString, plugin: OsString) -> Errno {
    if let Err(errno) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return errno;
    }
    // The guard may have died before the signal was armed.
    if getppid().map(|pid| pid.as_raw_nonzero().to_string().into()).as_ref() != Some(guard) {
        return Errno::SRCH;
    }
    match plugin_stdin() {
        Ok(to_guard) => {
            let errno = execve(plugin);
            let _ = rustix::stdio::dup2_stdin(&to_guard);
            errno
        }
        Err(errno) => errno,
    }
}

/// Gives the plugin an empty stdin and keeps the pipe to the guard aside, where it
/// closes on execution.
fn plugin_stdin() -> Result<OwnedFd, Errno> {
    let to_guard = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null =
        rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(to_guard)
}

fn execve(plugin: OsString) -> Errno {
    let Ok(path) = CString::new(plugin.into_vec()) else {
        return Errno::INVAL;
    };
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.as_bytes()).ok()
        })
        .collect();
    match nix::unistd::execve(&path, &[&path], &environment) {
        Ok(never) => match never {},
        Err(errno) => Errno::from_raw_os_error(errno as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_round_trip() {
        for fate in [Fate::NotExecuted(8), Fate::Exited(0), Fate::Exited(3), Fate::Signaled(11)] {
            assert_eq!(Fate::parse(&fate.line()), Some(fate));
        }
        assert_eq!(Fate::parse("exit"), None);
        assert_eq!(Fate::parse("boom 1"), None);
    }
}
