//! The plugin's configuration: what the operator wrote, checked and completed.
//!
//! Unknown keys are refused: a misspelt `delete` would leave a group without its hook.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::go_duration;
use crate::script::Script;

const MAX_SIZE: u32 = 100;
const MAX_SIZE_LIMIT: u32 = 10_000;
const PARALLEL: usize = 4;
const PARALLEL_LIMIT: usize = 64;
const BATCH_LIMIT: usize = 1000;
/// A script that takes longer does not answer any host in time.
const TIMEOUT_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Deadlines are below those of Mayfly: 120 s for a change, 60 s for the rest.
const TIMEOUTS: [(&str, Duration); 9] = [
    ("init", Duration::from_secs(45)),
    ("create", Duration::from_secs(110)),
    ("delete", Duration::from_secs(110)),
    ("scale", Duration::from_secs(110)),
    ("list", Duration::from_secs(50)),
    ("connect", Duration::from_secs(50)),
    ("suspend", Duration::from_secs(110)),
    ("resume", Duration::from_secs(110)),
    ("heartbeat", Duration::from_secs(10)),
];

/// `plugin_config` as it was written. No `Debug`: `env` may have secrets.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// How the provider is told: `ops` or `count`.
    mode: Option<String>,
    /// Name of the group.
    name: Option<String>,
    /// Where scripts run, and where relative ones are found.
    directory: Option<PathBuf>,
    /// `ops`: the script.
    command: Option<String>,
    /// `ops`: the most instances that one `create` is asked for.
    batch: Option<usize>,
    /// `count`: the script that is told how many.
    scale: Option<String>,
    /// `count`: the script that lists.
    list: Option<String>,
    /// `count`: the script that is told first which ones must go.
    delete: Option<String>,
    /// `count`: the script that says how to log in, where `list` does not.
    connect: Option<String>,
    /// `count`: where it is remembered which number was told last.
    state_file: Option<PathBuf>,
    /// The most instances.
    max_size: Option<u32>,
    /// The most scripts that run at a time.
    parallel: Option<usize>,
    /// Deadline of each operation.
    timeouts: BTreeMap<String, String>,
    /// Variables of scripts.
    pub(crate) env: BTreeMap<String, String>,
    /// Names of variables that are handed on to scripts.
    pub(crate) pass_env: Vec<String>,
    /// Handed on to scripts in each request.
    settings: Map<String, Value>,
}

/// What the configuration means.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) max_size: u32,
    pub(crate) parallel: usize,
    pub(crate) timeouts: BTreeMap<&'static str, Duration>,
    pub(crate) settings: Map<String, Value>,
}

/// How the provider is told what is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// One operation at a time.
    Ops { command: Script, batch: usize },
    /// By the number of instances.
    Count(CountScripts),
}

/// The scripts of a provider that is told a number.
#[derive(Clone, Debug)]
pub(crate) struct CountScripts {
    pub(crate) scale: Script,
    pub(crate) list: Script,
    pub(crate) delete: Option<Script>,
    pub(crate) connect: Option<Script>,
    pub(crate) state_file: PathBuf,
}

impl Config {
    /// Checks and completes; an error is one line that names key and value.
    pub(crate) fn check(&self) -> Result<Options, String> {
        let name = name(self.name.as_deref())?;
        let directory = self.directory.as_deref().map(directory).transpose()?;
        let mode = self.mode(&name, directory.as_deref())?;
        Ok(Options {
            mode,
            directory,
            max_size: within("max_size", self.max_size, MAX_SIZE, MAX_SIZE_LIMIT)?,
            parallel: within("parallel", self.parallel, PARALLEL, PARALLEL_LIMIT)?,
            timeouts: timeouts(&self.timeouts)?,
            settings: self.settings.clone(),
            name,
        })
    }

    fn mode(&self, name: &str, directory: Option<&Path>) -> Result<Mode, String> {
        let needed = |key: &str, text: Option<&String>| {
            let text = text.ok_or_else(|| format!("{key}: is missing, write the script's path"))?;
            Script::find(key, text, directory)
        };
        let optional = |key: &str, text: Option<&String>| {
            text.map(|text| Script::find(key, text, directory)).transpose()
        };
        let batch = within("batch", self.batch, 1, BATCH_LIMIT)?;
        match self.mode.as_deref() {
            Some("ops") => {
                self.refuse("ops", &self.of_count())?;
                Ok(Mode::Ops { command: needed("command", self.command.as_ref())?, batch })
            }
            Some("count") => {
                let of_ops = [("command", self.command.is_some()), ("batch", self.batch.is_some())];
                self.refuse("count", &of_ops)?;
                Ok(Mode::Count(CountScripts {
                    scale: needed("scale", self.scale.as_ref())?,
                    list: needed("list", self.list.as_ref())?,
                    delete: optional("delete", self.delete.as_ref())?,
                    connect: optional("connect", self.connect.as_ref())?,
                    state_file: state_file(self.state_file.as_deref(), name)?,
                }))
            }
            Some(other) => Err(format!("mode = {other:?}: must be \"ops\" or \"count\"")),
            None => Err("mode: is missing, write \"ops\" or \"count\"".into()),
        }
    }

