//! How to log in to an instance: what the operator's connector settings say, and ours.
//!
//! SSH goes by EC2 Instance Connect: a key that AWS lets in for a minute, made for each
//! answer or the operator's. WinRM goes by the password that Windows made at its first
//! start. With `use_static_credentials` nothing is asked of AWS but addresses.

use instances::login::{KEEPALIVE, TIMEOUT};
use mayfly_plugin::{ConnectInfo, ConnectorConfig, Error, Protocol};
use russh::keys::PrivateKey;
use sshd::KeyPair;

use crate::cloud::Cloud;
use crate::machines::{self, Machine};
use crate::password;

/// The operator's settings, checked.
pub(crate) struct Access {
    connector: ConnectorConfig,
    key: Option<PrivateKey>,
}

impl Access {
    /// An error is one line that names the key.
    pub(crate) fn check(connector: ConnectorConfig) -> Result<Self, String> {
        let key = match (connector.key.as_slice(), connector.use_static_credentials) {
            // What logs in to an image is between it and the operator.
            (b"", _) | (_, true) => None,
            (pem, false) => Some(read(pem)?),
        };
        Ok(Self { connector, key })
    }

    /// The credentials and addresses of one instance.
    pub(crate) async fn connect_info(
        &self,
        cloud: &Cloud,
        id: &str,
        machine: &Machine,
    ) -> Result<ConnectInfo, Error> {
        let mut connector = filled(&self.connector, machine);
        let mut expires = None;
        if !connector.use_static_credentials {
            match connector.protocol {
                Some(Protocol::WinRm | Protocol::WinRmHttps) => {
                    if connector.password.is_empty() {
                        connector.password = self.windows_password(cloud, id).await?;
                    }
                }
                _ => {
                    let (private, public) = self.key_pair()?;
                    let user = &connector.username;
                    expires = Some(machines::send_key(cloud, id, machine, user, &public).await?);
                    connector.key = private;
                }
            }
        }
        let mut info = ConnectInfo::new(connector)
            .internal(machine.internal.as_deref().unwrap_or_default())
            .external(machine.external.as_deref().unwrap_or_default());
        if let Some(expires) = expires {
            info = info.expires(expires);
        }
        Ok(info)
    }

    /// The private half as PEM, and the public half as a line.
    fn key_pair(&self) -> Result<(Vec<u8>, String), Error> {
        match &self.key {
            Some(key) => {
                let public = key.public_key().to_openssh();
                let public = public.map_err(|error| Error::new(format!("key_path: {error}")))?;
                Ok((self.connector.key.clone(), public))
            }
            None => {
                let pair = KeyPair::generate("mayfly");
                let pair =
                    pair.map_err(|error| Error::new(format!("cannot make a key: {error}")))?;
                Ok((pair.private.into_bytes(), pair.public))
            }
        }
    }

    async fn windows_password(&self, cloud: &Cloud, id: &str) -> Result<String, Error> {
        let Some(key) = &self.key else {
            return Err("connector_config: WinRM needs password, or key_path with the private \
                        half of the instances' key pair"
                .into());
        };
        let data = machines::password_data(cloud, id).await?;
        if data.is_empty() {
            return Err(format!(
                "instance {id} has no password yet: Windows makes it in its first minutes, if \
                 the image is set up so and has a key pair"
            )
            .into());
        }
        password::decrypt(key, &data)
            .map_err(|why| Error::new(format!("the password of instance {id}: {why}")))
    }
}

fn read(pem: &[u8]) -> Result<PrivateKey, String> {
    let unusable = |why: &str| {
        format!("connector_config: key_path: {why}; use an RSA or ed25519 key without passphrase")
    };
    let text = std::str::from_utf8(pem).map_err(|_| unusable("the key is not text"))?;
    let key = russh::keys::decode_secret_key(text, None);
    key.map_err(|error| unusable(&error.to_string()))
}

/// The operator's settings, with what AWS knows where they are silent.
fn filled(connector: &ConnectorConfig, machine: &Machine) -> ConnectorConfig {
    let or = |theirs: &str, ours: &str| match theirs {
        "" => ours.to_owned(),
        theirs => theirs.to_owned(),
    };
    let os = or(&connector.os, machine.os);
    let (user, protocol) = match os.as_str() {
        "windows" => ("Administrator", Protocol::WinRm),
        _ => ("ec2-user", Protocol::Ssh),
    };
    let or_default = |set: std::time::Duration, default| if set.is_zero() { default } else { set };
    ConnectorConfig {
        arch: or(&connector.arch, machine.arch),
        protocol: connector.protocol.or(Some(protocol)),
        username: or(&connector.username, user),
        keepalive: or_default(connector.keepalive, KEEPALIVE),
        timeout: or_default(connector.timeout, TIMEOUT),
        os,
        ..connector.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::Power;

    fn machine(os: &'static str) -> Machine {
        Machine {
            power: Power::Running,
            group: None,
            want: None,
            zone: None,
            internal: Some("10.0.0.1".into()),
            external: None,
            os,
            arch: "arm64",
        }
    }

    #[test]
    fn silence_is_filled_by_what_aws_knows() {
        let linux = filled(&ConnectorConfig::default(), &machine("linux"));
        assert_eq!((linux.os.as_str(), linux.arch.as_str()), ("linux", "arm64"));
        assert_eq!((linux.username.as_str(), linux.protocol), ("ec2-user", Some(Protocol::Ssh)));
        assert_eq!((linux.keepalive, linux.timeout), (KEEPALIVE, TIMEOUT));
        let windows = filled(&ConnectorConfig::default(), &machine("windows"));
        assert_eq!(
            (windows.username.as_str(), windows.protocol),
            ("Administrator", Some(Protocol::WinRm))
        );
    }

    #[test]
    fn the_operator_s_settings_win() {
        let connector = ConnectorConfig {
            username: "ubuntu".into(),
            protocol: Some(Protocol::Ssh),
            os: "windows".into(),
            arch: "amd64".into(),
            ..ConnectorConfig::default()
        };
        let filled = filled(&connector, &machine("linux"));
        assert_eq!(
            (filled.username.as_str(), filled.protocol, filled.arch.as_str()),
            ("ubuntu", Some(Protocol::Ssh), "amd64")
        );
    }

    #[test]
    fn a_key_that_cannot_be_read_is_refused_unless_it_is_only_handed_on() {
        let connector = ConnectorConfig { key: b"nonsense".into(), ..ConnectorConfig::default() };
        let error = Access::check(connector.clone()).err().expect("must fail");
        assert!(error.contains("key_path"), "{error}");
        let fixed = ConnectorConfig { use_static_credentials: true, ..connector };
        assert!(Access::check(fixed).is_ok());
    }

    #[test]
    fn keys_are_made_for_each_answer_or_are_the_operator_s() {
        let made = |access: &Access| access.key_pair().unwrap_or_else(|error| panic!("{error}"));
        let access = Access::check(ConnectorConfig::default()).unwrap_or_else(|e| panic!("{e}"));
        let (one, public) = made(&access);
        assert!(public.starts_with("ssh-ed25519 "), "{public}");
        assert_ne!(one, made(&access).0);
        let connector = ConnectorConfig { key: one.clone(), ..ConnectorConfig::default() };
        let access = Access::check(connector).unwrap_or_else(|error| panic!("{error}"));
        let (private, half) = made(&access);
        assert_eq!(private, one);
        assert_eq!(half.split(' ').nth(1), public.split(' ').nth(1));
    }
}
