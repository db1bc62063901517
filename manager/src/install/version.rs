//! Versions of plugins, and which of them a reference asks for: GitLab's rules.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A text that is neither a version nor a range of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version; write latest, 1, 1.2 or 1.2.3")]
pub(crate) struct BadVersion(pub(crate) String);

/// `MAJOR.MINOR.PATCH`, with or without `-pre.release`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    numbers: [u64; 3],
    pre_release: Vec<Identifier>,
}

/// Numbers come before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

/// Which versions are good enough. Pre-releases are taken only by their whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Constraint {
    /// Any; the newest wins.
    Latest,
    /// Those that begin with these one or two numbers.
    Range(Vec<u64>),
    /// This one.
    Exact(Version),
}

impl Constraint {
    pub(crate) fn allows(&self, version: &Version) -> bool {
        match self {
            Self::Exact(wanted) => wanted == version,
            _ if version.is_pre_release() => false,
            Self::Latest => true,
            Self::Range(numbers) => version.numbers.starts_with(numbers),
        }
    }
}

impl FromStr for Constraint {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(version) = text.parse() {
            return Ok(Self::Exact(version));
        }
        let numbers: Option<Vec<u64>> = text.split('.').map(number).collect();
        numbers
            .filter(|numbers| numbers.len() < 3)
            .map(Self::Range)
            .ok_or_else(|| BadVersion(text.into()))
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Range(numbers) => f.write_str(&joined(numbers)),
            Self::Exact(version) => version.fmt(f),
        }
    }
}

impl Version {
    pub(crate) fn is_pre_release(&self) -> bool {
        !self.pre_release.is_empty()
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.into());
        let (numbers, pre_release) = match text.split_once('-') {
            None => (text, None),
            Some((numbers, pre_release)) => (numbers, Some(pre_release)),
        };
        let numbers: Option<Vec<u64>> = numbers.split('.').map(number).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(bad)?;
        let pre_release: Option<Vec<_>> =
            pre_release.map_or(Some(Vec::new()), |text| text.split('.').map(identifier).collect());
        Ok(Self { numbers, pre_release: pre_release.ok_or_else(bad)? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.numbers))?;
        for (index, identifier) in self.pre_release.iter().enumerate() {
            f.write_str(if index == 0 { "-" } else { "." })?;
            match identifier {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Text(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

impl Ord for Version {
    /// A pre-release sorts before its release.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |version: &Self| (version.numbers, !version.is_pre_release());
        key(self).cmp(&key(other)).then_with(|| self.pre_release.cmp(&other.pre_release))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A number in its only form, so that a text and its version are the same directory.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

fn identifier(text: &str) -> Option<Identifier> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match number(text) {
        Some(number) => Some(Identifier::Number(number)),
        None if !text.is_empty() && text.chars().all(plain) => Some(Identifier::Text(text.into())),
        None => None,
    }
}

fn joined(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn versions_sort_as_gitlab_sorts_them() {
        let ascending = [
            "0.9.10",
            "1.0.0-1",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0-RC",
            "1.0.0-rc",
            "1.0.0-rc.1",
            "1.0.0-rc.1.x",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0-a-b",
            "2.0.0",
        ];
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        for text in ascending {
            assert_eq!(version(text).to_string(), text);
        }
    }

    #[test]
    fn the_newest_that_a_constraint_allows() {
        let installed = ["1.2.3", "1.3.0", "1.4.0-rc.1", "2.0.0"];
        let cases = [
            ("latest", Some("2.0.0")),
            ("1", Some("1.3.0")),
            ("1.2", Some("1.2.3")),
            ("1.2.3", Some("1.2.3")),
            ("1.4.0-rc.1", Some("1.4.0-rc.1")),
            ("1.4", None),
            ("1.4.0", None),
            ("3", None),
            ("1.2.30", None),
        ];
        for (text, expected) in cases {
            let constraint: Constraint = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(constraint.to_string(), text);
            let allowed = installed.map(version).into_iter().filter(|v| constraint.allows(v)).max();
            assert_eq!(allowed, expected.map(version), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "v1.2.3",
            ">=1",
            "^1",
            "1.",
            "1..2",
            "01",
            "1.2.3.4",
            "1.2.3-",
            "1.2.3-a..b",
            "1.2.3-ä",
            "1.2.3+build",
            "1-rc",
            "1.2-rc",
            "-1",
            "Latest",
            "99999999999999999999",
            "1.2.3/..",
            " 1",
        ] {
            let error = text.parse::<Constraint>().expect_err(text).to_string();
            assert!(error.contains("1.2.3") && error.contains("is no version"), "{error}");
        }
    }
}
