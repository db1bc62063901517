//! `mayfly config check`: says everything that is wrong, starts nothing.
//!
//! A plugin that is not there is a warning: it may be installed later, or elsewhere.

use super::{Exit, load_config};
use crate::cli::ConfigFlags;
use crate::plugin::{beside, find};

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
        match find(&runner.autoscaler.template.plugin, beside().as_deref()) {
            Ok(path) => println!("  that is {}", path.display()),
            Err(error) => eprintln!("warning: {error}"),
        }
    }
    println!("the configuration is good");
    Exit::Success
}
