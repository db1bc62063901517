//! `fleeting-plugin-mayfly`: several provider plugins as one group, under supervision.
//!
//! The binary plays two parts. As the plugin it is a host of other plugins. As their guard,
//! which starts before any thread exists, it ends them when the plugin is gone.

mod book;
mod caps;
mod config;
mod cooling;
#[path = "../../local/src/go_duration.rs"]
mod go_duration;
mod group;
mod ledger;
mod memory;
mod meter;
mod opening;
mod provider;
#[path = "../../script/src/state_file.rs"]
mod state_file;
mod underneath;

use std::process::ExitCode;

fn main() -> ExitCode {
    mayfly_plugin::host::run_guard_if_asked()
        .unwrap_or_else(|| mayfly_plugin::serve(group::MayflyGroup::default()))
}
