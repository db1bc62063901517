//! What an entry's instances are made from: the plugin, its configuration, and how to log
//! in. Another template makes other instances.
//!
//! It can be kept as text: a group whose entry is gone, or changed, is still to be drained
//! by a later process. That text holds what the configuration holds, secrets too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use mayfly_plugin::{Protocol, Settings};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The template of an entry's instances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    pub(crate) plugin: String,
    /// `plugin_config` as JSON.
    pub(crate) plugin_config: Secret,
    pub(crate) settings: Settings,
    pub(crate) use_external_addr: bool,
    /// Where jobs run in containers, the daemon that an instance must have, as the instance
    /// sees it; empty is its own.
    pub(crate) docker_host: Option<String>,
    /// Variables of this process's environment that the plugin gets beside the usual, as far
    /// as it has them.
    pub(crate) plugin_environment: BTreeMap<OsString, Option<OsString>>,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        // Values of the environment are another process's tomorrow: their names count.
        self.plugin == other.plugin
            && self.plugin_config == other.plugin_config
            && self.settings.connector == other.settings.connector
            && self.use_external_addr == other.use_external_addr
            && self.docker_host == other.docker_host
            && self.plugin_environment.keys().eq(other.plugin_environment.keys())
    }
}

/// The text's shape.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    plugin: String,
    plugin_config: String,
    plugin_environment: Vec<String>,
    use_external_addr: bool,
    docker_host: Option<String>,
    os: String,
    arch: String,
    protocol: Option<String>,
    protocol_port: Option<u16>,
    username: String,
    password: String,
    key: String,
    use_static_credentials: bool,
    keepalive_ms: u64,
    timeout_ms: u64,
}

impl Template {
    /// As text, to be read by a later process.
    pub(crate) fn to_text(&self) -> Secret {
        let connector = &self.settings.connector;
        let names = self.plugin_environment.keys();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kept = Kept {
            plugin: self.plugin.clone(),
            plugin_config: self.plugin_config.reveal().into(),
            plugin_environment: names.map(|name| name.to_string_lossy().into_owned()).collect(),
            use_external_addr: self.use_external_addr,
            docker_host: self.docker_host.clone(),
            os: connector.os.clone(),
            arch: connector.arch.clone(),
            protocol: connector.protocol.map(|protocol| protocol.as_str().to_owned()),
            protocol_port: connector.protocol_port,
            username: connector.username.clone(),
            password: connector.password.clone(),
            key: String::from_utf8_lossy(&connector.key).into_owned(),
            use_static_credentials: connector.use_static_credentials,
            keepalive_ms: millis(connector.keepalive),
            timeout_ms: millis(connector.timeout),
        };
        Secret::new(serde_json::to_string(&kept).unwrap_or_default())
    }

    /// What an earlier process kept.
    pub(crate) fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        let kept: Kept = serde_json::from_str(text)?;
        let mut settings = Settings::default();
        let connector = &mut settings.connector;
        connector.os = kept.os;
        connector.arch = kept.arch;
        let word = kept.protocol.unwrap_or_default();
        connector.protocol = Protocol::parse(&word).ok().flatten();
        connector.protocol_port = kept.protocol_port;
        connector.username = kept.username;
        connector.password = kept.password;
        connector.key = kept.key.into_bytes();
        connector.use_static_credentials = kept.use_static_credentials;
        connector.keepalive = Duration::from_millis(kept.keepalive_ms);
        connector.timeout = Duration::from_millis(kept.timeout_ms);
        Ok(Self {
            plugin: kept.plugin,
            plugin_config: Secret::new(kept.plugin_config),
            settings,
            use_external_addr: kept.use_external_addr,
            docker_host: kept.docker_host,
            plugin_environment: environment(&kept.plugin_environment),
        })
    }
}

/// The variables of these names, as this process has them.
pub(super) fn environment(names: &[String]) -> BTreeMap<OsString, Option<OsString>> {
    names.iter().map(|name| (name.into(), std::env::var_os(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_makes_the_same_instances() {
        let mut template = Template {
            plugin: "local".into(),
            plugin_config: Secret::new(r#"{"a":1}"#),
            use_external_addr: true,
            docker_host: Some(String::new()),
            plugin_environment: environment(&["PATH".into(), "NOBODY_SETS_THIS".into()]),
            ..Template::default()
        };
        let connector = &mut template.settings.connector;
        connector.protocol = Some(Protocol::Ssh);
        connector.key = b"-----BEGIN".into();
        connector.timeout = Duration::from_millis(1500);
        let text = template.to_text();
        assert!(Template::from_text(text.reveal()).expect("read") == template);
        template.docker_host = None;
        assert!(Template::from_text(text.reveal()).expect("read") != template);
        template.docker_host = Some(String::new());
        template.settings.connector.username = "root".into();
        assert!(Template::from_text(text.reveal()).expect("read") != template);
        assert!(Template::from_text("nonsense").is_err());
    }
}
