//! The role in which the server's own binary gives a command a session of its own.
//!
//! A process group would keep the server safe from `kill 0`, but OpenSSH makes every
//! command a session leader, and a process that leads a group in a foreign session can
//! no longer call `setsid` itself. Without `unsafe` code nothing can run between fork
//! and exec, so the binary is executed once more: about a millisecond per command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

const ROLE: &str = "ssh-session";
/// Exit status when the program cannot be executed, as in shells.
const CANNOT_EXECUTE: u8 = 126;

/// Becomes the program of a session if this process was started for one; `None`
/// otherwise. Must run before any thread, runtime or log.
pub fn run_session_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != ROLE {
        return None;
    }
    let (program, name) = (args.next()?, args.next()?);
    // Fails only for a process that leads a group already; then that has to do.
    let _ = rustix::process::setsid();
    hear_signals();
    let error = Command::new(&program).arg0(name).args(args).exec();
    eprintln!("cannot execute {}: {error}", Path::new(&program).display());
    Some(ExitCode::from(CANNOT_EXECUTE))
}

/// What an ancestor ignores would be ignored by every command, and a shell cannot change that.
/// What has a handler has its default again in the program that is executed.
fn hear_signals() {
    use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    use signal_hook::consts::{SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
    let ends = [SIGALRM, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    for signal in ends.into_iter().chain([SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU]) {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    let _ = nix::sys::signal::SigSet::all().thread_unblock();
}

/// The command line that runs `program` under the name `name` in a new session.
pub(crate) fn command(program: &Path, name: OsString) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROLE).arg(program).arg(name);
    command
}
