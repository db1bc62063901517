//! The first process of a container: starts the others and collects orphans.
//!
//! It ends with the SSH server, and the kernel ends the rest with it.

use std::process::Stdio;

use rustix::process::{Pid, WaitOptions, wait};

use super::{Ended, SSHD, role_command, settings};

pub(super) fn run(argument: &str) -> Result<(), Ended> {
    let settings = settings(argument)?;
    let beside = match settings.command.split_first() {
        None => None,
        Some((program, arguments)) => {
            let child = std::process::Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .spawn()
                .map_err(|error| {
                    eprintln!("the command {program:?} cannot be started");
                    Ended::Failed("start the command beside the SSH server", error)
                })?;
            Some(Pid::from_child(&child))
        }
    };
    let server = role_command(SSHD)
        .arg(argument)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| Ended::Failed("start the SSH server", error))?;
    let server = Pid::from_child(&server);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == server => {
                return Err(Ended::Server(format!("{status:?}")));
            }
            Ok(Some((pid, status))) if Some(pid) == beside => {
                eprintln!("the command beside the SSH server ended: {status:?}");
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Ended::Failed("wait for processes", error.into())),
        }
    }
}
