//! `mayfly plugin update`: fetches what the tags of plugins hold now.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::fleeting::entries;
use super::{Exit, block_on};
use crate::cli::ConfigFlags;
use crate::install::{
    Installer, Keep, Layout, Outcome, Reference, Registry, Source, Version, prune, stored,
};
use crate::plugin::{beside, find};

/// Where plugins come from, and what stays beside them.
#[derive(Args, Clone, Debug)]
pub(crate) struct From {
    /// Take them from an OCI image layout, not from the network
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Certificates that are trusted beside the system's, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How many versions stay before each that is used; older ones that nobody refers to are
    /// removed
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep: usize,
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
    let is_named = flags.plugin.is_some();
    let update = Update::new(&flags.from, &flags.config, is_named);
    let mut said = Said::new("update", flags.json);
    let done = block_on(async {
        for (runner, plugin) in entries {
            match reference(&plugin) {
                Err(error) if is_named => said.failed(&runner, &plugin, &error),
                Ok(reference) if is_named || !is_program(&plugin, &reference, &update.layout) => {
                    update.of(&runner, &plugin, &reference, &mut said).await;
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

/// Installs what tags hold now, and removes what nobody needs any more.
pub(super) struct Update<'a> {
    pub(super) layout: Layout,
    from: &'a From,
    take_back: bool,
    /// A configuration that cannot be used, where nobody can say what is needed.
    keep: Result<Keep, PathBuf>,
}

impl<'a> Update<'a> {
    /// With `take_back`, versions come back that were rolled back.
    pub(super) fn new(from: &'a From, config: &ConfigFlags, take_back: bool) -> Self {
        let keep = configured(config).map(|plugins| keep(&plugins, from.keep));
        Self { layout: Layout::of_user(), from, take_back, keep }
    }

    /// Does it for one plugin, and says how it went.
    pub(super) async fn of(
        &self,
        runner: &str,
        plugin: &str,
        reference: &Reference,
        said: &mut Said,
    ) {
        let outcome = self.install(reference).await;
        let is_used = matches!(outcome, Ok(Outcome::New(_) | Outcome::Present(_)));
        said.outcome(runner, plugin, outcome);
        if !is_used {
            return;
        }
        let stay = |why: &dyn Display| eprintln!("{plugin}: old versions stay: {why}");
        match &self.keep {
            Ok(keep) => {
                match prune(&self.layout, reference, keep, &|line| eprintln!("{line}")).await {
                    Ok(removed) => said.removed(runner, plugin, &removed),
                    Err(error) => stay(&error),
                }
            }
            Err(path) => stay(&format!(
                "which of them are needed is unknown, as {} cannot be used; `mayfly config check` says why",
                path.display()
            )),
        }
    }

    async fn install(&self, reference: &Reference) -> Result<Outcome, String> {
        let mut source = match &self.from.from {
            Some(directory) => Source::directory(directory),
            None => {
                let environment = |name: &str| std::env::var_os(name);
                let stored = stored(&reference.registry, &reference.repository, &environment).await;
                let certificates = certificates(self.from.ca_file.as_deref())?;
                let credentials = stored.map_err(|error| error.to_string())?;
                let registry =
                    Registry::connect(&reference.registry, &certificates, credentials).await;
                Source::Registry(Box::new(registry.map_err(|error| error.to_string())?))
            }
        };
        let installer = Installer {
            layout: &self.layout,
            progress: &|line| eprintln!("{line}"),
            take_back: self.take_back,
        };
        installer.install(reference, &mut source).await.map_err(|error| error.to_string())
    }
}

/// The plugins of the configuration; none without one. One that was named and is not there,
/// or that cannot be used, is an error.
fn configured(flags: &ConfigFlags) -> Result<Vec<String>, PathBuf> {
    let path = flags.config.clone().unwrap_or_else(crate::config::default_path);
    if flags.config.is_none() && matches!(path.try_exists(), Ok(false)) {
        return Ok(Vec::new());
    }
    let loaded = crate::config::load(&path, flags.state_dir.as_deref()).map_err(|_| path)?;
    let runners = loaded.config.runners.into_iter();
    Ok(runners.map(|runner| runner.autoscaler.template.plugin).collect())
}

fn keep(plugins: &[String], previous: usize) -> Keep {
    let mut keep = Keep { previous, ..Keep::default() };
    for plugin in plugins {
        match reference(plugin) {
            Ok(reference) => keep.references.push(reference),
            Err(_) => keep.paths.extend(std::path::absolute(plugin)),
        }
    }
    keep
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

    /// Versions of the plugin last spoken of that are gone.
    fn removed(&mut self, runner: &str, plugin: &str, versions: &[Version]) {
        let versions: Vec<String> = versions.iter().map(Version::to_string).collect();
        if !self.json && !versions.is_empty() {
            println!("{}plugin: {plugin}, removed: {}", of(runner), versions.join(", "));
        }
        if let Some(entry) = self.entries.last_mut() {
            entry["removed"] = json!(versions);
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
