//! How to log in to containers: what the operator's connector settings say, and ours.
//!
//! One key pair is made per start of the plugin and lives in memory only; its public half
//! goes into each container. With `use_static_credentials` there is the operator's key
//! instead. A password cannot be used: instances take keys only.

use std::time::Duration;

use mayfly_plugin::{ConnectInfo, ConnectorConfig, Protocol};
use sshd::KeyPair;

/// fleeting's own defaults, for hosts that send none.
const KEEPALIVE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(600);

/// The operator's settings, checked, and the key of this start.
pub(crate) struct Access {
    connector: ConnectorConfig,
    own: Option<KeyPair>,
    /// Lines of `authorized_keys`.
    trusted: String,
}

impl Access {
    /// An error is one line that names key and value.
    pub(crate) fn check(connector: ConnectorConfig) -> Result<Self, String> {
        if let Some(other) = connector.protocol.filter(|protocol| *protocol != Protocol::Ssh) {
            return Err(format!(
                "connector_config: protocol = {:?}: containers speak ssh only",
                other.as_str()
            ));
        }
        if !connector.username.is_empty() && !is_user_name(&connector.username) {
            return Err(format!(
                "connector_config: username = {:?}: must be a user name such as \"ci\"",
                connector.username
            ));
        }
        let operators = match connector.key.is_empty() {
            true => None,
            false => Some(public_half(&connector.key)?),
        };
        if connector.use_static_credentials && operators.is_none() {
            return Err("connector_config: use_static_credentials needs key_path: containers \
                        take keys only"
                .into());
        }
        let own = match connector.use_static_credentials {
            true => None,
            false => Some(KeyPair::generate("mayfly").map_err(|error| error.to_string())?),
        };
        let lines = own.as_ref().map(|pair| pair.public.clone()).into_iter().chain(operators);
        let trusted = lines.map(|line| line + "\n").collect();
        Ok(Self { connector, own, trusted })
    }

    /// Who may log in, as `authorized_keys`.
    pub(crate) fn trusted(&self) -> &str {
        &self.trusted
    }

    /// The user name that the operator wants.
    pub(crate) fn user_name(&self) -> Option<&str> {
        Some(self.connector.username.as_str()).filter(|name| !name.is_empty())
    }

    /// How to connect to an instance that takes this user name, on a machine of this
    /// architecture.
    pub(crate) fn connect_info(&self, user: &str, arch: &str) -> ConnectInfo {
        let mut connector = self.connector.clone();
        let or_ours = |theirs: &str, ours: &str| match theirs {
            "" => ours.to_owned(),
            theirs => theirs.to_owned(),
        };
        connector.os = or_ours(&connector.os, "linux");
        connector.arch = or_ours(&connector.arch, arch);
        connector.protocol = Some(Protocol::Ssh);
        connector.username = user.to_owned();
        if let (true, Some(own)) = (connector.key.is_empty(), &self.own) {
            connector.key = own.private.clone().into_bytes();
        }
        connector.keepalive = or_default(connector.keepalive, KEEPALIVE);
        connector.timeout = or_default(connector.timeout, TIMEOUT);
        ConnectInfo::new(connector)
    }
}

fn or_default(duration: Duration, default: Duration) -> Duration {
    match duration {
        Duration::ZERO => default,
        set => set,
    }
}

fn public_half(key: &[u8]) -> Result<String, String> {
    let unusable = |why: &str| {
        format!(
            "connector_config: key_path: {why}; use an ed25519 or ECDSA key without a passphrase, \
             or leave it out"
        )
    };
    let pem = std::str::from_utf8(key).map_err(|_| unusable("the key is not text"))?;
    sshd::public_half(pem).map_err(|error| unusable(&error.to_string()))
}

/// The portable names of POSIX.
pub(crate) fn is_user_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with(|first: char| first == '-' || first == '.' || first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators_key() -> Vec<u8> {
        KeyPair::generate("").expect("a key").private.into_bytes()
    }

    #[test]
    fn without_settings_everything_is_ours() {
        let access = Access::check(ConnectorConfig::default()).unwrap_or_else(|e| panic!("{e}"));
        let info = access.connect_info("ci", "arm64").connector;
        assert_eq!((info.username.as_str(), info.arch.as_str()), ("ci", "arm64"));
        let half = public_half(&info.key).expect("a key");
        assert!(access.trusted().starts_with(half.split(" mayfly").next().expect("a part")));
        assert_eq!((info.keepalive, info.timeout), (KEEPALIVE, TIMEOUT));
        assert_eq!((info.os.as_str(), info.protocol), ("linux", Some(Protocol::Ssh)));
    }

    #[test]
    fn the_operator_s_settings_win() {
        let connector = ConnectorConfig {
            key: operators_key(),
            keepalive: Duration::from_secs(7),
            arch: "riscv".into(),
            ..ConnectorConfig::default()
        };
        let access = Access::check(connector.clone()).unwrap_or_else(|e| panic!("{e}"));
        let info = access.connect_info("ci", "arm64").connector;
        assert_eq!((info.key, info.keepalive), (connector.key.clone(), connector.keepalive));
        assert_eq!(info.arch, "riscv");
        assert_eq!(access.trusted().lines().count(), 2);

        let static_only = ConnectorConfig { use_static_credentials: true, ..connector };
        let access = Access::check(static_only).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(access.trusted().lines().count(), 1);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |change: fn(&mut ConnectorConfig)| {
            let mut connector = ConnectorConfig::default();
            change(&mut connector);
            Access::check(connector).err().expect("must fail")
        };
        assert!(with(|c| c.protocol = Some(Protocol::WinRm)).contains("winrm"));
        assert!(with(|c| c.username = "a:b".into()).contains("a:b"));
        assert!(with(|c| c.key = b"nonsense".to_vec()).contains("key_path"));
        assert!(with(|c| c.use_static_credentials = true).contains("use_static_credentials"));
    }
}
