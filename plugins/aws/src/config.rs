//! The plugin's configuration: GitLab's keys with their meaning, and ours.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// How long a group that could not launch is passed over.
const COOL_DOWN: Duration = Duration::from_secs(300);

/// `plugin_config` as it was written. `name`, `profile`, `config_file` and
/// `credentials_file` are those of GitLab's plugin.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    name: String,
    profile: String,
    config_file: String,
    credentials_file: String,
    groups: Vec<String>,
    region: String,
    endpoint: String,
    role_arn: String,
    external_id: String,
    owner: String,
    cool_down: Option<String>,
    repair: bool,
    suspend: String,
    queue_url: String,
}

/// What the configuration means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Names of Auto Scaling groups, in the order in which they are asked. At least one.
    pub(crate) groups: Vec<String>,
    pub(crate) login: Login,
    /// Who drives the groups, written into their tags; `None` writes none.
    pub(crate) owner: Option<String>,
    pub(crate) cool_down: Duration,
    /// Settings of groups that endanger jobs are changed, not only told.
    pub(crate) repair: bool,
    pub(crate) suspend: Option<Suspend>,
    /// Where EventBridge puts notices about Spot instances.
    pub(crate) queue_url: Option<String>,
}

/// How the plugin finds AWS and its credentials; what is `None` is for AWS's own rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Login {
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) credentials_file: Option<PathBuf>,
    /// All calls go here, for tests and for gateways.
    pub(crate) endpoint: Option<String>,
    pub(crate) role_arn: Option<String>,
    pub(crate) external_id: Option<String>,
}

/// What an instance that is suspended does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspend {
    /// It is stopped: its disks stay.
    Stop,
    /// Its memory stays, too.
    Hibernate,
}

impl Config {
    /// Checks and completes; an error is one line that names key and value.
    pub(crate) fn check(self) -> Result<Options, String> {
        let groups = groups(self.name, self.groups)?;
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        if !self.external_id.is_empty() && self.role_arn.is_empty() {
            return Err("external_id: goes with role_arn, which is missing".into());
        }
        if !self.endpoint.is_empty()
            && !["http://", "https://"].iter().any(|scheme| self.endpoint.starts_with(scheme))
        {
            return Err(format!(
                "endpoint = {:?}: must be a URL such as \"https://ec2.example.com\"",
                self.endpoint
            ));
        }
        Ok(Options {
            groups,
            login: Login {
                region: text(self.region),
                profile: text(self.profile),
                config_file: text(self.config_file).map(PathBuf::from),
                credentials_file: text(self.credentials_file).map(PathBuf::from),
                endpoint: text(self.endpoint),
                role_arn: text(self.role_arn),
                external_id: text(self.external_id),
            },
            owner: owner(self.owner)?,
            cool_down: cool_down(self.cool_down.as_deref())?,
            repair: self.repair,
            suspend: suspend(&self.suspend)?,
            queue_url: text(self.queue_url),
        })
    }
}

fn groups(name: String, more: Vec<String>) -> Result<Vec<String>, String> {
    let mut groups: Vec<String> = Vec::new();
    for group in std::iter::once(name).filter(|name| !name.is_empty()).chain(more) {
        if group.is_empty() {
            return Err("groups: an empty name".into());
        }
        if groups.contains(&group) {
            return Err(format!("groups: {group:?} is named twice"));
        }
        groups.push(group);
    }
    match groups.is_empty() {
        true => Err("name: missing: write the name of the Auto Scaling group".into()),
        false => Ok(groups),
    }
}

/// A tag's value has 256 letters.
fn owner(owner: String) -> Result<Option<String>, String> {
    match owner.chars().count() {
        0 => Ok(None),
        1..=256 => Ok(Some(owner)),
        long => Err(format!("owner: {long} letters: at most 256 fit into a tag")),
    }
}

fn suspend(word: &str) -> Result<Option<Suspend>, String> {
    match word {
        "" => Ok(None),
        "stop" => Ok(Some(Suspend::Stop)),
        "hibernate" => Ok(Some(Suspend::Hibernate)),
        other => Err(format!("suspend = {other:?}: must be \"stop\" or \"hibernate\"")),
    }
}

/// Whole seconds or minutes, such as `90s` and `5m`.
fn cool_down(text: Option<&str>) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(COOL_DOWN) };
    let parsed = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "s")) => number.parse().ok(),
        Some((number, "m")) => number.parse().ok().and_then(|minutes: u64| minutes.checked_mul(60)),
        _ => None,
    };
    match parsed {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("cool_down = {text:?}: must be a time from \"1s\" to \"1440m\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Options, String> {
        serde_json::from_str::<Config>(json).expect("readable").check()
    }

    #[test]
    fn gitlab_s_four_keys_are_enough() {
        let options = check(
            r#"{"name": "ci", "profile": "p", "config_file": "/c", "credentials_file": "/k"}"#,
        )
        .expect("fine");
        assert_eq!(options.groups, ["ci"]);
        assert_eq!(options.login.profile.as_deref(), Some("p"));
        assert_eq!(options.login.config_file, Some("/c".into()));
        assert_eq!(options.login.credentials_file, Some("/k".into()));
        assert_eq!((options.cool_down, options.repair), (COOL_DOWN, false));
        assert_eq!((options.owner, options.suspend, options.queue_url), (None, None, None));
    }

    #[test]
    fn groups_keep_their_order() {
        let options = check(r#"{"name": "a", "groups": ["spot-b", "c"]}"#).expect("fine");
        assert_eq!(options.groups, ["a", "spot-b", "c"]);
        assert_eq!(check(r#"{"groups": ["b"]}"#).expect("fine").groups, ["b"]);
    }

    #[test]
    fn times_have_a_unit() {
        let of = |text: &str| cool_down(Some(text));
        assert_eq!(of("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(of("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "m", "0s", "-1s", "1h", "99999999999999999999m", "5ü"] {
            assert!(of(wrong).is_err_and(|error| error.contains("cool_down")), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        for (json, key) in [
            ("{}", "name: missing"),
            (r#"{"name": "a", "groups": ["a"]}"#, "named twice"),
            (r#"{"name": "a", "groups": [""]}"#, "groups: an empty name"),
            (r#"{"name": "a", "suspend": "sleep"}"#, "suspend = \"sleep\""),
            (r#"{"name": "a", "external_id": "x"}"#, "role_arn"),
            (r#"{"name": "a", "endpoint": "localhost"}"#, "endpoint = \"localhost\""),
        ] {
            let error = check(json).expect_err("must fail");
            assert!(error.contains(key), "{json}: {error}");
        }
    }
}
