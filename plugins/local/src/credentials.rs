//! How to log in to instances: what the operator's connector settings say, and ours.
//!
//! The operator's settings win. A user name becomes the instances' user name; a key may
//! log in beside the one that is made per instance, or instead of it with
//! `use_static_credentials`. A password cannot be used: instances take keys only.

use instances::login;
use mayfly_plugin::{ConnectInfo, ConnectorConfig};

use crate::record::Record;

/// The operator's settings, checked.
#[derive(Debug, Default)]
pub(crate) struct Access {
    connector: ConnectorConfig,
    /// The public half of the operator's key.
    pub(crate) operator_key: Option<String>,
}

impl Access {
    /// An error is one line that names key and value.
    pub(crate) fn check(connector: ConnectorConfig) -> Result<Self, String> {
        let operator_key = login::check(&connector, "local instances")?;
        Ok(Self { connector, operator_key })
    }

    /// A name must not promise more than instances have.
    pub(crate) fn check_user(&self, instances_are_root: bool) -> Result<(), String> {
        if self.user_name() == Some("root") && !instances_are_root {
            return Err("connector_config: username = \"root\": instances do not run as root \
                        here; leave it out"
                .into());
        }
        Ok(())
    }

    /// The user name that the operator wants instances to have.
    pub(crate) fn user_name(&self) -> Option<&str> {
        login::user_name(&self.connector)
    }

    /// Whether each instance gets a key pair of its own.
    pub(crate) fn makes_keys(&self) -> bool {
        !self.connector.use_static_credentials
    }

    /// How to connect to an instance.
    pub(crate) fn connect_info(&self, record: &Record) -> ConnectInfo {
        // An instance keeps the name it was made with.
        let user = &record.account.user;
        let mut connector = login::filled(&self.connector, user, login::own_arch());
        // So does its list of keys: a key that the operator set later is not in it.
        if self.operator_key.is_none() || self.operator_key != record.operator_key {
            connector.key = record.client_key.clone().unwrap_or_default().into_bytes();
        }
        ConnectInfo::new(connector)
            .internal(record.address.as_str())
            .external(record.address.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use instances::login::{KEEPALIVE, TIMEOUT};
    use mayfly_plugin::Protocol;

    use super::*;
    use crate::isolation::Isolation;
    use crate::record::Account;

    fn record() -> Record {
        Record {
            id: "local-00000001".into(),
            created_unix_ms: 0,
            isolation: Isolation::Full,
            address: "127.64.0.1:4000".into(),
            account: Account {
                user: "mayfly".into(),
                uid: 60_706,
                gid: 60_706,
                home: "/h".into(),
                shell: "/bin/sh".into(),
            },
            hidden: Vec::new(),
            lease_ms: 1000,
            client_key: Some("OURS".into()),
            operator_key: None,
        }
    }

    fn operators() -> (ConnectorConfig, String) {
        let pair = sshd::KeyPair::generate("").expect("a key");
        let key = pair.private.into_bytes();
        let public = login::public_half(&key).expect("usable").expect("a key");
        (ConnectorConfig { key, ..ConnectorConfig::default() }, public)
    }

    #[test]
    fn without_settings_everything_is_ours() {
        let access = Access::check(ConnectorConfig::default()).expect("fine");
        let info = access.connect_info(&record());
        assert_eq!(info.connector.username, "mayfly");
        assert_eq!(info.connector.key, b"OURS");
        assert_eq!(info.connector.protocol, Some(Protocol::Ssh));
        assert_eq!((info.connector.keepalive, info.connector.timeout), (KEEPALIVE, TIMEOUT));
        assert_eq!(info.internal_addr, "127.64.0.1:4000");
        assert_eq!(info.external_addr, info.internal_addr);
        assert_eq!(info.connector.os, "linux");
    }

    #[test]
    fn settings_win_where_the_instance_knows_them() {
        let (connector, public) = operators();
        let connector =
            ConnectorConfig { keepalive: Duration::from_secs(7), os: "plan9".into(), ..connector };
        let access = Access::check(connector.clone()).expect("fine");
        let known = Record { operator_key: Some(public), ..record() };
        let info = access.connect_info(&known);
        assert_eq!(info.connector.key, connector.key);
        assert_eq!(info.connector.keepalive, Duration::from_secs(7));
        assert_eq!(info.connector.os, "plan9");
        assert_eq!(access.connect_info(&record()).connector.key, b"OURS");
    }

    #[test]
    fn root_is_a_name_for_root_only() {
        let connector = ConnectorConfig { username: "root".into(), ..ConnectorConfig::default() };
        let access = Access::check(connector).expect("may be right");
        assert_eq!(access.check_user(true), Ok(()));
        assert!(access.check_user(false).is_err_and(|refused| refused.contains("root")));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |change: fn(&mut ConnectorConfig)| {
            let mut connector = ConnectorConfig::default();
            change(&mut connector);
            Access::check(connector).expect_err("must fail")
        };
        assert!(with(|c| c.protocol = Some(Protocol::WinRm)).contains("winrm"));
        assert!(with(|c| c.username = "a:b".into()).contains("a:b"));
        assert!(with(|c| c.key = b"nonsense".to_vec()).contains("key_path"));
        assert!(with(|c| c.use_static_credentials = true).contains("use_static_credentials"));
    }
}
