//! One file per command, and what their exit codes mean.

pub(crate) mod config_check;
pub(crate) mod config_plan;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod fleeting;
pub(crate) mod instance;
pub(crate) mod plugin_check;
pub(crate) mod plugin_list;
pub(crate) mod plugin_new;
pub(crate) mod plugin_rollback;
pub(crate) mod plugin_update;
pub(crate) mod run;
pub(crate) mod status;

use std::process::ExitCode;

/// How the program ends. Part of its interface: see docs/exit-codes.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// What was asked for did not succeed: a pipeline failed, a check found faults.
    Failed = 1,
    /// The configuration or the pipeline file is wrong. (2 is a wrong command line.)
    Config = 3,
    /// A provider plugin cannot be used.
    Plugin = 4,
    /// The state, or another file of our own, cannot be used.
    State = 5,
    /// It was stopped before it was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Loads a configuration; says what is odd; `None` after saying what is wrong.
pub(crate) fn load_config(flags: &crate::cli::ConfigFlags) -> Option<crate::config::Config> {
    let path = flags.config.clone().unwrap_or_else(crate::config::default_path);
    match crate::config::load(&path, flags.state_dir.as_deref()) {
        Ok(loaded) => {
            for warning in loaded.warnings {
                eprintln!("{warning}\n");
            }
            Some(loaded.config)
        }
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}

/// Where the state is. Without a configuration its directory is enough.
pub(crate) fn state_dir(flags: &crate::cli::ConfigFlags) -> Option<std::path::PathBuf> {
    match &flags.state_dir {
        Some(dir) => Some(dir.clone()),
        None => load_config(flags).map(|config| config.state_dir),
    }
}

/// An async runtime for a command.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    // Tasks that still wait for something must not keep the process.
    runtime.shutdown_background();
    Ok(result)
}
