//! The guard: two re-executions of the host binary between host and plugin.
//!
//! `plugin-guard` leads the plugin's process group and kills it when its stdin, one end
//! of a socket pair, shows that the host is gone. Under it `plugin-exec` asks the kernel
//! to be killed with the guard, and becomes the plugin. Only in the guard, which has one
//! thread, is the parent-death signal safe: it fires when the *thread* that spawned ends.
//!
//! The guard tells the host what became of the plugin on the same socket ([`Fate`]).

use std::ffi::{CString, OsString};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sys::signal::SigSet;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{
    Signal, getpid, getppid, kill_current_process_group, set_parent_process_death_signal,
};

use crate::guarding::{Fate, let_go_of_outputs, wait};

pub(super) const GUARD: &str = "plugin-guard";
const EXEC: &str = "plugin-exec";
/// Exit status of `plugin-exec` when the plugin cannot be executed, as in shells.
const CANNOT_EXECUTE: u8 = 126;

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
        // The host never writes: whatever comes is its end.
        Ok(mut child) => match wait(&mut child, PollFlags::IN | PollFlags::RDHUP) {
            Some(fate) => not_executed(reader).unwrap_or(fate),
            None => return host_is_gone(child, directory),
        },
        Err(error) => Fate::NotExecuted(error.raw_os_error().unwrap_or_default()),
    };
    fate.tell();
    ExitCode::SUCCESS
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
