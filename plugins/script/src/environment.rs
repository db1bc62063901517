//! What scripts see of the environment, and which of it must not be repeated in logs.
//!
//! A script gets what the operator configured, the basics, and the families that cloud
//! tools read; nothing else of the host's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use mayfly_plugin::is_for_providers;

/// Beside what each plugin gets of its host.
const ALSO: (&str, &str) = ("TMPDIR", "NOMAD_");
/// A variable with one of these words in its name has a value that is not repeated.
const SECRET_WORDS: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL"];
/// Shorter values are no secrets, and hiding them would make logs unreadable.
const SECRET_MINIMUM_BYTES: usize = 8;

/// The whole environment of scripts. No `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// What of `own` scripts may see: the well-known ones and those in `passed`. `set`
    /// comes on top and wins.
    pub(crate) fn choose(
        own: impl Iterator<Item = (OsString, OsString)>,
        passed: &[String],
        set: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        for name in passed.iter().chain(set.keys()) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("env: {name:?} is no name of a variable"));
            }
        }
        if let Some((name, _)) = set.iter().find(|(_, value)| value.contains('\0')) {
            return Err(format!("env: the value of {name} has a zero byte"));
        }
        let mut variables: BTreeMap<OsString, OsString> =
            own.filter(|(name, _)| is_passed(name, passed)).collect();
        variables.extend(set.iter().map(|(name, value)| (name.into(), value.into())));
        Ok(Self { variables })
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Values that logs and messages must not have.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let is_secret = |name: &OsStr| {
            let name = name.to_string_lossy().to_ascii_uppercase();
            SECRET_WORDS.iter().any(|word| name.contains(word))
        };
        self.variables()
            .filter(move |(name, _)| is_secret(name))
            .filter_map(|(_, value)| value.to_str())
            .filter(|value| value.len() >= SECRET_MINIMUM_BYTES)
    }
}

fn is_passed(name: &OsStr, passed: &[String]) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let (also, family) = ALSO;
    is_for_providers(name)
        || name == also
        || name.starts_with(family)
        || passed.iter().any(|passed| passed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_see_what_is_theirs_and_secrets_are_known() {
        let own = [
            ("PATH", "/bin"),
            ("AWS_SECRET_ACCESS_KEY", "abcdefgh12"),
            ("CI_SERVER_TOKEN", "glrt-very-secret"),
            ("PLUGIN_CLIENT_CERT", "PEM"),
            ("SITE_TOKEN", "site-secret-1"),
        ];
        let own = own.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let set = BTreeMap::from([("PATH".into(), "/opt".into()), ("KEY".into(), "short".into())]);
        let chosen = Environment::choose(own.into_iter(), &["SITE_TOKEN".into()], &set);
        let chosen = chosen.expect("fine");
        let names: Vec<&OsStr> = chosen.variables().map(|(name, _)| name).collect();
        assert_eq!(names, ["AWS_SECRET_ACCESS_KEY", "KEY", "PATH", "SITE_TOKEN"]);
        assert!(chosen.variables().any(|(name, value)| name == "PATH" && value == "/opt"));
        assert_eq!(chosen.secrets().collect::<Vec<_>>(), ["abcdefgh12", "site-secret-1"]);
        let bad = BTreeMap::from([("A=B".into(), String::new())]);
        assert!(Environment::choose(std::iter::empty(), &[], &bad).is_err());
    }
}
