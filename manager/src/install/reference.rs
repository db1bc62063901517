//! What `plugin = "aws:1.2"` means: a registry, a repository in it, and a constraint on
//! the version. GitLab's grammar, and registries with a port beside it.

use std::fmt;
use std::str::FromStr;

use super::version::{BadVersion, Constraint};

/// Where plugins are whose reference names no registry, and no group.
pub(crate) const DEFAULT_REGISTRY: &str = "registry.gitlab.com";
const DEFAULT_GROUP: &str = "gitlab-org/fleeting/plugins";
/// Longest text that is looked at; file systems have no longer names.
const MAX_LENGTH: usize = 255;

/// A plugin of a registry. Each part can be part of a path as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host name, with a port or without.
    pub(crate) registry: String,
    /// Path in the registry.
    pub(crate) repository: String,
    pub(crate) constraint: Constraint,
}

/// A text that refers to nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReference {
    /// Its form.
    #[error(
        "{0:?} names no plugin; write aws, aws:1.2, group/plugin, or registry.example.com/group/plugin:1.2.3, in lower case"
    )]
    Form(String),
    /// A digest.
    #[error("{0:?}: a digest is not taken; the lock file remembers that of each version")]
    Digest(String),
    /// Its version.
    #[error("{text:?}: {source}")]
    Version {
        /// The whole text.
        text: String,
        /// What is wrong with its last part.
        source: BadVersion,
    },
}

impl Reference {
    /// Registry and repository: what all versions of a plugin have in common.
    pub(crate) fn plugin(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same plugin, any version.
    pub(crate) fn any(registry: &str, repository: &str) -> Self {
        Self {
            registry: registry.into(),
            repository: repository.into(),
            constraint: Constraint::Latest,
        }
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = || BadReference::Form(text.into());
        if text.contains('@') {
            return Err(BadReference::Digest(text.into()));
        }
        if text.len() > MAX_LENGTH {
            return Err(bad());
        }
        let last = text.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match text[last..].split_once(':') {
            None => (text, "latest"),
            Some((name, tag)) => (&text[..last + name.len()], tag),
        };
        let (registry, repository) = match path.split_once('/') {
            None => (DEFAULT_REGISTRY.to_owned(), format!("{DEFAULT_GROUP}/{path}")),
            Some((first, rest)) if is_host(first) => (first.to_owned(), rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY.to_owned(), path.to_owned()),
        };
        if !is_registry(&registry) || !repository.split('/').all(is_segment) {
            return Err(bad());
        }
        let constraint =
            tag.parse().map_err(|source| BadReference::Version { text: text.into(), source })?;
        Ok(Self { registry, repository, constraint })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.constraint)
    }
}

/// Whether the first part of several is a host rather than a group.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Whether this is a host name or an IPv4 address, with a port or without.
pub(crate) fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

/// A part of a repository's path: never empty, never hidden, never a way up.
fn is_segment(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<u8>| byte.is_some_and(alphanumeric);
    text.bytes().all(|byte| alphanumeric(byte) || b"._-".contains(&byte))
        && ends(text.bytes().next())
        && ends(text.bytes().last())
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_one_meaning() {
        let gitlab = "registry.gitlab.com";
        let cases = [
            ("aws", gitlab, "gitlab-org/fleeting/plugins/aws", "latest"),
            ("aws:latest", gitlab, "gitlab-org/fleeting/plugins/aws", "latest"),
            ("aws:1", gitlab, "gitlab-org/fleeting/plugins/aws", "1"),
            ("aws:1.2", gitlab, "gitlab-org/fleeting/plugins/aws", "1.2"),
            ("aws:1.2.3-rc.1", gitlab, "gitlab-org/fleeting/plugins/aws", "1.2.3-rc.1"),
            ("group/x", gitlab, "group/x", "latest"),
            ("group/sub/my_x.y:2", gitlab, "group/sub/my_x.y", "2"),
            ("host.tld/group/x:1", "host.tld", "group/x", "1"),
            ("host.tld/x", "host.tld", "x", "latest"),
            ("localhost:5000/g/x:1", "localhost:5000", "g/x", "1"),
            ("localhost/x", "localhost", "x", "latest"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000", "x", "latest"),
            (
                "registry.example.com:5000/group/plugin:1.2",
                "registry.example.com:5000",
                "group/plugin",
                "1.2",
            ),
        ];
        for (text, registry, repository, constraint) in cases {
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reference.registry, registry, "{text}");
            assert_eq!(reference.repository, repository, "{text}");
            assert_eq!(reference.constraint.to_string(), constraint, "{text}");
            assert_eq!(reference.to_string().parse(), Ok(reference));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = format!("g/{}", "x".repeat(300));
        let cases = [
            ("", "names no plugin"),
            ("Aws", "lower case"),
            ("aws:>=1", "is no version"),
            ("aws:v1.2.3", "\"v1.2.3\" is no version"),
            ("aws:", "is no version"),
            ("aws@sha256:0123", "a digest is not taken"),
            ("a b", "names no plugin"),
            ("./aws", "names no plugin"),
            ("../aws", "names no plugin"),
            ("g/../x", "names no plugin"),
            ("g//x", "names no plugin"),
            ("/g/x", "names no plugin"),
            ("g/x/", "names no plugin"),
            ("g/.x", "names no plugin"),
            ("g/a..b", "names no plugin"),
            ("host.tld/", "names no plugin"),
            ("host.tld:0/x", "names no plugin"),
            ("host.tld:70000/x", "names no plugin"),
            ("host.tld:+5/x", "names no plugin"),
            ("-host.tld/x", "names no plugin"),
            ("..:1/x", "names no plugin"),
            (long.as_str(), "names no plugin"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
