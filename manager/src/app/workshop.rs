//! Builds runners: an entry's plugin, its group, its client.

use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::reload::tuning;
use crate::config::{self, Template};
use crate::connect::{Agents, OwnKey};
use crate::gitlab::Client;
use crate::group::{Group, Parts, Source};
use crate::plugin::{Provider, ProviderError};
use crate::runner::{Runner, Shared};
use crate::state::GroupRecord;

/// What runners are built from.
pub(super) struct Workshop {
    pub(super) shared: Shared,
    pub(super) agents: Arc<Agents>,
    pub(super) own_key: OwnKey,
    /// Paths that instances on this very machine must not see.
    pub(super) hide: [PathBuf; 2],
}

impl Workshop {
    /// A started plugin. One that does not start is not kept.
    pub(super) async fn source(&self, entry: &config::Runner) -> Result<Source, StartError> {
        let autoscaler = &entry.autoscaler;
        let provider = self.provider(&autoscaler.template).await?;
        match provider.first_start(autoscaler.limits.max_instances).await {
            Ok((id, max_size)) => {
                Ok(Source { provider, template: autoscaler.template.clone(), id, max_size })
            }
            Err(error) => {
                provider.stop().await;
                Err(StartError::Provider(error))
            }
        }
    }

    /// A plugin that is started, and started again, for as long as it takes.
    pub(super) async fn provider(
        &self,
        template: &Template,
    ) -> Result<Arc<Provider>, ProviderError> {
        let hide = self.hide.each_ref().map(PathBuf::as_path);
        Ok(Arc::new(Provider::start(template, &hide).await?))
    }

    /// A group with what the state knows of it.
    pub(super) fn group(&self, key: String, entry: &config::Runner, source: Source) -> Arc<Group> {
        Group::new(Parts {
            key,
            history: self.shared.history.clone(),
            tuning: tuning(entry),
            source,
            agents: Arc::clone(&self.agents),
            own_key: self.own_key.clone(),
            state: self.shared.state.clone(),
            detaching: self.shared.detaching.clone(),
        })
    }

    /// A runner of this group; where one was before, they share the jobs' limit.
    pub(super) fn runner(
        &self,
        entry: &config::Runner,
        group: Arc<Group>,
        before: Option<&Runner>,
    ) -> Result<Arc<Runner>, StartError> {
        let client =
            Client::new(&entry.server, &self.shared.system_id, entry.engine.docker.is_some())
                .map_err(|error| StartError::Server(error.to_string()))?;
        Ok(Arc::new(Runner::new(entry.clone(), client, group, self.shared.clone(), before)))
    }

    /// Writes down what a later process needs to drain a group, should its entry be gone by
    /// then.
    pub(super) async fn write_down(
        &self,
        key: &str,
        entry: &config::Runner,
        source: &Source,
        retired: bool,
    ) {
        let record = GroupRecord {
            runner: entry.key(),
            name: entry.name.clone(),
            url: entry.server.url.clone(),
            ca_certificates: String::from_utf8_lossy(&entry.server.ca_certificates).into(),
            provider_id: source.id.clone(),
            template: source.template.to_text().reveal().into(),
            retired,
        };
        if let Err(error) = self.shared.state.put_group(key, &record).await {
            tracing::error!(%error, "cannot write down what the group is made from");
        }
    }
}
