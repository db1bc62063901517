//! `mayfly fleeting`: GitLab Runner's commands to install plugins, list them, and log in to
//! registries.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::plugin_update::{From, Said, Update};
use super::{Exit, block_on, load_config};
use crate::cli::ConfigFlags;
use crate::install::{Credentials, DEFAULT_REGISTRY, Registry, RegistryError, is_registry, store};
use crate::plugin::{beside, find};
use crate::secret::Secret;

#[derive(Args)]
pub(crate) struct Flags {
    // GitLab Runner takes it before the command, too.
    #[command(flatten)]
    config: ConfigFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the plugins that a configuration names, or those that are named here
    Install(InstallFlags),
    /// Say where the plugins of a configuration are
    List(ListFlags),
    /// Keep credentials for a registry
    Login(LoginFlags),
}

#[derive(Args, Clone, Debug)]
struct InstallFlags {
    /// Plugins, such as aws:1.2, in place of those of the configuration
    #[arg(value_name = "PLUGIN")]
    plugins: Vec<String>,
    /// Also ask for newer versions of what is installed
    #[arg(long)]
    upgrade: bool,
    #[command(flatten)]
    from: From,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct ListFlags {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct LoginFlags {
    /// The registry
    #[arg(default_value = DEFAULT_REGISTRY)]
    registry: String,
    /// Who logs in
    #[arg(short, long)]
    username: String,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Refused: every process of this machine can read command lines
    #[arg(short, long, hide = true)]
    password: Option<String>,
    /// Certificates that are trusted beside the system's, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let config = &flags.config;
    match &flags.command {
        Command::Install(flags) => install(flags, config),
        Command::List(flags) => list(flags, config),
        Command::Login(flags) => login(flags),
    }
}

fn install(flags: &InstallFlags, config: &ConfigFlags) -> Exit {
    let Some(entries) = entries(&flags.plugins, config) else {
        return Exit::Config;
    };
    if entries.is_empty() {
        eprintln!("warning: the configuration names no plugin");
    }
    let update = Update::new(&flags.from, config, false);
    let mut said = Said::new("install", flags.json);
    let done = block_on(async {
        for (runner, plugin) in entries {
            let found = find(&plugin, beside().as_deref());
            let refers = super::plugin_update::reference(&plugin);
            match (found, refers) {
                // A program on PATH is its operator's.
                (Ok(path), Err(_)) => said.found(&runner, &plugin, &path),
                (Ok(path), Ok(refers))
                    if !flags.upgrade || update.layout.newest(&refers).is_none() =>
                {
                    said.found(&runner, &plugin, &path);
                }
                (Err(error), Err(_)) => said.failed(&runner, &plugin, &error.to_string()),
                (_, Ok(reference)) => {
                    update.of(&runner, &plugin, &reference, &mut said).await;
                }
            }
        }
        said
    });
    done.map_or(Exit::State, Said::end)
}

fn list(flags: &ListFlags, config: &ConfigFlags) -> Exit {
    let Some(entries) = entries(&[], config) else {
        return Exit::Config;
    };
    let mut said = Said::new("list", flags.json);
    for (runner, plugin) in entries {
        match find(&plugin, beside().as_deref()) {
            Ok(path) => said.found(&runner, &plugin, &path),
            Err(error) => said.failed(&runner, &plugin, &error.to_string()),
        }
    }
    said.end()
}

/// Runners and their plugins; `None` after saying what is wrong.
pub(super) fn entries(plugins: &[String], flags: &ConfigFlags) -> Option<Vec<(String, String)>> {
    if !plugins.is_empty() {
        return Some(plugins.iter().map(|plugin| (String::new(), plugin.clone())).collect());
    }
    let runners = load_config(flags)?.runners.into_iter();
    Some(runners.map(|runner| (runner.name, runner.autoscaler.template.plugin)).collect())
}

fn login(flags: &LoginFlags) -> Exit {
    if flags.password.is_some() {
        eprintln!(
            "error: --password is refused: every process of this machine can read command lines; use --password-stdin, and change that password"
        );
        return Exit::Failed;
    }
    if !flags.password_stdin {
        eprintln!("error: --password-stdin is missing: the password is read from stdin only");
        return Exit::Failed;
    }
    let done = block_on(try_login(flags)).map_err(|error| format!("cannot start: {error}"));
    match done.and_then(|done| done) {
        Ok(place) if flags.json => {
            println!("{}", json!({"registry": flags.registry, "stored": place}));
            Exit::Success
        }
        Ok(place) => {
            println!("logged in via {place}");
            Exit::Success
        }
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Failed
        }
    }
}

async fn try_login(flags: &LoginFlags) -> Result<String, String> {
    /// A password, or a token, has far fewer.
    const MAX_BYTES: u64 = 64 * 1024;
    if !is_registry(&flags.registry) {
        return Err(format!(
            "{:?} is no registry; write its host name, such as {DEFAULT_REGISTRY}",
            flags.registry
        ));
    }
    let mut password = String::new();
    std::io::stdin()
        .take(MAX_BYTES)
        .read_to_string(&mut password)
        .map_err(|error| format!("cannot read the password from stdin: {error}"))?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err("there is no password on stdin".into());
    }
    let credentials = Credentials {
        user: flags.username.clone(),
        password: Secret::new(password),
        is_identity_token: false,
    };
    let certificates = super::plugin_update::certificates(flags.ca_file.as_deref())?;
    let text = |error: RegistryError| error.to_string();
    let registry = Registry::connect(&flags.registry, &certificates, Some(credentials.clone()));
    registry.await.map_err(text)?.check_credentials().await.map_err(text)?;
    store(&flags.registry, &credentials, &|name| std::env::var_os(name)).await.map_err(text)
}
