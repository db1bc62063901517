//! `init`: the first process of an instance's own process tree.
//!
//! It makes the instance's surroundings, gives up every privilege, starts the SSH server
//! and collects orphans. It ends with the server, and the kernel ends the rest with it.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use instances::failed::{During as _, Failed};
use rustix::process::{Pid, WaitOptions, wait};

use super::dispatch::{SSHD, null, role_command};
use crate::isolation::enter;
use crate::registry::InstanceDir;

pub(super) fn run(path: PathBuf) -> Result<(), Failed> {
    let instance = InstanceDir::at(path);
    let record = instance.record()?;
    enter(&record, &instance)?;
    let home = &record.account.home;
    std::env::set_current_dir(home).during(format!("enter {}", home.display()))?;

    let server = role_command(SSHD)
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .spawn()
        .during("start the SSH server (is the plugin's binary executable for every user?)")?;
    // The listener must close when the server ends.
    let null = null()?;
    rustix::stdio::dup2_stdin(&null).during("close the settings")?;
    rustix::stdio::dup2_stdout(&null).during("close the listener")?;

    let server = Pid::from_child(&server);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == server => {
                return Err(io::Error::other(format!("{status:?}"))).during("the SSH server ended");
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).during("wait for processes"),
        }
    }
}
