//! `fleeting-plugin-local`: instances that are isolated process trees on this machine.
//!
//! The binary plays five parts. As the plugin it answers a host's calls. As `instance`
//! (the keeper), `init` and `sshd` it is one instance, detached from the plugin; as
//! `probe` it tries what the kernel allows. A part is told by the first argument and
//! starts before any thread exists, since namespaces need a single one.

mod config;
mod credentials;
mod deletion;
mod go_duration;
mod group;
mod isolation;
mod record;
mod registry;
mod remove;
mod roles;

use std::process::ExitCode;

fn main() -> ExitCode {
    sshd::run_session_if_asked()
        .or_else(roles::run_if_asked)
        .unwrap_or_else(|| mayfly_plugin::serve(group::LocalGroup::default()))
}
