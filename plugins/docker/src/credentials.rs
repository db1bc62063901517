//! How to log in to containers: what the operator's connector settings say, and ours.
//!
//! One key pair is made per start of the plugin and lives in memory only; its public half
//! goes into each container. With `use_static_credentials` there is the operator's key
//! instead. A password cannot be used: instances take keys only.

use instances::login;
use mayfly_plugin::{ConnectInfo, ConnectorConfig};
use sshd::KeyPair;

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
        let operators = login::check(&connector, "containers")?;
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
        login::user_name(&self.connector)
    }

    /// How to connect to an instance that takes this user name, on a machine of this
    /// architecture.
    pub(crate) fn connect_info(&self, user: &str, arch: &str) -> ConnectInfo {
        let mut connector = login::filled(&self.connector, user, arch);
        if let (true, Some(own)) = (connector.key.is_empty(), &self.own) {
            connector.key = own.private.clone().into_bytes();
        }
        ConnectInfo::new(connector)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use instances::login::{KEEPALIVE, TIMEOUT, public_half};
    use mayfly_plugin::Protocol;

    use super::*;

    fn operators_key() -> Vec<u8> {
        KeyPair::generate("").expect("a key").private.into_bytes()
    }

    #[test]
    fn without_settings_everything_is_ours() {
        let access = Access::check(ConnectorConfig::default()).unwrap_or_else(|e| panic!("{e}"));
        let info = access.connect_info("ci", "arm64").connector;
        assert_eq!((info.username.as_str(), info.arch.as_str()), ("ci", "arm64"));
        let half = public_half(&info.key).expect("usable").expect("a key");
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
