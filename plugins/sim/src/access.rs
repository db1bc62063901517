//! How to log in to instances: what the operator's connector settings say, and ours.

use std::time::Duration;

use mayfly_plugin::{ConnectInfo, ConnectorConfig, Protocol};

use crate::machine::Login;

/// The user of instances whose user has no other name.
const USER: &str = "mayfly";
/// fleeting's own defaults, for hosts that send none.
const KEEPALIVE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(600);

/// The operator's settings, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    connector: ConnectorConfig,
    operator_key: Option<String>,
}

impl Access {
    /// An error is one line that names key and value.
    pub(crate) fn check(connector: ConnectorConfig) -> Result<Self, String> {
        if let Some(other) = connector.protocol.filter(|protocol| *protocol != Protocol::Ssh) {
            return Err(format!(
                "connector_config: protocol = {:?}: simulated instances speak ssh only",
                other.as_str()
            ));
        }
        let unusable = |why: String| {
            format!(
                "connector_config: key_path: {why}; use an ed25519 or ECDSA key, or leave it out"
            )
        };
        let operator_key = match std::str::from_utf8(&connector.key) {
            Ok("") => None,
            Ok(pem) => Some(sshd::public_half(pem).map_err(|error| unusable(error.to_string()))?),
            Err(_) => return Err(unusable("the key is not text".into())),
        };
        Ok(Self { connector, operator_key })
    }

    /// Who logs in.
    pub(crate) fn user(&self) -> String {
        match self.connector.username.as_str() {
            "" => USER.to_owned(),
            name => name.to_owned(),
        }
    }

    /// The public half of the operator's key.
    pub(crate) fn operator_key(&self) -> Option<&str> {
        self.operator_key.as_deref()
    }

    /// How to log in to a machine.
    pub(crate) fn connect_info(&self, login: &Login) -> ConnectInfo {
        let mut connector = self.filled();
        connector.username.clone_from(&login.user);
        // An instance keeps the keys that it was made with.
        if self.operator_key.is_none() || self.operator_key != login.operator_key {
            connector.key = login.key.clone().into_bytes();
        }
        ConnectInfo::new(connector).internal(&login.address).external(&login.address)
    }

    /// How to try in vain to log in to an instance that is nothing.
    pub(crate) fn nowhere(&self, number: u64) -> ConnectInfo {
        let [.., b, c] = number.to_be_bytes();
        // The port of the discard service: nobody listens there.
        let address = format!("127.192.{b}.{c}:9");
        ConnectInfo::new(self.filled()).internal(&address).external(&address)
    }

    fn filled(&self) -> ConnectorConfig {
        let mut connector = self.connector.clone();
        connector.protocol = Some(Protocol::Ssh);
        connector.username = self.user();
        let or_ours = |theirs: &mut String, ours: &str| {
            if theirs.is_empty() {
                ours.clone_into(theirs);
            }
        };
        or_ours(&mut connector.os, "linux");
        or_ours(&mut connector.arch, go_arch(std::env::consts::ARCH));
        for (duration, default) in
            [(&mut connector.keepalive, KEEPALIVE), (&mut connector.timeout, TIMEOUT)]
        {
            if duration.is_zero() {
                *duration = default;
            }
        }
        connector
    }
}

/// Go's word for an architecture that Rust names otherwise.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        arch => arch,
    }
}
