//! Telling the parts apart by the first argument, and starting them.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use instances::failed::{During as _, Failed};

use crate::isolation::{self, Isolation};

use super::{init, keeper, sshd_server};

pub(crate) const INSTANCE: &str = "instance";
pub(crate) const PROBE: &str = "probe";
pub(super) const INIT: &str = "init";
pub(super) const SSHD: &str = "sshd";
const PROBE_INIT: &str = "probe-init";

/// Plays the part that the first argument names; `None` if it names none. Must run before
/// any thread exists.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    let argument = args.next();
    let result = match role.to_str()? {
        INSTANCE => {
            show_as(c"mayfly-keeper");
            keeper::run(PathBuf::from(argument?))
        }
        INIT => {
            show_as(c"mayfly-init");
            init::run(PathBuf::from(argument?))
        }
        SSHD => {
            show_as(c"mayfly-sshd");
            sshd_server::run()
        }
        PROBE => probe(&argument?),
        PROBE_INIT => isolation::try_out(isolation_of(&argument?)?),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            // Goes to the instance's log, or to the plugin that probes.
            eprintln!("{failed}");
            ExitCode::FAILURE
        }
    })
}

/// This binary in another role, under a name that people recognize.
pub(crate) fn role_command(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_PKG_NAME")).arg(role);
    command
}

/// What `ps` and `top` show in place of `exe`.
fn show_as(name: &CStr) {
    // Only a convenience.
    let _ = rustix::thread::set_name(name);
}

fn isolation_of(word: &OsString) -> Option<Isolation> {
    Isolation::parse(word.to_str()?)
}

/// Does what a keeper does before its first child, and lets the child do the rest.
fn probe(word: &OsString) -> Result<(), Failed> {
    let unknown = || std::io::Error::other("no such isolation");
    let isolation = isolation_of(word).ok_or_else(unknown).during("probe")?;
    isolation::separate_children(isolation)?;
    let status = role_command(PROBE_INIT).arg(word).status().during("start a first process")?;
    if status.success() {
        return Ok(());
    }
    // The child has told why.
    std::process::exit(1)
}

/// What takes the place of a standard stream that was taken over.
pub(super) fn null() -> Result<OwnedFd, Failed> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map(OwnedFd::from)
        .during("open /dev/null")
}
