//! How to log in to instances: what the operator's connector settings say, and ours.

use instances::login;
use mayfly_plugin::{ConnectInfo, ConnectorConfig};

use crate::machine::Login;

/// The user of instances whose user has no other name.
const USER: &str = "mayfly";
/// The operator's settings, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    connector: ConnectorConfig,
    operator_key: Option<String>,
}

impl Access {
    /// An error is one line that names key and value.
    pub(crate) fn check(connector: ConnectorConfig) -> Result<Self, String> {
        login::check_protocol(&connector, "simulated instances")?;
        let operator_key = login::public_half(&connector.key)?;
        Ok(Self { connector, operator_key })
    }

    /// Who logs in.
    pub(crate) fn user(&self) -> &str {
        login::user_name(&self.connector).unwrap_or(USER)
    }

    /// The public half of the operator's key.
    pub(crate) fn operator_key(&self) -> Option<&str> {
        self.operator_key.as_deref()
    }

    /// How to log in to a machine.
    pub(crate) fn connect_info(&self, login: &Login) -> ConnectInfo {
        let mut connector = self.filled(&login.user);
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
        ConnectInfo::new(self.filled(self.user())).internal(&address).external(&address)
    }

    fn filled(&self, user: &str) -> ConnectorConfig {
        login::filled(&self.connector, user, login::own_arch())
    }
}
