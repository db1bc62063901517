//! `mayfly plugin rollback`: takes the newest version of a plugin out of use.

use clap::Args;
use serde_json::json;

use super::plugin_update::reference;
use super::{Exit, block_on};
use crate::install::{Layout, roll_back};

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// A plugin, such as aws; with aws:1.2, only among versions that begin so
    plugin: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let rolled_back = reference(&flags.plugin).and_then(|reference| {
        let layout = Layout::of_user();
        let done = block_on(roll_back(&layout, &reference, &|line| eprintln!("{line}")))
            .map_err(|error| error.to_string())?;
        done.map_err(|error| error.to_string())
    });
    match rolled_back {
        Ok((from, to)) if flags.json => {
            let (from, version) = (from.to_string(), to.version.to_string());
            println!(
                "{}",
                json!({"plugin": flags.plugin, "rolled_back": from, "version": version, "path": to.path})
            );
            Exit::Success
        }
        Ok((from, to)) => {
            println!(
                "plugin: {}, rolled back: {from}, version: {}, path: {}",
                flags.plugin,
                to.version,
                to.path.display()
            );
            println!("a manager that runs takes it up when it is started again");
            Exit::Success
        }
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Failed
        }
    }
}
