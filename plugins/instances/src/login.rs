//! What the operator's connector settings must be, and what stands where they are silent.

use std::time::Duration;

use mayfly_plugin::{ConnectorConfig, Protocol};

/// fleeting's own defaults, for hosts that send none.
pub const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a login may take; fleeting's default too.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// Checks settings for instances, called `instances` in messages, that take keys only. The
/// public half of the operator's key; an error is one line that names key and value.
pub fn check(connector: &ConnectorConfig, instances: &str) -> Result<Option<String>, String> {
    check_protocol(connector, instances)?;
    if !connector.username.is_empty() && !is_user_name(&connector.username) {
        return Err(format!(
            "connector_config: username = {:?}: must be a user name such as \"ci\"",
            connector.username
        ));
    }
    let public = public_half(&connector.key)?;
    if connector.use_static_credentials && public.is_none() {
        return Err(format!(
            "connector_config: use_static_credentials needs key_path: {instances} take keys only"
        ));
    }
    Ok(public)
}

/// Refuses other protocols than SSH.
pub fn check_protocol(connector: &ConnectorConfig, instances: &str) -> Result<(), String> {
    match connector.protocol.filter(|protocol| *protocol != Protocol::Ssh) {
        None => Ok(()),
        Some(other) => Err(format!(
            "connector_config: protocol = {:?}: {instances} speak ssh only",
            other.as_str()
        )),
    }
}

/// The public half of the operator's private key, if there is one.
pub fn public_half(key: &[u8]) -> Result<Option<String>, String> {
    let unusable = |why: &str| {
        format!(
            "connector_config: key_path: {why}; use an ed25519 or ECDSA key without a passphrase, \
             or leave it out"
        )
    };
    match std::str::from_utf8(key) {
        Ok("") => Ok(None),
        Ok(pem) => sshd::public_half(pem).map(Some).map_err(|error| unusable(&error.to_string())),
        Err(_) => Err(unusable("the key is not text")),
    }
}

/// The portable names of POSIX.
#[must_use]
pub fn is_user_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with(|first: char| first == '-' || first == '.' || first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The user name that the operator wants.
#[must_use]
pub fn user_name(connector: &ConnectorConfig) -> Option<&str> {
    Some(connector.username.as_str()).filter(|name| !name.is_empty())
}

/// The operator's settings, with ours where they are silent, for `user` on a Linux of this
/// architecture.
#[must_use]
pub fn filled(connector: &ConnectorConfig, user: &str, arch: &str) -> ConnectorConfig {
    let or_ours = |theirs: &str, ours: &str| match theirs {
        "" => ours.to_owned(),
        theirs => theirs.to_owned(),
    };
    let or_default = |duration: Duration, default| match duration {
        Duration::ZERO => default,
        set => set,
    };
    ConnectorConfig {
        os: or_ours(&connector.os, "linux"),
        arch: or_ours(&connector.arch, arch),
        protocol: Some(Protocol::Ssh),
        username: user.to_owned(),
        keepalive: or_default(connector.keepalive, KEEPALIVE),
        timeout: or_default(connector.timeout, TIMEOUT),
        ..connector.clone()
    }
}

/// Go's word for the architecture of this machine.
#[must_use]
pub fn own_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        arch => arch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |change: fn(&mut ConnectorConfig)| {
            let mut connector = ConnectorConfig::default();
            change(&mut connector);
            check(&connector, "boats").expect_err("must fail")
        };
        assert!(with(|c| c.protocol = Some(Protocol::WinRm)).contains("boats speak ssh only"));
        assert!(with(|c| c.username = "a:b".into()).contains("a:b"));
        assert!(with(|c| c.key = b"nonsense".to_vec()).contains("key_path"));
        assert!(with(|c| c.use_static_credentials = true).contains("boats take keys only"));
    }

    #[test]
    fn names_are_portable() {
        assert!(["ci", "_apt", "a.b-c"].into_iter().all(is_user_name));
        let long = "a".repeat(33);
        assert!(!["", "-a", ".a", "1a", "a b", "ä", &long].into_iter().any(is_user_name));
    }
}
