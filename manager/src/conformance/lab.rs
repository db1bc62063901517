//! Where plugins are started for checks, and what all their processes have said.

use std::path::PathBuf;
use std::time::Duration;

use mayfly_plugin::Settings;
use mayfly_plugin::host::{CallError, Description, Launch, Printed, Probe, StartError};

use super::findings::Findings;
use super::made::Made;
use super::{Check, words};

/// For what takes moments, and may take longer on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that changes by itself.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Unlike a host's own defaults, so that what comes back can be told from them.
const KEEPALIVE: Duration = Duration::from_secs(31);
const TIMEOUT: Duration = Duration::from_secs(601);

/// States of instances on the wire that checks look for.
pub(super) const RUNNING: i32 = 1;
pub(super) const DELETED: i32 = 3;
pub(super) const TIMED_OUT: i32 = 4;
pub(super) const SUSPENDED: i32 = 6;
const LAST_STATE: i32 = 7;

/// What is examined, and how.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The plugin.
    pub(crate) binary: PathBuf,
    /// Its `plugin_config`, JSON.
    pub(crate) config: Vec<u8>,
    /// How many instances may be made; 0 makes and deletes none.
    pub(crate) create: u32,
    /// Deadline of one call.
    pub(crate) call_limit: Duration,
    /// How long an instance may take to run, and to go.
    pub(crate) change_limit: Duration,
}

/// Starts plugins, and keeps what came of them.
pub(super) struct Lab<'a> {
    pub(super) options: &'a Options,
    pub(super) made: &'a Made,
    pub(super) launch: Launch,
    pub(super) settings: Settings,
    pub(super) printed: Vec<Printed>,
    /// Printed on stdout beside a handshake by a plugin that was started directly.
    pub(super) beside_handshake: String,
    /// Errors that were asked for: what the plugin says when it refuses.
    pub(super) errors: Vec<String>,
    /// Name and value of what must not be printed.
    pub(super) secrets: Vec<(String, String)>,
    ids: Result<(), String>,
    states: Result<(), String>,
}

/// A plugin after `Init`.
pub(super) struct Group {
    pub(super) probe: Probe,
    pub(super) about: Description,
}

/// A listed instance: its id, and the number of its state.
pub(super) type Listed = (String, i32);

impl<'a> Lab<'a> {
    pub(super) fn new(options: &'a Options, made: &'a Made) -> Self {
        let mut settings = Settings::default();
        settings.connector.keepalive = KEEPALIVE;
        settings.connector.timeout = TIMEOUT;
        Self {
            options,
            made,
            launch: launch(options, made),
            settings,
            printed: Vec::new(),
            beside_handshake: String::new(),
            errors: Vec::new(),
            secrets: words::secrets(&options.config),
            ids: Ok(()),
            states: Ok(()),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.options.call_limit
    }

    /// Up to the connection.
    pub(super) async fn start(&mut self) -> Result<Probe, StartError> {
        let probe = Probe::start(&self.launch).await?;
        self.printed.push(probe.printed());
        Ok(probe)
    }

    /// Up to `Init`.
    pub(super) async fn group(&mut self) -> Result<Group, String> {
        self.group_with(&self.options.config).await
    }

    /// Up to `Init` with this configuration.
    pub(super) async fn group_with(&mut self, config: &[u8]) -> Result<Group, String> {
        let probe = self.start().await.map_err(|error| error.to_string())?;
        let about = probe.init(config, &self.settings, self.limit()).await;
        about.map(|about| Group { probe, about }).map_err(|error| error.to_string())
    }

    /// The group's list as it came; what is wrong with it is kept.
    pub(super) async fn list(&mut self, probe: &Probe) -> Result<Vec<Listed>, CallError> {
        let listed = probe.update(self.limit()).await?;
        self.look_at(&listed);
        Ok(listed)
    }

    fn look_at(&mut self, listed: &[Listed]) {
        let mut ids: Vec<&str> = listed.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        if self.ids.is_ok() {
            if ids.iter().any(|id| id.is_empty()) {
                self.ids = Err("an instance is listed with an empty id".into());
            } else if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
                self.ids = Err(format!("{} is twice in one list", twice[0]));
            }
        }
        let odd = listed.iter().find(|(_, state)| !(0..=LAST_STATE).contains(state));
        if let (Some((id, state)), true) = (odd, self.states.is_ok()) {
            self.states = Err(format!("{id} is in state {state}"));
        }
    }

    /// Notes what all lists together showed.
    pub(super) fn note_lists(&mut self, findings: &mut Findings<'_>) {
        findings.judge(Check::Ids, self.ids.clone());
        findings.judge(Check::States, self.states.clone());
    }
}

/// How every process of the examination is started. The marker tells its descendants.
pub(super) fn launch(options: &Options, made: &Made) -> Launch {
    Launch::new(&options.binary).env(made.marker().0, made.marker().1)
}

/// Instances that exist, as far as the list says.
pub(super) fn living(listed: &[Listed]) -> Vec<String> {
    let mut living = Vec::new();
    for (id, state) in listed {
        if ![DELETED, TIMED_OUT].contains(state) && !living.contains(id) {
            living.push(id.clone());
        }
    }
    living
}

/// The state of an instance; `None` where it is not listed.
pub(super) fn state_of(listed: &[Listed], id: &str) -> Option<i32> {
    listed.iter().rev().find(|(listed, _)| listed == id).map(|(_, state)| *state)
}
