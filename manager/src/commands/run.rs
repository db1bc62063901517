//! `mayfly run`: serves the runners of a configuration until it is told to stop.

mod reload;

use clap::Args;

use super::{Exit, block_on, load_config};
use crate::app::{App, StartError};
use crate::cli::{ConfigFlags, LogFlags};
use crate::shutdown::Signals;
use crate::telemetry;
use reload::Reload;

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    config: ConfigFlags,
}

pub(crate) fn run(flags: &Flags, log: &LogFlags) -> Exit {
    let Some(config) = load_config(&flags.config) else {
        return Exit::Config;
    };
    telemetry::init(log, config.log_level.as_deref(), config.log_json);
    let served = block_on(async {
        let mut signals = Signals::catch()?;
        let path = flags.config.config.clone().unwrap_or_else(crate::config::default_path);
        let reload = Reload::new(path, flags.config.state_dir.clone())?;
        let started = tokio::select! {
            started = App::start(config) => started,
            // Nothing has begun yet.
            _ = signals.next() => return Ok(Exit::Interrupted),
        };
        let app = match started {
            Ok(app) => app,
            Err(error) => return Ok(exit_of(&error)),
        };
        tokio::spawn(reload.run(app.reloader()));
        Ok::<_, std::io::Error>(app.run(signals).await)
    });
    match served {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) | Err(error) => {
            eprintln!("error: cannot start: {error}");
            Exit::State
        }
    }
}

/// Says why the start failed.
pub(crate) fn exit_of(error: &StartError) -> Exit {
    eprintln!("error: {error}");
    match error {
        StartError::State(_) | StartError::Key(_) => Exit::State,
        StartError::Server(_) => Exit::Config,
        StartError::Provider(_) | StartError::Draining(_) => Exit::Plugin,
    }
}
