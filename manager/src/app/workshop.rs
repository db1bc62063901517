//! Builds one runner of each entry: its plugin, its group, its client.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::StartError;
use super::tuner::tuning;
use crate::config::Config;
use crate::connect::{Agents, OwnKey, Preparation};
use crate::gitlab::Client;
use crate::group::{Group, Parts};
use crate::plugin::Provider;
use crate::runner::{Runner, Shared};

/// What runners are built from.
pub(super) struct Workshop {
    pub(super) config: Config,
    pub(super) shared: Shared,
    pub(super) agents: Arc<Agents>,
    pub(super) own_key: OwnKey,
}

impl Workshop {
    /// All runners at once: a plugin that hangs holds no other up. Failures come with the
    /// place of their entry.
    pub(super) async fn build_all(
        self: &Arc<Self>,
    ) -> (Vec<Arc<Runner>>, Vec<(usize, StartError)>) {
        let mut building = JoinSet::new();
        for index in 0..self.config.runners.len() {
            let workshop = Arc::clone(self);
            building.spawn(async move { (index, workshop.build(index).await) });
        }
        let mut built = building.join_all().await;
        built.sort_by_key(|(index, _)| *index);
        let (mut runners, mut failures) = (Vec::new(), Vec::new());
        for (index, result) in built {
            match result {
                Ok(runner) => runners.push(runner),
                Err(error) => failures.push((index, error)),
            }
        }
        (runners, failures)
    }

    pub(super) async fn build(&self, index: usize) -> Result<Arc<Runner>, StartError> {
        let config = &self.config.runners[index];
        let client = Client::new(&config.server, &self.shared.system_id)
            .map_err(|error| StartError::Server(error.to_string()))?;
        let autoscaler = &config.autoscaler;
        let hide = [self.config.config_dir.as_path(), self.config.state_dir.as_path()];
        let provider = Provider::start(autoscaler, &hide).map_err(StartError::Provider)?;
        let max = autoscaler.limits.max_instances;
        let provider_max_size = match provider.first_start(max).await {
            Ok(allowed) => allowed,
            Err(error) => {
                provider.stop().await;
                return Err(StartError::Provider(error));
            }
        };
        let group = Group::new(Parts {
            key: config.key(),
            name: config.name.clone(),
            history: self.shared.history.clone(),
            tuning: tuning(autoscaler),
            provider_max_size,
            provider,
            preparation: Preparation {
                agents: Arc::clone(&self.agents),
                own_key: self.own_key.clone(),
                ready_command: autoscaler.instance_ready_command.clone(),
            },
            use_external_addr: autoscaler.use_external_addr,
            state: self.shared.state.clone(),
            detaching: self.shared.detaching.clone(),
        });
        Ok(Arc::new(Runner::new(config.clone(), client, group, self.shared.clone())))
    }
}
