//! The plugin's configuration: what the operator wrote, checked and completed.
//!
//! Unknown keys are refused: a simulation with a misspelt fault would prove nothing.

use std::path::{Component, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::fate::Fate;
use crate::fault::Rule;
use crate::wait::Wait;

const MAX_SIZE: u32 = 1000;
/// The most instances of any simulation: each one is a directory.
pub(crate) const MAX_SIZE_LIMIT: u32 = 100_000;

/// `plugin_config` as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the group lives; absolute. Made with mode 0700.
    state_dir: Option<PathBuf>,
    /// What an instance is.
    instances: Machines,
    /// Everything random follows from it.
    seed: u64,
    /// From create to running.
    boot: Option<Value>,
    /// From create to the first list that has the instance.
    listed_after: Option<Value>,
    /// From delete to gone.
    delete: Option<Value>,
    /// How long suspending and resuming take; absent, the group cannot do it.
    suspend: Option<Value>,
    /// Told as the group's size.
    max_size: Option<u32>,
    /// The most instances that the provider creates.
    quota: Option<u32>,
    /// More calls than this are refused.
    calls_per_s: Option<u32>,
    /// What goes wrong with calls.
    faults: Vec<Rule>,
    /// What becomes of single instances.
    fates: Vec<Fate>,
}

/// What an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Machines {
    /// A process that serves SSH.
    #[default]
    Ssh,
    /// Nothing: an address where nobody listens.
    None,
}

/// What the configuration means.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) state_dir: PathBuf,
    pub(crate) machines: Machines,
    pub(crate) seed: u64,
    pub(crate) times: Times,
    pub(crate) max_size: u32,
    pub(crate) quota: Option<u32>,
    pub(crate) calls_per_s: Option<u32>,
    pub(crate) faults: Vec<Rule>,
    pub(crate) fates: Vec<Fate>,
}

/// How long things take.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) boot: Wait,
    pub(crate) listed_after: Wait,
    pub(crate) delete: Wait,
    pub(crate) suspend: Option<Wait>,
}

impl Config {
    /// Checks and completes; an error is one line that names key and value.
    pub(crate) fn check(self) -> Result<Options, String> {
        let state_dir = state_dir(self.state_dir)?;
        let max_size = self.max_size.unwrap_or(MAX_SIZE);
        if !(1..=MAX_SIZE_LIMIT).contains(&max_size) {
            return Err(format!("max_size = {max_size}: must be from 1 to {MAX_SIZE_LIMIT}"));
        }
        // Entries of lists count on from it.
        if self.seed > u64::MAX / 2 {
            return Err(format!("seed = {}: must be at most {}", self.seed, u64::MAX / 2));
        }
        if self.calls_per_s == Some(0) {
            return Err("calls_per_s = 0: must be at least 1".into());
        }
        for (place, rule) in self.faults.iter().enumerate() {
            rule.check(place)?;
        }
        for (place, fate) in self.fates.iter().enumerate() {
            fate.check(place)?;
        }
        let suspend = self.suspend.as_ref().map(|value| Wait::read("suspend", Some(value)));
        Ok(Options {
            state_dir,
            machines: self.instances,
            seed: self.seed,
            times: Times {
                boot: Wait::read("boot", self.boot.as_ref())?,
                listed_after: Wait::read("listed_after", self.listed_after.as_ref())?,
                delete: Wait::read("delete", self.delete.as_ref())?,
                suspend: suspend.transpose()?,
            },
            max_size,
            quota: self.quota,
            calls_per_s: self.calls_per_s,
            faults: self.faults,
            fates: self.fates,
        })
    }
}

fn state_dir(path: Option<PathBuf>) -> Result<PathBuf, String> {
    let Some(path) = path else {
        return Err("state_dir: is missing, write state_dir = \"/some/path\"".into());
    };
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && !goes_up && path.parent().is_some() {
        return Ok(path);
    }
    Err(format!("state_dir = {:?}: must be an absolute path without \"..\"", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(mut config: Value) -> Result<Options, String> {
        let table = config.as_object_mut().expect("a table");
        table.entry("state_dir").or_insert("/srv/sim".into());
        let config: Config = serde_json::from_value(config).map_err(|error| error.to_string())?;
        config.check()
    }

    #[test]
    fn complaints_name_key_and_value_in_one_line() {
        for (config, parts) in [
            (json!({"state_dir": "here"}), ["state_dir", "here"]),
            (json!({"state_dir": "/a/../b"}), ["state_dir", "/a/../b"]),
            (json!({"boot": "soon"}), ["boot", "soon"]),
            (json!({"max_size": 0}), ["max_size", "0"]),
            (json!({"calls_per_s": 0}), ["calls_per_s", "0"]),
            (json!({"bood": "1s"}), ["bood", "boot"]),
            (json!({"instances": "docker"}), ["docker", "ssh"]),
            (json!({"faults": [{"call": "create", "kind": "eror"}]}), ["eror", "error"]),
            (json!({"faults": [{"call": "create", "kind": "omit"}]}), ["faults[0]", "omit"]),
            (json!({"fates": [{"kind": "kill", "notice": "1s"}]}), ["fates[0]", "notice"]),
        ] {
            let complaint = check(config.clone()).expect_err(&config.to_string());
            assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
            assert!(!complaint.contains('\n'), "{complaint}");
        }
        let missing = serde_json::from_value::<Config>(json!({})).expect("empty").check();
        assert!(missing.is_err_and(|why| why.contains("state_dir")));
    }

    #[test]
    fn little_needs_to_be_written() {
        let options = check(json!({})).expect("fine");
        assert_eq!((options.max_size, options.machines), (MAX_SIZE, Machines::Ssh));
        assert!(options.times.suspend.is_none() && options.quota.is_none());
    }
}
