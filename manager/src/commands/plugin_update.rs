//! `mayfly plugin update`: fetches what the tags of plugins hold now.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::fleeting::entries;
use super::{Exit, block_on};
use crate::cli::ConfigFlags;
use crate::install::{Installer, Layout, Outcome, Reference, Registry, Source, stored};
use crate::plugin::{beside, find};

/// Where plugins come from.
#[derive(Args, Clone, Debug)]
pub(crate) struct From {
    /// Take them from an OCI image layout, not from the network
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Certificates that are trusted beside the system's, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// A plugin, such as aws or aws:1.2, in place of those of the configuration; one that
    /// was rolled back comes back
    #[arg(value_name = "PLUGIN")]
    plugin: Option<String>,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    from: From,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let Some(entries) = entries(flags.plugin.as_slice(), &flags.config) else {
        return Exit::Config;
    };
    let layout = Layout::of_user();
    let is_named = flags.plugin.is_some();
    let mut said = Said::new("update", flags.json);
    let done = block_on(async {
        for (runner, plugin) in entries {
            match reference(&plugin) {
                Err(error) if is_named => said.failed(&runner, &plugin, &error),
                Ok(reference) if is_named || !is_program(&plugin, &reference, &layout) => {
                    let outcome = update(&layout, &reference, &flags.from, is_named).await;
                    said.outcome(&runner, &plugin, outcome);
                }
                _ => eprintln!("{plugin} is no plugin of a registry; it is left as it is"),
            }
        }
        said
    });
    done.map_or(Exit::State, Said::end)
}

/// The reference, where it is one: not a path, and not the name of a program.
pub(super) fn reference(plugin: &str) -> Result<Reference, String> {
    let is_path =
        plugin.starts_with(['/', '.']) || (plugin.contains('/') && Path::new(plugin).is_file());
    let is_program = plugin.starts_with("fleeting-plugin-") && !plugin.contains(['/', ':']);
    if is_path || is_program {
        return Err(format!("{plugin:?} is a program of this machine, not a plugin of a registry"));
    }
    plugin.parse().map_err(|error: crate::install::BadReference| error.to_string())
}

/// Whether a name that could be a registry's is that of a program here.
fn is_program(plugin: &str, reference: &Reference, layout: &Layout) -> bool {
    layout.newest(reference).is_none() && find(plugin, beside().as_deref()).is_ok()
}

/// Certificates of a file; none without one.
pub(super) fn certificates(file: Option<&Path>) -> Result<Vec<u8>, String> {
    let Some(file) = file else { return Ok(Vec::new()) };
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// Installs what the tag holds now.
pub(super) async fn update(
    layout: &Layout,
    reference: &Reference,
    from: &From,
    take_back: bool,
) -> Result<Outcome, String> {
    let mut source = match &from.from {
        Some(directory) => Source::directory(directory),
        None => {
            let environment = |name: &str| std::env::var_os(name);
            let stored = stored(&reference.registry, &reference.repository, &environment).await;
            let certificates = certificates(from.ca_file.as_deref())?;
            let credentials = stored.map_err(|error| error.to_string())?;
            let registry = Registry::connect(&reference.registry, &certificates, credentials).await;
            Source::Registry(Box::new(registry.map_err(|error| error.to_string())?))
        }
    };
    let installer = Installer { layout, progress: &|line| eprintln!("{line}"), take_back };
    installer.install(reference, &mut source).await.map_err(|error| error.to_string())
}

/// What was said about plugins, for people at once and for programs at the end.
pub(super) struct Said {
    verb: &'static str,
    json: bool,
    good: bool,
    entries: Vec<Value>,
}

impl Said {
    pub(super) fn new(verb: &'static str, json: bool) -> Self {
        Self { verb, json, good: true, entries: Vec::new() }
    }

    /// One that is there.
    pub(super) fn found(&mut self, runner: &str, plugin: &str, path: &Path) {
        let newest = reference(plugin).ok().and_then(|of| Layout::of_user().newest(&of));
        let version = newest.filter(|installed| installed.path == path);
        let version = version.map(|installed| installed.version.to_string());
        self.good_line(runner, plugin, (path, version.as_deref(), "present"));
    }

    /// How an installation ended.
    pub(super) fn outcome(&mut self, runner: &str, plugin: &str, outcome: Result<Outcome, String>) {
        match outcome {
            Ok(Outcome::New(new)) => {
                let version = new.version.to_string();
                self.good_line(runner, plugin, (&new.path, Some(&version), "installed"));
            }
            Ok(Outcome::Present(there)) => {
                let version = there.version.to_string();
                self.good_line(runner, plugin, (&there.path, Some(&version), "present"));
            }
            Ok(Outcome::RolledBack(version, Some(used))) => {
                eprintln!(
                    "{plugin}: {version} was rolled back and stays so; `mayfly plugin update {plugin}` takes it again"
                );
                let version = used.version.to_string();
                self.good_line(runner, plugin, (&used.path, Some(&version), "rolled back"));
            }
            Ok(Outcome::RolledBack(version, None)) => {
                let why = format!(
                    "{version} was rolled back, and there is no other; `mayfly plugin update {plugin}` takes it again"
                );
                self.failed(runner, plugin, &why);
            }
            Err(error) => self.failed(runner, plugin, &error),
        }
    }

    /// One that is not.
    pub(super) fn failed(&mut self, runner: &str, plugin: &str, error: &str) {
        self.good = false;
        eprintln!("{}plugin: {plugin}, {} error: {error}", of(runner), self.verb);
        self.entries.push(json!({"runner": runner, "plugin": plugin, "error": error}));
    }

    fn good_line(
        &mut self,
        runner: &str,
        plugin: &str,
        (path, version, state): (&Path, Option<&str>, &str),
    ) {
        if !self.json {
            let version =
                version.map(|version| format!(", version: {version}")).unwrap_or_default();
            println!("{}plugin: {plugin}, path: {}{version}", of(runner), path.display());
        }
        self.entries.push(json!({
            "runner": runner, "plugin": plugin, "path": path, "version": version, "state": state,
        }));
    }

    /// Prints the object, if one is wanted.
    pub(super) fn end(self) -> Exit {
        if self.json {
            println!("{}", json!({"plugins": self.entries}));
        }
        if self.good { Exit::Success } else { Exit::Failed }
    }
}

/// As GitLab Runner begins its lines.
fn of(runner: &str) -> String {
    if runner.is_empty() { String::new() } else { format!("runner: {runner}, ") }
}