    fn of_count(&self) -> [(&'static str, bool); 5] {
        [
            ("scale", self.scale.is_some()),
            ("list", self.list.is_some()),
            ("delete", self.delete.is_some()),
            ("connect", self.connect.is_some()),
            ("state_file", self.state_file.is_some()),
        ]
    }

    fn refuse(&self, mode: &str, keys: &[(&str, bool)]) -> Result<(), String> {
        match keys.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(format!("{key}: has no meaning with mode = {mode:?}")),
            None => Ok(()),
        }
    }
}

fn name(name: Option<&str>) -> Result<String, String> {
    let name = name.unwrap_or("script");
    let fits = (1..=64).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits {
        return Ok(name.to_owned());
    }
    Err(format!(
        "name = {name:?}: must be 1 to 64 letters, digits, '.', '_' or '-', and start with a \
         letter or a digit"
    ))
}

fn directory(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("directory = \"{shown}\": must be an absolute path"));
    }
    if !path.is_dir() {
        return Err(format!("directory = \"{shown}\": is no directory"));
    }
    Ok(path.to_owned())
}

fn state_file(path: Option<&Path>, name: &str) -> Result<PathBuf, String> {
    if let Some(path) = path {
        let goes_up = path.components().any(|part| part == Component::ParentDir);
        if path.is_absolute() && !goes_up && path.file_name().is_some() {
            return Ok(path.to_owned());
        }
        let shown = path.display();
        return Err(format!("state_file = \"{shown}\": must be an absolute path without \"..\""));
    }
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match rustix::process::geteuid().is_root() {
        true => Some(PathBuf::from("/var/lib")),
        false => variable("XDG_STATE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/state"))),
    };
    base.map(|base| base.join("mayfly/script").join(format!("{name}.json"))).ok_or_else(|| {
        "state_file: cannot be guessed without HOME, write state_file = \"/some/path\"".into()
    })
}

fn within<T>(key: &str, value: Option<T>, default: T, limit: T) -> Result<T, String>
where
    T: Copy + PartialOrd + From<u8> + std::fmt::Display,
{
    let value = value.unwrap_or(default);
    if value >= T::from(1) && value <= limit {
        return Ok(value);
    }
    Err(format!("{key} = {value}: must be from 1 to {limit}"))
}

fn timeouts(
    written: &BTreeMap<String, String>,
) -> Result<BTreeMap<&'static str, Duration>, String> {
    let mut timeouts = BTreeMap::from(TIMEOUTS);
    for (operation, text) in written {
        let Some(slot) = timeouts.get_mut(operation.as_str()) else {
            let known: Vec<&str> = TIMEOUTS.iter().map(|(operation, _)| *operation).collect();
            return Err(format!("timeouts.{operation}: must be one of {}", known.join(", ")));
        };
        let limit = go_duration::parse(text);
        *slot =
            limit.filter(|limit| !limit.is_zero() && *limit <= TIMEOUT_LIMIT).ok_or_else(|| {
                format!(
                    "timeouts.{operation} = {text:?}: must be a duration such as \"90s\", up to \
                     one hour"
                )
            })?;
    }
    Ok(timeouts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(config: Value) -> Result<Options, String> {
        serde_json::from_value::<Config>(config).map_err(|error| error.to_string())?.check()
    }

    fn ops(more: &Value) -> Value {
        let mut config = json!({"mode": "ops", "command": "/bin/sh"});
        let table = config.as_object_mut().expect("a table");
        table.extend(more.as_object().expect("a table").clone());
        config
    }

    #[test]
    fn complaints_name_key_and_value_in_one_line() {
        for (config, parts) in [
            (json!({}), ["mode", "missing"]),
            (json!({"mode": "oops"}), ["mode", "oops"]),
            (json!({"mode": "ops"}), ["command", "missing"]),
            (json!({"mode": "count", "scale": "/bin/sh"}), ["list", "missing"]),
            (json!({"mode": "count", "command": "/bin/sh"}), ["command", "count"]),
            (ops(&json!({"delete": "/bin/sh"})), ["delete", "ops"]),
            (ops(&json!({"command": "sh"})), ["command = \"sh\"", "directory"]),
            (ops(&json!({"command": "/none.sh"})), ["/none.sh", "cannot find it"]),
            (ops(&json!({"command": "/etc/passwd"})), ["/etc/passwd", "chmod +x"]),
            (ops(&json!({"comand": "x"})), ["comand", "command"]),
            (ops(&json!({"name": "a b"})), ["name", "a b"]),
            (ops(&json!({"directory": "here"})), ["directory", "here"]),
            (ops(&json!({"max_size": 0})), ["max_size", "0"]),
            (ops(&json!({"parallel": 65})), ["parallel", "65"]),
            (ops(&json!({"batch": 0})), ["batch", "0"]),
            (ops(&json!({"timeouts": {"crate": "1s"}})), ["timeouts.crate", "create"]),
            (ops(&json!({"timeouts": {"create": "soon"}})), ["timeouts.create", "soon"]),
        ] {
            let complaint = check(config.clone()).expect_err(&config.to_string());
            assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
            assert!(!complaint.contains('\n'), "{complaint}");
        }
    }

    #[test]
    fn little_needs_to_be_written() {
        let options = check(ops(&json!({"timeouts": {"list": "1m30s"}}))).expect("fine");
        assert_eq!((options.name.as_str(), options.max_size), ("script", MAX_SIZE));
        assert_eq!(options.timeouts["list"], Duration::from_secs(90));
        assert!(matches!(options.mode, Mode::Ops { batch: 1, .. }));
    }
}
