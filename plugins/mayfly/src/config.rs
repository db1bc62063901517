//! The plugin's configuration: what the operator wrote, checked and completed.
//!
//! Unknown keys are refused: a misspelt cap would be none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::go_duration;

/// The keys that limit a day.
const MAX_HOURS: &str = "max_instance_hours_per_day";
const MAX_COST: &str = "max_cost_per_day";
const NAME: &str = "mayfly";
const COOLDOWN: Duration = Duration::from_secs(30);
const COOLDOWN_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Two providers can be asked one after the other within the 120 s of Mayfly.
const CALL_TIMEOUT: Duration = Duration::from_secs(50);
const CALL_TIMEOUT_LIMIT: Duration = Duration::from_secs(110);

/// `plugin_config` as it was written. No `Debug`: a provider's part may have secrets.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the group.
    name: Option<String>,
    /// The most instances of all providers together.
    max_instances: Option<u32>,
    /// The most instance-hours of a day, by UTC.
    max_instance_hours_per_day: Option<f64>,
    /// The most money of a day, by UTC, in the currency of the prices.
    max_cost_per_day: Option<f64>,
    /// Where it is remembered what the day has cost, and which instances there are.
    state_file: Option<PathBuf>,
    /// How long a provider that failed is left alone at first.
    cooldown: Option<String>,
    /// Deadline of one call to one provider.
    call_timeout: Option<String>,
    /// The providers, the first choice first.
    providers: Vec<Entry>,
}

/// One provider as it was written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    /// Begins the ids of its instances.
    name: Option<String>,
    /// As in GitLab's `plugin`: a name, or an absolute path.
    plugin: Option<String>,
    /// The most instances of this one; 0 where it is to drain.
    max_instances: Option<u32>,
    /// What an instance costs an hour, in any currency.
    price_per_hour: Option<f64>,
    /// The plugin's own `plugin_config`.
    config: Map<String, Value>,
    /// More variables for the plugin.
    env: BTreeMap<String, String>,
}

/// What the configuration means. No `Debug`, as above.
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) state_file: Option<PathBuf>,
    pub(crate) cooldown: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) providers: Vec<Choice>,
}

/// What the operator allows.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_instances: Option<u32>,
    pub(crate) max_hours: Option<f64>,
    pub(crate) max_cost: Option<f64>,
}

impl Limits {
    /// A key that limits a day, if one is written.
    pub(crate) fn key_of_a_day(&self) -> Option<&'static str> {
        let hours = self.max_hours.map(|_| MAX_HOURS);
        hours.or(self.max_cost.map(|_| MAX_COST))
    }
}

/// One provider.
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) plugin: String,
    pub(crate) max_instances: Option<u32>,
    pub(crate) price_per_hour: Option<f64>,
    pub(crate) config: Map<String, Value>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Config {
    /// Checks and completes; an error is one line that names key and value.
    pub(crate) fn check(self) -> Result<Options, String> {
        if self.providers.is_empty() {
            return Err("providers: is missing, write [[providers]] with name and plugin".into());
        }
        let mut names = BTreeSet::new();
        let mut providers = Vec::new();
        for (place, entry) in self.providers.into_iter().enumerate() {
            let provider = entry.check(place)?;
            if !names.insert(provider.name.clone()) {
                return Err(format!(
                    "providers[{place}].name = {:?}: another one is called so",
                    provider.name
                ));
            }
            providers.push(provider);
        }
        let limits = Limits {
            max_instances: positive("max_instances", self.max_instances)?,
            max_hours: more_than_0(MAX_HOURS, self.max_instance_hours_per_day)?,
            max_cost: more_than_0(MAX_COST, self.max_cost_per_day)?,
        };
        every_price(&limits, &providers)?;
        Ok(Options {
            name: name("name", self.name.as_deref().unwrap_or(NAME))?,
            state_file: state_file(self.state_file, &limits)?,
            limits,
            cooldown: duration("cooldown", self.cooldown, COOLDOWN, COOLDOWN_LIMIT)?,
            call_timeout: duration(
                "call_timeout",
                self.call_timeout,
                CALL_TIMEOUT,
                CALL_TIMEOUT_LIMIT,
            )?,
            providers,
        })
    }
}

impl Entry {
    fn check(self, place: usize) -> Result<Choice, String> {
        let key = |key: &str| format!("providers[{place}].{key}");
        let missing = |name: &str| format!("{}: is missing", key(name));
        Ok(Choice {
            name: name(&key("name"), &self.name.ok_or_else(|| missing("name"))?)?,
            plugin: self.plugin.ok_or_else(|| missing("plugin"))?,
            max_instances: self.max_instances,
            price_per_hour: price(&key("price_per_hour"), self.price_per_hour)?,
            config: self.config,
            env: self.env,
        })
    }
}

/// A name is a part of ids that a host may use in file names and labels.
fn name(key: &str, name: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name.len() <= 40 && name.chars().all(is_plain) {
        return Ok(name.into());
    }
    Err(format!("{key} = {name:?}: must be 1 to 40 of a-z, 0-9 and -"))
}

