//! GitLab's dummy plugin at three times, and how it behaves at each.

use std::path::PathBuf;

use mayfly_plugin::{ConnectorConfig, InstanceState};

use super::program::Program;

/// One version of the dummy plugin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dummy {
    folder: &'static str,
    /// Date and commit of GitLab's library.
    pub(super) library: &'static str,
    /// `plugin_config` with seven instances at most, all of whose calls work.
    pub(super) config: &'static str,
    /// The last state of a new instance.
    pub(super) made: InstanceState,
    /// The last state of a deleted instance.
    pub(super) deleted: InstanceState,
    /// Whether it knows Suspend and Resume.
    pub(super) suspends: bool,
    /// Whether it knows Heartbeat.
    pub(super) has_heartbeat: bool,
    /// Address of every instance.
    pub(super) address: &'static str,
    /// What it makes of the operator's connector settings.
    pub(super) alter: fn(&mut ConnectorConfig),
}

/// All calls, go-plugin 1.8.
pub(super) const OF_2026: Dummy = Dummy {
    folder: "dummy-2026-06-30",
    library: "2026-06-30 (`ef4ba33`)",
    config: r#"{"MaxSize": 7, "Suspendable": true}"#,
    made: InstanceState::Running,
    deleted: InstanceState::Deleted,
    suspends: true,
    has_heartbeat: true,
    address: "",
    alter: |_| {},
};

/// No Heartbeat, Suspend, Resume; go-plugin 1.6.
pub(super) const OF_2025: Dummy = Dummy {
    folder: "dummy-2025-03-31",
    library: "2025-03-31 (`30f1dda`)",
    config: r#"{"MaxSize": 7, "SimulateDeleting": true}"#,
    made: InstanceState::Creating,
    deleted: InstanceState::Deleted,
    suspends: false,
    has_heartbeat: false,
    address: "",
    alter: |_| {},
};

/// No Shutdown either, no port in connector settings; go-plugin 1.4.
pub(super) const OF_2023: Dummy = Dummy {
    folder: "dummy-2023-06-22",
    library: "2023-06-22 (`1feff9d`)",
    config: r#"{"MaxSize": 7}"#,
    made: InstanceState::Creating,
    deleted: InstanceState::Deleting,
    suspends: false,
    has_heartbeat: false,
    address: "127.0.0.1",
    alter: |connector| {
        connector.protocol_port = None;
        connector.key = b"dummy".to_vec();
    },
};

/// The newest first.
pub(super) const ALL: [Dummy; 3] = [OF_2026, OF_2025, OF_2023];

impl Dummy {
    /// The plugin; `None`, and told, where there is no Go.
    pub(super) fn build(self) -> Option<PathBuf> {
        const PACKAGE: &str = "gitlab.com/gitlab-org/fleeting/fleeting/plugin/fleeting-plugin-dummy/cmd/fleeting-plugin-dummy";
        let name = "fleeting-plugin-dummy";
        Program { folder: self.folder, package: PACKAGE, name, flags: &[] }.build()
    }
}
