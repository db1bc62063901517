//! The composition root: a configuration becomes an app, the app runs, the app ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commands::Exit;
use crate::config::{self, Config};
use crate::connect::{Agents, OwnKey, Preparation};
use crate::events::Events;
use crate::gitlab::Client;
use crate::group::{Group, Parts};
use crate::plugin::{Provider, ProviderError};
use crate::runner::{Runner, Shared};
use crate::shutdown::{Ending, Signals};
use crate::state::{State, StateError};

/// How long jobs may take to stop once they were told to.
const ABORT_LIMIT: Duration = Duration::from_secs(30);

/// Why the manager cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The manager's own SSH key cannot be used.
    #[error("the manager's own SSH key: {0}")]
    Key(std::io::Error),
    /// No connection to a job server can be made at all.
    #[error("{0}")]
    Server(String),
    /// No entry's plugin can be used.
    #[error("{0}")]
    Provider(ProviderError),
}

/// A manager that serves its runners.
pub(crate) struct App {
    pub(crate) shared: Shared,
    pub(crate) groups: Vec<Arc<Group>>,
    tasks: TaskTracker,
    shutdown_timeout: Duration,
    delete_instances: Vec<bool>,
}

impl App {
    /// Builds everything and begins to ask for jobs. An entry whose plugin does not start
    /// is left out as long as another's does.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let state = State::open(&config.state_dir)?;
        let own_key =
            OwnKey::read_or_make(&config.state_dir.join("ssh_key")).map_err(StartError::Key)?;
        let shared = Shared {
            state,
            events: Events::default(),
            permits: Arc::new(Semaphore::new(config.concurrent as usize)),
            check_interval: config.check_interval,
            system_id: config.system_id.clone(),
            jobs: TaskTracker::new(),
            draining: CancellationToken::new(),
            detaching: CancellationToken::new(),
            aborting: CancellationToken::new(),
        };
        let mut app = Self {
            shared,
            groups: Vec::new(),
            tasks: TaskTracker::new(),
            shutdown_timeout: config.shutdown_timeout,
            delete_instances: Vec::new(),
        };
        let agents = Arc::new(Agents::default());
        let mut failure = None;
        for runner in &config.runners {
            match app.start_runner(runner, &config, &agents, &own_key).await {
                Ok(()) => {}
                Err(StartError::Provider(error)) if config.runners.len() > 1 => {
                    tracing::error!(runner = runner.name, %error, "this runner is left out");
                    failure = Some(StartError::Provider(error));
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if app.groups.is_empty() => Err(error),
            _ => {
                app.tasks.close();
                Ok(app)
            }
        }
    }

    async fn start_runner(
        &mut self,
        config: &config::Runner,
        whole: &Config,
        agents: &Arc<Agents>,
        own_key: &OwnKey,
    ) -> Result<(), StartError> {
        let client = Client::new(&config.server, &self.shared.system_id)
            .map_err(|error| StartError::Server(error.to_string()))?;
        let autoscaler = &config.autoscaler;
        let hide = [whole.config_dir.as_path(), whole.state_dir.as_path()];
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
            limits: scheduler::Limits { provider_max_size, ..autoscaler.limits.clone() },
            schedule: autoscaler.schedule.clone(),
            provider,
            preparation: Preparation {
                agents: Arc::clone(agents),
                own_key: own_key.clone(),
                ready_command: autoscaler.instance_ready_command.clone(),
            },
            use_external_addr: autoscaler.use_external_addr,
            update_interval: autoscaler.update_interval,
            update_interval_when_expecting: autoscaler.update_interval_when_expecting,
            state: self.shared.state.clone(),
        });
        self.tasks.spawn(Arc::clone(&group).control());
        let runner =
            Arc::new(Runner::new(config.clone(), client, Arc::clone(&group), self.shared.clone()));
        runner.recover();
        let verifier = Arc::clone(&runner);
        self.tasks.spawn(async move { verifier.verify().await });
        self.tasks.spawn(runner.feed());
        self.groups.push(group);
        self.delete_instances.push(autoscaler.delete_instances_on_shutdown);
        Ok(())
    }

    /// Serves until a signal, then ends as it says.
    pub(crate) async fn run(self, mut signals: Signals) -> Exit {
        tracing::info!(runners = self.groups.len(), "mayfly is up");
        let mut ending = None;
        loop {
            let wish = match ending {
                None => signals.next().await,
                Some(_) => {
                    tokio::select! {
                        wish = signals.next() => wish,
                        () = self.jobs_end(ending) => break,
                    }
                }
            };
            let now = Ending::then(ending, wish);
            if Some(now) != ending {
                tracing::info!(?now, "ending");
            }
            ending = Some(now);
            match now {
                Ending::Drain => self.shared.draining.cancel(),
                Ending::Detach => {
                    self.shared.draining.cancel();
                    self.shared.detaching.cancel();
                }
                Ending::Abort => {
                    self.shared.draining.cancel();
                    self.shared.aborting.cancel();
                }
                Ending::Now => return Exit::Interrupted,
            }
        }
        let delete = ending != Some(Ending::Detach);
        self.end(delete).await;
        if ending == Some(Ending::Abort) { Exit::Interrupted } else { Exit::Success }
    }

    /// Waits for the jobs, as long as the kind of ending allows.
    async fn jobs_end(&self, ending: Option<Ending>) {
        self.shared.jobs.close();
        match ending {
            // Jobs that wait for a slot are brought to an agent first: only those that
            // begun can be left alone.
            Some(Ending::Detach) => {
                if tokio::time::timeout(self.shutdown_timeout, self.shared.jobs.wait())
                    .await
                    .is_err()
                {
                    tracing::warn!(
                        "some jobs did not get a slot in time, they are given back as interrupted"
                    );
                    self.shared.aborting.cancel();
                    let _ = tokio::time::timeout(ABORT_LIMIT, self.shared.jobs.wait()).await;
                }
            }
            Some(Ending::Abort) => {
                let _ = tokio::time::timeout(
                    self.shutdown_timeout.max(ABORT_LIMIT),
                    self.shared.jobs.wait(),
                )
                .await;
            }
            _ => self.shared.jobs.wait().await,
        }
    }

    /// Ends groups and plugins. Instances go where the configuration says so.
    async fn end(&self, may_delete: bool) {
        for (group, delete) in self.groups.iter().zip(&self.delete_instances) {
            if may_delete && *delete {
                let left = group.delete_all(self.shutdown_timeout).await;
                if left > 0 {
                    tracing::error!(left, "instances are still there, the next start deletes them");
                }
            }
            group.detach().await;
        }
        tracing::info!("mayfly has ended");
    }

    /// Ends without signals: no more jobs, all instances deleted. For `exec`.
    pub(crate) async fn close(&self) {
        self.shared.draining.cancel();
        self.shared.aborting.cancel();
        self.jobs_end(Some(Ending::Abort)).await;
        self.end(true).await;
    }
}
