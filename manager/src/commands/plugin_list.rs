//! `mayfly plugin list`: all plugins of this machine, and which runner uses which.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Exit;
use super::fleeting::entries;
use super::plugin_update::reference;
use crate::cli::ConfigFlags;
use crate::install::{Layout, Lock};
use crate::plugin::{beside, find, on_path};

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    config: ConfigFlags,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One plugin, in one version.
#[derive(Debug, Serialize)]
struct Entry {
    plugin: String,
    /// None for programs on PATH: they say it only when they run.
    version: Option<String>,
    /// `installed`, `rolled back`, `program`, or `missing` where a runner wants it.
    state: &'static str,
    path: Option<PathBuf>,
    /// Digest of the layer, where Mayfly installed it.
    digest: Option<String>,
    /// What is wrong with it.
    fault: Option<String>,
    used_by: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let layout = Layout::of_user();
    let Some(users) = users(&flags.config) else {
        return Exit::Config;
    };
    let mut entries = match installed(&layout) {
        Ok(entries) => entries,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::State;
        }
    };
    entries.extend(on_path(&layout).into_iter().map(|(plugin, path)| Entry {
        plugin,
        version: None,
        state: "program",
        path: Some(path),
        digest: None,
        fault: None,
        used_by: Vec::new(),
    }));
    for (runner, plugin) in users {
        let found = file(&plugin, &layout);
        let is_it = |entry: &&mut Entry| match &found {
            Ok(path) => entry.path.as_ref() == Some(path),
            Err(_) => entry.state == "missing" && entry.plugin == plugin,
        };
        match (entries.iter_mut().find(is_it), found) {
            (Some(used), _) => used.used_by.push(runner),
            // A path of its own, or nothing.
            (None, found) => entries.push(Entry {
                plugin,
                version: None,
                state: if found.is_ok() { "program" } else { "missing" },
                fault: found.as_ref().err().cloned(),
                path: found.ok(),
                digest: None,
                used_by: vec![runner],
            }),
        }
    }
    let good = entries.iter().all(|entry| entry.fault.is_none());
    if flags.json {
        println!("{}", serde_json::json!({"directory": layout.root(), "plugins": entries}));
    } else {
        print!("{}", text(&entries));
    }
    if good { Exit::Success } else { Exit::Failed }
}

/// Runners and their plugins. Without a configuration there is none; one that was named
/// and cannot be used is an error, which is said.
fn users(flags: &ConfigFlags) -> Option<Vec<(String, String)>> {
    if flags.config.is_none() && !crate::config::default_path().exists() {
        return Some(Vec::new());
    }
    entries(&[], flags)
}

/// The file that a plugin is. Whether it was changed is told of the file.
fn file(plugin: &str, layout: &Layout) -> Result<PathBuf, String> {
    let installed = reference(plugin).ok().and_then(|reference| layout.newest(&reference));
    match installed {
        Some(installed) => Ok(installed.path),
        None => find(plugin, beside().as_deref()).map_err(|error| error.to_string()),
    }
}

fn installed(layout: &Layout) -> Result<Vec<Entry>, crate::install::LockError> {
    let lock = Lock::read(layout.root())?;
    let mut entries = Vec::new();
    for reference in layout.plugins() {
        let plugin = reference.plugin();
        for installed in layout.versions(&reference) {
            let locked = lock.get(&plugin, &installed.version);
            let directory = installed.path.parent().unwrap_or(layout.root());
            let verified = locked.map_or(Ok(()), |locked| locked.verify(directory));
            entries.push(Entry {
                plugin: plugin.clone(),
                version: Some(installed.version.to_string()),
                state: "installed",
                digest: locked.map(|locked| locked.layer.clone()),
                fault: verified.err().map(|error| error.to_string()),
                path: Some(installed.path),
                used_by: Vec::new(),
            });
        }
        for version in layout.versions_rolled_back(&reference) {
            entries.push(Entry {
                plugin: plugin.clone(),
                digest: lock.get(&plugin, &version).map(|locked| locked.layer.clone()),
                version: Some(version.to_string()),
                state: "rolled back",
                path: None,
                fault: None,
                used_by: Vec::new(),
            });
        }
    }
    Ok(entries)
}

fn text(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no plugin is installed, and none is on PATH\n".into();
    }
    let name = entries.iter().map(|entry| entry.plugin.len()).max().unwrap_or(0);
    let mut text = format!("{:name$}  {:12} {:20} used by\n", "plugin", "version", "digest");
    for entry in entries {
        let version = match entry.state {
            "installed" => entry.version.clone().unwrap_or_default(),
            state @ ("program" | "missing") => state.into(),
            _ => format!("{} (rolled back)", entry.version.as_deref().unwrap_or_default()),
        };
        // Enough to tell two; the whole of it is in the JSON.
        let digest: String = match (&entry.digest, entry.state) {
            (Some(digest), _) => digest.chars().take(19).collect(),
            (None, "installed") => "not locked".into(),
            _ => String::new(),
        };
        let line = format!(
            "{:name$}  {version:12} {digest:20} {}",
            entry.plugin,
            entry.used_by.join(", ")
        );
        text.push_str(line.trim_end());
        text.push('\n');
        if let Some(fault) = &entry.fault {
            text.push_str(&format!("  {fault}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_a_table() {
        let entry = |plugin: &str, version: Option<&str>, state, digest: Option<&str>| Entry {
            plugin: plugin.into(),
            version: version.map(Into::into),
            state,
            path: None,
            digest: digest.map(Into::into),
            fault: None,
            used_by: Vec::new(),
        };
        let mut used = entry("host/x", Some("1.2.3"), "installed", Some("sha256:0123456789abcdef"));
        used.used_by = vec!["one".into(), "two".into()];
        let mut bad = entry("host/x", Some("1.3.0"), "installed", None);
        bad.fault = Some("it was changed".into());
        let program = entry("fleeting-plugin-y", None, "program", None);
        let gone = entry("host/x", Some("2.0.0"), "rolled back", None);
        assert_eq!(
            text(&[used, bad, gone, program]).lines().collect::<Vec<_>>(),
            [
                "plugin             version      digest               used by",
                "host/x             1.2.3        sha256:0123456789ab  one, two",
                "host/x             1.3.0        not locked",
                "  it was changed",
                "host/x             2.0.0 (rolled back)",
                "fleeting-plugin-y  program",
            ]
        );
    }
}
