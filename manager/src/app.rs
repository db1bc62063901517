//! The composition root: a configuration becomes an app, the app runs, the app ends.

mod known;
mod reload;
mod roster;
mod workshop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commands::Exit;
use crate::config::{self, Config};
use crate::connect::{Agents, OwnKey};
use crate::console::{self, Question};
use crate::events::Events;
use crate::history::History;
use crate::plugin::ProviderError;
use crate::runner::Shared;
use crate::shutdown::{Ending, Signals};
use crate::state::{State, StateError};
use roster::Roster;
use workshop::Workshop;

pub(crate) use reload::Reloader;

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
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A group that drains still has the provider's group.
    #[error("group {0:?} of the provider still drains for an entry of before")]
    Draining(String),
}

impl StartError {
    /// Whether another attempt may succeed: a plugin's provider may have been down.
    fn may_pass(&self) -> bool {
        match self {
            Self::Provider(ProviderError::Start(_)) | Self::Draining(_) => true,
            // It is installed later, or just replaced.
            Self::Provider(ProviderError::Find(error)) => error.may_pass(),
            _ => false,
        }
    }
}

/// A manager that serves its runners.
pub(crate) struct App {
    pub(crate) shared: Shared,
    roster: Arc<Roster>,
    config: Config,
    shutdown_timeout: Duration,
}

impl App {
    /// Builds everything and begins to ask for jobs. An entry whose plugin does not start
    /// is left out as long as another's does; where that may pass, it is tried again.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let state = State::open(&config.state_dir)?;
        let own_key =
            OwnKey::read_or_make(&config.state_dir.join("ssh_key")).map_err(StartError::Key)?;
        warn_of_others(&state, &config);
        let shared = Shared {
            state,
            history: History::open(&config.state_dir),
            events: Events::default(),
            permits: Arc::new(Semaphore::new(config.concurrent as usize)),
            check_interval: config.check_interval,
            system_id: config.system_id.clone(),
            jobs: TaskTracker::new(),
            draining: CancellationToken::new(),
            detaching: CancellationToken::new(),
            aborting: CancellationToken::new(),
        };
        let roster = Roster::new(Workshop {
            shared: shared.clone(),
            agents: Arc::new(Agents::default()),
            own_key,
            hide: [config.config_dir.clone(), config.state_dir.clone()],
        });
        tokio::spawn(console(Arc::clone(&roster), config.state_dir.clone()));
        let mut failures = roster.start(config.runners.clone()).await;
        if roster.served().is_empty() && !failures.is_empty() {
            return Err(failures.swap_remove(0).1);
        }
        for (entry, error) in failures {
            roster.wait_for(entry, &error);
        }
        let shutdown_timeout = config.shutdown_timeout;
        Ok(Self { shared, roster, config, shutdown_timeout })
    }

    /// What takes up another configuration while this one runs.
    pub(crate) fn reloader(&self) -> Reloader {
        Reloader { roster: Arc::clone(&self.roster), config: self.config.clone() }
    }

    /// Serves until a signal, then ends as it says.
    pub(crate) async fn run(self, mut signals: Signals) -> Exit {
        tracing::info!(runners = self.roster.served().len(), "mayfly is up");
        let mut ending = None;
        let failed = self.shared.state.failed().clone();
        loop {
            let wish = tokio::select! {
                wish = signals.next() => wish,
                () = self.jobs_end(ending), if ending.is_some() => break,
                () = failed.cancelled(), if ending.is_none() => {
                    tracing::error!(
                        "the state cannot be written: no more jobs are taken, running ones go on \
                         by themselves until the next start"
                    );
                    Ending::Detach
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
        let end = self.end(ending != Some(Ending::Detach));
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                wish = signals.next() => match Ending::then(ending, wish) {
                    Ending::Now => return Exit::Interrupted,
                    stronger => ending = Some(stronger),
                },
            }
        }
        match ending {
            _ if failed.is_cancelled() => Exit::State,
            Some(Ending::Abort) => Exit::Interrupted,
            _ => Exit::Success,
        }
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
        self.roster.end(may_delete.then_some(self.shutdown_timeout)).await;
        self.shared.state.settle().await;
        self.shared.history.flush();
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

/// Answers operators as long as the manager runs.
async fn console(roster: Arc<Roster>, state_dir: PathBuf) {
    let started = Instant::now();
    let answer = move |question: &Question| {
        console::answer(question, &roster.groups(), started.elapsed().as_secs_f64())
    };
    console::serve(&state_dir, answer).await;
}

/// A renamed server, or an id that was added, makes another runner of an entry: what the
/// old one had is not looked after any more.
fn warn_of_others(state: &State, config: &Config) {
    let mut keys: Vec<String> = config.runners.iter().map(config::Runner::key).collect();
    // Those are looked after.
    keys.extend(state.groups().into_iter().map(|(key, _)| key));
    for (runner, (jobs, instances)) in state.others(&keys) {
        tracing::warn!(
            runner,
            jobs,
            instances,
            "the state knows a runner that the configuration has not; bring its entry back with \
             the same url and id to let its jobs end"
        );
    }
}
