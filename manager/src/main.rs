//! `mayfly`: a runner manager for GitLab CI that keeps short-lived machines ready through
//! provider plugins and runs jobs on them.

mod app;
mod cli;
mod commands;
mod config;
mod conformance;
mod connect;
mod console;
mod coordinator;
mod events;
mod gitlab;
mod group;
mod history;
mod install;
mod job_run;
mod plugin;
mod runner;
mod secret;
mod shutdown;
mod state;
mod telemetry;
mod trust;

use std::process::ExitCode;

/// How this program names itself to servers.
const USER_AGENT: &str = concat!("mayfly ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    // Plugins run under a re-executed copy of this program. That copy must do nothing
    // else first.
    if let Some(code) = mayfly_plugin::host::run_guard_if_asked() {
        return code;
    }
    cli::run()
}

/// This machine's architecture in Go's words.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// This machine's name, for logs of jobs.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
