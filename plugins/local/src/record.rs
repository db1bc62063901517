//! What is written down about one instance when it is made. It never changes afterwards.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::isolation::Isolation;

/// The variable that every process of an instance is started with.
pub(crate) const MARKER: &str = "MAYFLY_INSTANCE";

/// An instance as its files describe it. No `Debug`: it holds private keys.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) created_unix_ms: u64,
    pub(crate) isolation: Isolation,
    /// `address:port` of its SSH server.
    pub(crate) address: String,
    pub(crate) account: Account,
    /// Directories and files that it must not see.
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) lease_ms: u64,
    /// The private key that was made for it, unless the operator forbade that.
    pub(crate) client_key: Option<String>,
    /// The public half of the operator's key, if it may log in.
    pub(crate) operator_key: Option<String>,
}

/// Who an instance's processes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// What the instance's SSH server is told, and nothing more.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServerSettings {
    pub(crate) account: Account,
    pub(crate) instance: String,
    pub(crate) host_key: String,
    pub(crate) trusted_keys: Vec<String>,
}

impl Record {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

impl Account {
    /// The whole environment of an instance's processes: nothing of the plugin's.
    pub(crate) fn environment(&self, instance: &str) -> Vec<(String, String)> {
        const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            pair("PATH", PATH),
            pair("HOME", &self.home.to_string_lossy()),
            pair("USER", &self.user),
            pair("LOGNAME", &self.user),
            pair("SHELL", &self.shell.to_string_lossy()),
            pair("LANG", "C.UTF-8"),
            pair(MARKER, instance),
        ]
    }
}
