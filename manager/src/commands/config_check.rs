//! `mayfly config check`: says everything that is wrong, starts nothing.

use super::{Exit, load_config};
use crate::cli::ConfigFlags;

pub(crate) fn run(flags: &ConfigFlags) -> Exit {
    let Some(config) = load_config(flags) else {
        return Exit::Config;
    };
    for runner in &config.runners {
        println!(
            "{}: {} runs jobs of {} through {}",
            runner.name,
            runner.engine.short_token,
            runner.server.url,
            runner.autoscaler.template.plugin
        );
    }
    println!("the configuration is good");
    Exit::Success
}
