//! The plugin's configuration: what the operator wrote, checked and completed.
//!
//! Keys are read as plain JSON values, so that every complaint can name key and value.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::go_duration;

const MAX_SIZE: u32 = 10;
/// More process trees than one machine can serve; also fewer than there are user ids.
const MAX_SIZE_LIMIT: u32 = 400;
const LEASE: Duration = Duration::from_secs(60 * 60);
const LEASE_MINIMUM: Duration = Duration::from_secs(1);

/// `plugin_config` as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    name: Option<Value>,
    root: Option<Value>,
    max_size: Option<Value>,
    boot_time: Option<Value>,
    isolation: Option<Value>,
    lease: Option<Value>,
}

/// What the configuration means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Name of the group, fit for a directory.
    pub(crate) name: String,
    /// Where instances live; absolute.
    pub(crate) root: PathBuf,
    pub(crate) max_size: u32,
    /// An instance counts as running this long after it was made.
    pub(crate) boot_time: Duration,
    pub(crate) isolation: Wish,
    /// How long an instance without a plugin waits before it ends itself.
    pub(crate) lease: Duration,
}

/// The isolation that the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The strongest one available, never none.
    Auto,
    Full,
    User,
    None,
}

/// What the defaults depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) is_root: bool,
    pub(crate) home: Option<PathBuf>,
    pub(crate) xdg_state_home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            is_root: rustix::process::geteuid().is_root(),
            home: path("HOME"),
            xdg_state_home: path("XDG_STATE_HOME"),
        }
    }
}

impl Config {
    /// Checks and completes; an error is one line that names key and value.
    pub(crate) fn check(&self, here: &Surroundings) -> Result<Options, String> {
        let root = match text("root", self.root.as_ref())? {
            Some(root) => PathBuf::from(root),
            None => default_root(here)?,
        };
        Ok(Options {
            name: name(text("name", self.name.as_ref())?)?,
            root: absolute(root)?,
            max_size: max_size(self.max_size.as_ref())?,
            boot_time: duration("boot_time", self.boot_time.as_ref())?.unwrap_or_default(),
            isolation: isolation(text("isolation", self.isolation.as_ref())?)?,
            lease: lease(duration("lease", self.lease.as_ref())?)?,
        })
    }
}

fn text<'a>(key: &str, value: Option<&'a Value>) -> Result<Option<&'a str>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} = {other}: must be a string")),
    }
}

fn name(name: Option<&str>) -> Result<String, String> {
    let name = name.unwrap_or("local");
    let fits = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits {
        return Ok(name.to_owned());
    }
    Err(format!(
        "name = {name:?}: must be 1 to 64 letters, digits, '.', '_' or '-', and not start with '.'"
    ))
}

fn default_root(here: &Surroundings) -> Result<PathBuf, String> {
    if here.is_root {
        return Ok("/var/lib/mayfly/local".into());
    }
    let state = here
        .xdg_state_home
        .clone()
        .filter(|path| path.is_absolute())
        .or_else(|| here.home.as_ref().map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("mayfly/local"))
        .ok_or_else(|| "root: cannot be guessed without HOME, write root = \"/some/path\"".into())
}

fn absolute(root: PathBuf) -> Result<PathBuf, String> {
    let plain = root.is_absolute() && !root.components().any(|part| part == Component::ParentDir);
    // A colon or a line break would break the instances' /etc/passwd.
    let fits =
        root.to_str().is_some_and(|text| !text.contains(|c: char| c == ':' || c.is_control()));
    if plain && fits && root != Path::new("/") {
        return Ok(root);
    }
    Err(format!("root = {:?}: must be an absolute path without \"..\" and ':'", root.display()))
}

fn max_size(value: Option<&Value>) -> Result<u32, String> {
    let value = match value {
        None | Some(Value::Null) => return Ok(MAX_SIZE),
        Some(value) => value,
    };
    value
        .as_u64()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| (1..=MAX_SIZE_LIMIT).contains(size))
        .ok_or_else(|| format!("max_size = {value}: must be a number from 1 to {MAX_SIZE_LIMIT}"))
}

