//! One supervised plugin, in the fleet's words, with a deadline on every call.

use std::path::Path;
use std::time::Duration;

use mayfly_plugin::host::{CallError, Launch, StartFailure, Supervised, SupervisedStatus};
use mayfly_plugin::{ConnectInfo, InstanceState};
use scheduler::fleet::{AskFailure, InstanceId, Seen};

use super::discovery::{FindError, beside, find_to_run};
use crate::config::Template;

/// Deadlines of the calls. A cloud's API answers in seconds; a call beyond these is lost.
const UPDATE_LIMIT: Duration = Duration::from_secs(60);
const CHANGE_LIMIT: Duration = Duration::from_secs(120);
const CONNECT_INFO_LIMIT: Duration = Duration::from_secs(60);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// From the loss of a plugin's connection to the end of its process.
const END_LIMIT: Duration = Duration::from_secs(1);
/// Further tries of a deletion over which the plugin died.
const DELETE_ATTEMPTS: u32 = 2;

/// Why there is no provider to speak to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// No binary.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not start.
    #[error("{0}")]
    Start(String),
    /// Its group is smaller than what is configured.
    #[error(
        "max_instances {wanted} exceeds the {allowed} that the provider's group allows; lower it, or enlarge the group"
    )]
    TooSmall {
        /// `max_instances`.
        wanted: u32,
        /// The plugin's `max_size`.
        allowed: u32,
    },
}

/// A running provider plugin.
pub(crate) struct Provider {
    supervised: Supervised,
}

impl Provider {
    /// Starts the plugin of this template. `hide` are paths that instances on this
    /// very machine must not see. Does not wait for it.
    pub(crate) async fn start(template: &Template, hide: &[&Path]) -> Result<Self, ProviderError> {
        let name = template.plugin.clone();
        // An installed one is compared with what it was, now and before each start.
        let found = tokio::task::spawn_blocking(move || find_to_run(&name, beside().as_deref()));
        let found = found.await.map_err(|error| ProviderError::Start(error.to_string()))??;
        let mut launch = Launch::new(found.path);
        if let Some(installed) = found.installed {
            launch = launch.only_if(move || installed.check().map_err(|error| error.to_string()));
        }
        for (name, value) in &template.plugin_environment {
            if let Some(value) = value {
                launch = launch.env(name, value);
            }
        }
        if let Ok(hidden) = std::env::join_paths(hide) {
            launch = launch.env("MAYFLY_PLUGIN_HIDE", hidden);
        }
        let config = template.plugin_config.reveal().as_bytes().to_vec();
        let supervised = Supervised::start(launch, config, template.settings.clone());
        Ok(Self { supervised })
    }

    /// Waits for the first start. Returns the plugin's name of its group, and the most
    /// instances that it allows.
    pub(crate) async fn first_start(
        &self,
        max_instances: u32,
    ) -> Result<(String, u32), ProviderError> {
        let mut status = self.supervised.status();
        let decided = status.wait_for(|status| !matches!(status, SupervisedStatus::Starting)).await;
        match decided.as_deref() {
            Ok(SupervisedStatus::Up(plugin)) => {
                let allowed = plugin.info().max_size;
                if max_instances > allowed {
                    return Err(ProviderError::TooSmall { wanted: max_instances, allowed });
                }
                let info = plugin.info();
                tracing::info!(group = info.id, version = info.version, "plugin is up");
                Ok((info.id.clone(), allowed))
            }
            Ok(SupervisedStatus::Down(failure)) => Err(ProviderError::Start(text(failure))),
            _ => Err(ProviderError::Start("the plugin was stopped".into())),
        }
    }

    /// Lists the group.
    pub(crate) async fn list(&self) -> Result<Vec<(InstanceId, Seen)>, CallError> {
        let plugin = self.supervised.plugin("Update", UPDATE_LIMIT).await?;
        let listed = plugin.update(UPDATE_LIMIT).await?;
        Ok(listed.into_iter().map(|i| (InstanceId(i.id), seen(i.state))).collect())
    }

    /// Asks for `n` more instances. Returns how many were accepted, or what is known of a
    /// failure and why it happened.
    pub(crate) async fn create(&self, n: u32) -> Result<u32, (AskFailure, String)> {
        let plugin = self.supervised.plugin("Increase", CHANGE_LIMIT).await;
        let plugin = plugin.map_err(|error| (AskFailure::NotSent, error.to_string()))?;
        plugin.increase(n, CHANGE_LIMIT).await.map_err(|error| {
            let unknown = error.outcome_unknown();
            let failure = if unknown { AskFailure::Silent } else { AskFailure::Heard };
            (failure, error.to_string())
        })
    }

    /// Asks to delete instances; those that were accepted. Deleting twice does no harm: a
    /// plugin that dies over it is asked again once it is back.
    pub(crate) async fn delete(&self, ids: Vec<InstanceId>) -> Result<Vec<InstanceId>, CallError> {
        let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
        let mut attempts = 0..DELETE_ATTEMPTS;
        let deleted = loop {
            let plugin = self.supervised.plugin("Decrease", CHANGE_LIMIT).await?;
            match plugin.decrease(ids.clone(), CHANGE_LIMIT).await {
                Err(CallError::Gone { .. }) if attempts.next().is_some() => {
                    // The connection tells of the end a moment before the process does.
                    let _ = tokio::time::timeout(END_LIMIT, plugin.ended()).await;
                }
                answer => break answer?,
            }
        };
        Ok(deleted.into_iter().map(InstanceId).collect())
    }

    /// How to connect to an instance.
    pub(crate) async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, CallError> {
        let plugin = self.supervised.plugin("ConnectInfo", CONNECT_INFO_LIMIT).await?;
        plugin.connect_info(&id.0, CONNECT_INFO_LIMIT).await
    }

    /// Why the plugin is not up; nothing where it is.
    pub(crate) fn down(&self) -> Option<String> {
        match &*self.supervised.status().borrow() {
            SupervisedStatus::Up(_) => None,
            SupervisedStatus::Down(failure) => {
                Some(failure.to_string().lines().next().unwrap_or_default().to_owned())
            }
            SupervisedStatus::Stopped => Some("it was stopped".into()),
            _ => Some("it is starting".into()),
        }
    }

    /// Ends the plugin. Instances stay.
    pub(crate) async fn stop(&self) {
        self.supervised.stop(SHUTDOWN_LIMIT).await;
    }
}

fn text(failure: &StartFailure) -> String {
    failure.to_string()
}

/// A state that we do not know is one in transition.
fn seen(state: InstanceState) -> Seen {
    match state {
        InstanceState::Running => Seen::Running,
        InstanceState::Deleting | InstanceState::Suspending | InstanceState::Suspended => {
            Seen::Leaving
        }
        InstanceState::Deleted => Seen::Deleted,
        InstanceState::Timeout => Seen::Timeout,
        InstanceState::Creating | InstanceState::Resuming | InstanceState::Unknown(_) => {
            Seen::Coming
        }
        // The contract may learn states; until this does too, they are in transition.
        _ => Seen::Coming,
    }
}