fn positive(key: &str, number: Option<u32>) -> Result<Option<u32>, String> {
    match number {
        Some(0) => Err(format!("{key} = 0: must be at least 1")),
        number => Ok(number),
    }
}

fn more_than_0(key: &str, number: Option<f64>) -> Result<Option<f64>, String> {
    match number {
        Some(it) if !it.is_finite() || it <= 0.0 => {
            Err(format!("{key} = {it}: must be more than 0"))
        }
        number => Ok(number),
    }
}

fn price(key: &str, number: Option<f64>) -> Result<Option<f64>, String> {
    match number {
        Some(it) if !it.is_finite() || it < 0.0 => Err(format!("{key} = {it}: must be 0 or more")),
        number => Ok(number),
    }
}

/// Money can only be limited where all that costs has a price.
fn every_price(limits: &Limits, providers: &[Choice]) -> Result<(), String> {
    let free = providers.iter().position(|provider| provider.price_per_hour.is_none());
    match free.filter(|_| limits.max_cost.is_some()) {
        Some(place) => Err(format!(
            "providers[{place}].price_per_hour: is missing, {MAX_COST} needs the price of every \
             provider; write 0 for one that costs nothing"
        )),
        None => Ok(()),
    }
}

fn state_file(path: Option<PathBuf>, limits: &Limits) -> Result<Option<PathBuf>, String> {
    match (path, limits.key_of_a_day()) {
        (Some(path), _) if !path.is_absolute() => {
            Err(format!("state_file = {:?}: must be an absolute path", path.display()))
        }
        (None, Some(key)) => {
            Err(format!("state_file: is missing, {key} needs it to remember what the day has cost"))
        }
        (path, _) => Ok(path),
    }
}

fn duration(
    key: &str,
    text: Option<String>,
    usual: Duration,
    longest: Duration,
) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(usual) };
    let read = go_duration::parse(&text).filter(|it| !it.is_zero() && *it <= longest);
    read.ok_or_else(|| {
        let longest = longest.as_secs();
        format!("{key} = {text:?}: must be a duration such as \"30s\", up to {longest} s")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(config: Value) -> Result<Options, String> {
        let config: Config = serde_json::from_value(config).map_err(|error| error.to_string())?;
        config.check()
    }

    #[test]
    fn complaints_name_key_and_value_in_one_line() {
        let sim = json!({"name": "a", "plugin": "sim"});
        let free = json!({"name": "b", "plugin": "sim", "price_per_hour": 0});
        for (config, parts) in [
            (json!({}), ["providers", "missing"]),
            (json!({"providers": [{"plugin": "sim"}]}), ["providers[0].name", "missing"]),
            (json!({"providers": [{"name": "a"}]}), ["providers[0].plugin", "missing"]),
            (json!({"providers": [{"name": "a/b", "plugin": "x"}]}), ["providers[0].name", "a/b"]),
            (json!({"providers": [sim, sim]}), ["providers[1].name", "another"]),
            (json!({"providers": [sim], "max_instances": 0}), ["max_instances", "0"]),
            (json!({"providers": [sim], "max_instance": 3}), ["max_instance", "unknown"]),
            (json!({"providers": [sim], "max_instance_hours_per_day": 3}), ["state_file", "hours"]),
            (
                json!({"providers": [sim], "max_instance_hours_per_day": -1}),
                ["max_instance_hours_per_day", "-1"],
            ),
            (json!({"providers": [sim], "state_file": "here"}), ["state_file", "here"]),
            (
                json!({"providers": [sim], "max_cost_per_day": 0, "state_file": "/x"}),
                ["max_cost_per_day", "0"],
            ),
            (
                json!({"providers": [free, sim], "max_cost_per_day": 3, "state_file": "/x"}),
                ["providers[1].price_per_hour", "missing"],
            ),
            (json!({"providers": [free], "max_cost_per_day": 3}), ["state_file", "cost"]),
            (
                json!({"providers": [{"name": "a", "plugin": "sim", "price_per_hour": -0.1}]}),
                ["providers[0].price_per_hour", "-0.1"],
            ),
            (json!({"providers": [sim], "cooldown": "soon"}), ["cooldown", "soon"]),
            (json!({"providers": [sim], "call_timeout": "5m"}), ["call_timeout", "5m"]),
            (json!({"providers": [sim], "name": ""}), ["name", "1 to 40"]),
        ] {
            let complaint = check(config.clone()).err().unwrap_or_else(|| panic!("{config}"));
            assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
            assert!(!complaint.contains('\n'), "{complaint}");
        }
    }

    #[test]
    fn little_needs_to_be_written() {
        let options = check(json!({"providers": [{"name": "a", "plugin": "sim"}]})).ok();
        let options = options.expect("fine");
        assert_eq!((options.name.as_str(), options.cooldown), (NAME, COOLDOWN));
        assert!(options.limits.max_instances.is_none() && options.state_file.is_none());
    }
}
