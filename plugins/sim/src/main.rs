//! `fleeting-plugin-sim`: a simulated cloud, for tests, demos and decisions at scale.
//!
//! As the plugin it answers a host's calls: slowly, wrongly or not at all where it was
//! told to. As `instance` it is one instance, detached from the plugin. `ledger`, `list`
//! and `kill` are for people and tests. A role starts before any thread exists.

mod access;
mod chance;
mod cloud;
mod commands;
mod config;
mod facts;
mod fate;
mod fault;
mod group;
mod ledger;
mod machine;
mod store;
mod wait;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    sshd::run_session_if_asked()
        .or_else(instance_if_asked)
        .or_else(commands::run_if_asked)
        .unwrap_or_else(|| mayfly_plugin::serve(group::SimGroup::default()))
}

fn instance_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != machine::ROLE {
        return None;
    }
    Some(match machine::run(Path::new(&arguments.next()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            // Goes to the instance's log.
            eprintln!("{failed}");
            ExitCode::FAILURE
        }
    })
}
