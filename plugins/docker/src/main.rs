//! `fleeting-plugin-docker`: instances that are containers of a Docker daemon.
//!
//! The binary plays three parts. As the plugin it answers a host's calls; uploaded into a
//! container it is that container's first process (`instance`) and its SSH server
//! (`sshd`). A part is told by the first argument and starts before any thread exists.

mod archive;
mod config;
mod credentials;
mod daemon;
mod group;
mod image;
mod lock;
mod roles;
mod spec;

use std::process::ExitCode;

fn main() -> ExitCode {
    sshd::run_session_if_asked()
        .or_else(roles::run_if_asked)
        .unwrap_or_else(|| mayfly_plugin::serve(group::DockerGroup::default()))
}
