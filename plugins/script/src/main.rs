//! `fleeting-plugin-script`: a provider that is a script.
//!
//! The binary plays two parts. As the plugin it answers a host's calls by running the
//! operator's scripts. As `script-guard` it is the parent of one running script, and ends
//! it with everything that it started when the plugin is gone. The guard starts before
//! any thread exists.

mod access;
mod answer;
mod call;
mod config;
mod count;
mod environment;
mod failure;
#[path = "../../local/src/go_duration.rs"]
mod go_duration;
mod group;
mod guard;
mod ops;
mod run;
mod script;
mod speech;
mod state_file;
mod target;

use std::process::ExitCode;

fn main() -> ExitCode {
    guard::run_if_asked().unwrap_or_else(|| mayfly_plugin::serve(group::ScriptGroup::default()))
}
