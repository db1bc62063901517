//! How to log in to instances: what the operator's connector settings say, and where
//! they are silent, what the script answers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use mayfly_plugin::{ConnectInfo, ConnectorConfig, Protocol};
use serde_json::{Value, json};

use crate::answer::Login;

/// fleeting's own defaults, for hosts that send none.
const KEEPALIVE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(600);
const KEY_LIMIT_BYTES: u64 = 64 * 1024;

/// The operator's settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    connector: ConnectorConfig,
}

impl Access {
    pub(crate) fn new(connector: ConnectorConfig) -> Self {
        Self { connector }
    }

    /// What scripts may know of the settings: no password, no key.
    pub(crate) fn told(&self) -> Value {
        let ours = &self.connector;
        json!({
            "os": ours.os, "arch": ours.arch, "user": ours.username,
            "protocol": ours.protocol.map_or("", Protocol::as_str),
            "has_credentials": self.has_credentials(),
        })
    }

    fn has_credentials(&self) -> bool {
        let ours = &self.connector;
        !ours.key.is_empty() || !ours.password.is_empty() || ours.use_static_credentials
    }

    /// The operator's secrets.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = String> {
        let key = String::from_utf8_lossy(&self.connector.key).into_owned();
        [self.connector.password.clone(), key].into_iter().filter(|secret| !secret.is_empty())
    }

    /// How to connect. An error is one line without secrets.
    pub(crate) fn connect_info(&self, login: &Login) -> Result<ConnectInfo, String> {
        let mut connector = self.connector.clone();
        fill(&mut connector.os, login.os.as_deref(), "linux");
        fill(&mut connector.arch, login.arch.as_deref(), "");
        fill(&mut connector.username, login.user.as_deref(), "");
        if connector.protocol.is_none() {
            let word = login.protocol.as_deref().unwrap_or_default();
            connector.protocol = Protocol::parse(word).map_err(|error| error.to_string())?;
        }
        let is_windows = connector.os == "windows";
        let default = if is_windows { Protocol::WinRm } else { Protocol::Ssh };
        connector.protocol = connector.protocol.or(Some(default));
        connector.protocol_port = connector.protocol_port.or(login.port);
        if !self.has_credentials() {
            connector.password = login.password.clone().unwrap_or_default();
            connector.key = match (&login.key, &login.key_path) {
                (Some(key), _) => key.clone().into_bytes(),
                (None, Some(path)) => read_key(Path::new(path))?,
                (None, None) => Vec::new(),
            };
        }
        if connector.username.is_empty() {
            return Err("nobody says which user: answer user, or set username in \
                        connector_config"
                .into());
        }
        if connector.password.is_empty() && connector.key.is_empty() {
            return Err("nobody says how to log in: answer key, key_path or password, or set \
                        key_path in connector_config"
                .into());
        }
        for (duration, default) in
            [(&mut connector.keepalive, KEEPALIVE), (&mut connector.timeout, TIMEOUT)]
        {
            if duration.is_zero() {
                *duration = default;
            }
        }
        let addresses = [&login.address, &login.external_address];
        let [Some(internal), Some(external)] = [
            addresses.into_iter().flatten().find(|address| !address.is_empty()),
            addresses.into_iter().rev().flatten().find(|address| !address.is_empty()),
        ] else {
            return Err("it has no address yet".into());
        };
        let info = ConnectInfo::new(connector).internal(internal).external(external);
        let expires = login.expires.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s)));
        Ok(match expires {
            Some(at) => info.expires(at),
            None => info,
        })
    }
}

/// The operator's word, else the script's, else the default.
fn fill(field: &mut String, answered: Option<&str>, default: &str) {
    if field.is_empty() {
        *field = answered.filter(|text| !text.is_empty()).unwrap_or(default).to_owned();
    }
}

fn read_key(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("key_path {shown}: must be an absolute path"));
    }
    let metadata = fs::metadata(path).map_err(|error| format!("key_path {shown}: {error}"))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("key_path {shown}: others may read it, run chmod 600 on it"));
    }
    if !metadata.is_file() || metadata.len() > KEY_LIMIT_BYTES {
        return Err(format!("key_path {shown}: is no file of at most {KEY_LIMIT_BYTES} bytes"));
    }
    fs::read(path).map_err(|error| format!("key_path {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            address: Some("10.0.0.1".into()),
            user: Some("ci".into()),
            key: Some("THEIRS".into()),
            ..Login::default()
        }
    }

    #[test]
    fn the_script_fills_what_the_operator_left_out() {
        let info = Access::default().connect_info(&login()).expect("complete");
        assert_eq!(
            (info.connector.username.as_str(), &info.connector.key[..]),
            ("ci", &b"THEIRS"[..])
        );
        assert_eq!(
            (info.internal_addr.as_str(), info.external_addr.as_str()),
            ("10.0.0.1", "10.0.0.1")
        );
        assert_eq!((info.connector.keepalive, info.connector.timeout), (KEEPALIVE, TIMEOUT));
        assert_eq!(info.connector.protocol, Some(Protocol::Ssh));
        let windows = Login { os: Some("windows".into()), ..login() };
        let info = Access::default().connect_info(&windows).expect("complete");
        assert_eq!(info.connector.protocol, Some(Protocol::WinRm));
    }

    #[test]
    fn the_operator_wins() {
        let access = Access::new(ConnectorConfig {
            username: "root".into(),
            key: b"OURS".to_vec(),
            ..ConnectorConfig::default()
        });
        let theirs = Login { password: Some("x".into()), ..login() };
        let info = access.connect_info(&theirs).expect("complete");
        assert_eq!(
            (info.connector.username.as_str(), &info.connector.key[..]),
            ("root", &b"OURS"[..])
        );
        assert!(info.connector.password.is_empty(), "credentials are not mixed");
        assert!(!access.told().to_string().contains("OURS"));
    }

    #[test]
    fn what_is_missing_is_said() {
        for (change, part) in [
            ((|l: &mut Login| l.address = None) as fn(&mut Login), "no address"),
            (|l| l.user = None, "which user"),
            (|l| l.key = None, "how to log in"),
            (|l| l.protocol = Some("telnet".into()), "telnet"),
            (|l| (l.key, l.key_path) = (None, Some("id".into())), "absolute"),
            (|l| (l.key, l.key_path) = (None, Some("/etc/passwd".into())), "chmod 600"),
        ] {
            let mut login = login();
            change(&mut login);
            let complaint = Access::default().connect_info(&login).expect_err(part);
            assert!(complaint.contains(part), "{complaint}");
        }
    }
}