fn isolation(word: Option<&str>) -> Result<Wish, String> {
    match word {
        None | Some("auto") => Ok(Wish::Auto),
        Some("full") => Ok(Wish::Full),
        Some("user") => Ok(Wish::User),
        Some("none") => Ok(Wish::None),
        Some(other) => {
            Err(format!("isolation = {other:?}: must be \"auto\", \"full\", \"user\" or \"none\""))
        }
    }
}

fn lease(lease: Option<Duration>) -> Result<Duration, String> {
    let lease = lease.unwrap_or(LEASE);
    if lease >= LEASE_MINIMUM {
        return Ok(lease);
    }
    Err(format!(
        "lease = {lease:?}: must be at least 1s, and longer than the host's update interval"
    ))
}

/// A Go duration string, or whole nanoseconds as GitLab's configuration writes them.
fn duration(key: &str, value: Option<&Value>) -> Result<Option<Duration>, String> {
    let parsed = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => go_duration::parse(text),
        Some(value) => {
            value.as_u64().filter(|nanos| i64::try_from(*nanos).is_ok()).map(Duration::from_nanos)
        }
    };
    match (parsed, value) {
        (Some(duration), _) => Ok(Some(duration)),
        (None, value) => Err(format!(
            "{key} = {}: must be a duration such as \"1m30s\", or nanoseconds as a whole number",
            value.unwrap_or(&Value::Null)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(config: Value) -> Result<Options, String> {
        let config: Config = serde_json::from_value(config).expect("an object");
        config.check(&Surroundings { is_root: true, ..Surroundings::default() })
    }

    #[test]
    fn nothing_written_gives_the_defaults() {
        assert_eq!(
            check(json!({})),
            Ok(Options {
                name: "local".into(),
                root: "/var/lib/mayfly/local".into(),
                max_size: 10,
                boot_time: Duration::ZERO,
                isolation: Wish::Auto,
                lease: Duration::from_secs(3600),
            })
        );
    }

    #[test]
    fn everything_can_be_written() {
        let options = check(json!({
            "name": "a.b", "root": "/srv/x", "max_size": 3, "boot_time": "1m30s",
            "isolation": "none", "lease": 60_000_000_000u64
        }));
        assert_eq!(
            options,
            Ok(Options {
                name: "a.b".into(),
                root: "/srv/x".into(),
                max_size: 3,
                boot_time: Duration::from_secs(90),
                isolation: Wish::None,
                lease: Duration::from_secs(60),
            })
        );
    }

    #[test]
    fn complaints_name_key_and_value_in_one_line() {
        for (config, parts) in [
            (json!({"name": "../x"}), ["name", "../x"]),
            (json!({"name": 5}), ["name", "5"]),
            (json!({"root": "relative"}), ["root", "relative"]),
            (json!({"root": "/a/../b"}), ["root", "/a/../b"]),
            (json!({"root": "/a:b"}), ["root", "/a:b"]),
            (json!({"max_size": 0}), ["max_size", "0"]),
            (json!({"max_size": "ten"}), ["max_size", "ten"]),
            (json!({"max_size": 1_000_000}), ["max_size", "1000000"]),
            (json!({"boot_time": "5"}), ["boot_time", "5"]),
            (json!({"boot_time": -5}), ["boot_time", "-5"]),
            (json!({"isolation": "strong"}), ["isolation", "strong"]),
            (json!({"lease": "10ms"}), ["lease", "10ms"]),
            (json!({"lease": 1.5}), ["lease", "1.5"]),
        ] {
            let complaint = check(config.clone()).expect_err(&config.to_string());
            assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
            assert!(!complaint.contains('\n'), "{complaint}");
        }
    }

    #[test]
    fn a_user_has_a_root_of_their_own() {
        let root = |here: &Surroundings| default_root(here);
        let home = Some(PathBuf::from("/home/u"));
        let here = Surroundings { home: home.clone(), ..Surroundings::default() };
        assert_eq!(root(&here), Ok("/home/u/.local/state/mayfly/local".into()));
        let here = Surroundings { home, xdg_state_home: Some("/s".into()), is_root: false };
        assert_eq!(root(&here), Ok("/s/mayfly/local".into()));
        assert!(root(&Surroundings::default()).is_err());
    }
}
