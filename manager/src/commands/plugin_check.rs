//! `mayfly plugin check`: what a provider plugin does that hosts cannot rely on, and what
//! to change.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Exit, block_on};
use crate::cli::LogFlags;
use crate::conformance::{Findings, Made, Options, clean_up, examine};
use crate::shutdown::Signals;
use crate::{plugin, telemetry};

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Name or path of the plugin
    plugin: String,
    /// Its plugin_config, a JSON file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many instances it may make at most; all are deleted again
    #[arg(long, value_name = "N", default_value_t = 2, num_args = 0..=1, require_equals = true,
          default_missing_value = "2", value_parser = clap::value_parser!(u32).range(1..=100))]
    create: u32,
    /// Make no instance, and delete none
    #[arg(long, conflicts_with = "create")]
    read_only: bool,
    /// Deadline of one call, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    call_limit: u32,
    /// How long an instance may take to run, and to go, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    boot_limit: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags, log: &LogFlags) -> Exit {
    // What the plugin logs is looked at, and shown only to who asks for it.
    telemetry::init(log, Some("off"), false);
    let options = match options(flags) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    announce(&options);
    match block_on(check(&options, flags.json)).flatten() {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            Exit::State
        }
    }
}

fn options(flags: &Flags) -> Result<Options, Exit> {
    let beside = plugin::beside();
    let binary = plugin::find(&flags.plugin, beside.as_deref()).map_err(|error| {
        eprintln!("error: {error}");
        Exit::Plugin
    })?;
    let config = match &flags.config {
        None => b"{}".to_vec(),
        Some(path) => std::fs::read(path).map_err(|error| {
            eprintln!("error: cannot read {}: {error}", path.display());
            Exit::Config
        })?,
    };
    if let Err(error) = serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&config) {
        let path = flags.config.as_deref().unwrap_or_else(|| "{}".as_ref());
        eprintln!("error: {} is not a JSON object: {error}", path.display());
        return Err(Exit::Config);
    }
    Ok(Options {
        binary,
        config,
        create: if flags.read_only { 0 } else { flags.create },
        call_limit: Duration::from_secs(flags.call_limit.max(1).into()),
        change_limit: Duration::from_secs(flags.boot_limit.max(1).into()),
    })
}

/// What it may cost, before it does.
fn announce(options: &Options) {
    eprintln!("Checking {}", options.binary.display());
    match options.create {
        0 => eprintln!("No instance is made or deleted; what needs one is skipped."),
        1 => eprintln!("Makes 1 instance, and deletes it again. --read-only makes none."),
        n => {
            eprintln!("Makes up to {n} instances, and deletes them again. --read-only makes none.")
        }
    }
    if options.create > 0 {
        eprintln!("Use a group that nothing else uses.");
    }
}

async fn check(options: &Options, json: bool) -> std::io::Result<Exit> {
    let mut signals = Signals::catch()?;
    let made = Made::new();
    let mut findings = Findings::new(|check, outcome| {
        if !json {
            print!("{}", report::lines(check, outcome));
        }
    });
    let is_done = tokio::select! {
        () = examine(options, &made, &mut findings) => true,
        _ = signals.next() => false,
    };
    if !is_done {
        eprintln!("Stopped. Removing what was made; once more ends at once.");
    }
    let left = tokio::select! {
        left = clean_up(options, &made) => left.err(),
        _ = signals.next() => Some("instances may be left: removal was stopped".into()),
    };
    if json {
        println!("{}", report::document(options, findings.outcomes(), is_done, left.as_deref()));
    } else {
        print!("{}", report::summary(findings.outcomes(), is_done));
    }
    if let Some(left) = &left {
        eprintln!("warning: {left}");
    }
    Ok(match is_done {
        false => Exit::Interrupted,
        true if report::is_good(findings.outcomes()) => Exit::Success,
        true => Exit::Failed,
    })
}
