//! The command line: what the user said, handed to one file per command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::commands;

#[derive(Parser)]
#[command(name = "mayfly", version, about = "A runner manager for GitLab CI", max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogFlags,
}

/// What goes to the log, and how.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LogFlags {
    /// error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", env = "MAYFLY_LOG")]
    pub(crate) log_level: Option<String>,
    /// Log lines as JSON
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the runners of a configuration until stopped
    Run(commands::run::Flags),
    /// Run the pipeline file of the current repository on local instances
    Exec(commands::exec::Flags),
    /// Say how a running manager stands
    Status(commands::status::Flags),
    /// Look at instances of a running manager, and send them away
    Instance(commands::instance::Flags),
    /// Say what happened to a job, an instance or the groups, and why
    Explain(commands::explain::Flags),
    /// Look at a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at provider plugins, and change their versions
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Install provider plugins from registries
    Fleeting(commands::fleeting::Flags),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with a configuration, and start nothing
    Check(ConfigFlags),
    /// Say what another configuration would change, and change nothing
    Plan(commands::config_plan::Flags),
}

#[derive(Subcommand)]
enum PluginCommand {
    /// Say what a plugin does that hosts cannot rely on, and what to change
    Check(commands::plugin_check::Flags),
    /// Write the crate of a new plugin, which works as it is
    New(commands::plugin_new::Flags),
    /// Show all plugins of this machine
    List(commands::plugin_list::Flags),
    /// Fetch newer versions
    Update(commands::plugin_update::Flags),
    /// Take the newest version of a plugin out of use
    Rollback(commands::plugin_rollback::Flags),
}

/// Which configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigFlags {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "FILE", env = "CONFIG_FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where recovery state is kept; wins over `state_dir` of the configuration
    #[arg(long, global = true, value_name = "DIR", env = "MAYFLY_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Runs the command that was asked for.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.command {
        Command::Run(flags) => commands::run::run(&flags, &cli.log),
        Command::Exec(flags) => commands::exec::run(&flags, &cli.log),
        Command::Status(flags) => commands::status::run(&flags),
        Command::Instance(flags) => commands::instance::run(&flags),
        Command::Explain(flags) => commands::explain::run(&flags),
        Command::Config(ConfigCommand::Check(flags)) => commands::config_check::run(&flags),
        Command::Config(ConfigCommand::Plan(flags)) => commands::config_plan::run(&flags),
        Command::Plugin(PluginCommand::Check(flags)) => {
            commands::plugin_check::run(&flags, &cli.log)
        }
        Command::Plugin(PluginCommand::New(flags)) => commands::plugin_new::run(&flags),
        Command::Plugin(PluginCommand::List(flags)) => commands::plugin_list::run(&flags),
        Command::Plugin(PluginCommand::Update(flags)) => commands::plugin_update::run(&flags),
        Command::Plugin(PluginCommand::Rollback(flags)) => commands::plugin_rollback::run(&flags),
        Command::Fleeting(flags) => commands::fleeting::run(&flags),
    };
    exit.into()
}
