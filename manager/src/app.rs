//! The composition root: a configuration becomes an app, the app runs, the app ends.

mod tuner;
mod workshop;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commands::Exit;
use crate::config::{self, Config};
use crate::connect::{Agents, OwnKey};
use crate::console::{self, Question};
use crate::events::Events;
use crate::history::History;
use crate::plugin::ProviderError;
use crate::runner::{Runner, Shared};
use crate::shutdown::{Ending, Signals};
use crate::state::{State, StateError};
use workshop::Workshop;

pub(crate) use tuner::Tuner;

/// How long jobs may take to stop once they were told to.
const ABORT_LIMIT: Duration = Duration::from_secs(30);
/// Pauses between attempts to start a plugin beside those that run.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

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

impl StartError {
    /// Whether another attempt may succeed: a plugin's provider may have been down.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Provider(ProviderError::Start(_)))
    }
}

/// A manager that serves its runners.
pub(crate) struct App {
    pub(crate) shared: Shared,
    served: Arc<Mutex<Vec<Served>>>,
    tasks: TaskTracker,
    shutdown_timeout: Duration,
}

/// One entry that is served.
struct Served {
    runner: Arc<Runner>,
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
        let app = Self {
            shared: shared.clone(),
            served: Arc::default(),
            tasks: TaskTracker::new(),
            shutdown_timeout: config.shutdown_timeout,
        };
        let agents = Arc::new(Agents::default());
        app.tasks.spawn(app.console(&config.state_dir));
        let workshop = Arc::new(Workshop { config, shared, agents, own_key });
        let (runners, failures) = workshop.build_all().await;
        // All first take up what they had: it counts before new jobs do.
        for runner in &runners {
            take_up(&app.served, &app.tasks, runner);
        }
        for runner in runners {
            app.tasks.spawn(runner.feed());
        }
        let nothing_is_served = app.lock().is_empty();
        for (index, error) in failures {
            if nothing_is_served {
                return Err(error);
            }
            let runner = &workshop.config.runners[index].name;
            if error.may_pass() {
                tracing::error!(runner, %error, "this runner waits for its plugin");
                app.tasks.spawn(app.try_again(&workshop, index));
            } else {
                tracing::error!(runner, %error, "this runner is left out");
            }
        }
        Ok(app)
    }

    /// Answers operators as long as the manager runs.
    fn console(&self, state_dir: &Path) -> impl Future<Output = ()> + Send + use<> {
        let (served, state_dir) = (Arc::clone(&self.served), state_dir.to_owned());
        let started = Instant::now();
        async move {
            let answer = move |question: &Question| {
                let served = served.lock().unwrap_or_else(PoisonError::into_inner);
                let groups: Vec<_> =
                    served.iter().map(|one| Arc::clone(&one.runner.group)).collect();
                drop(served);
                console::answer(question, &groups, started.elapsed().as_secs_f64())
            };
            console::serve(&state_dir, answer).await;
        }
    }

    /// What takes up another configuration while this one runs.
    pub(crate) fn tuner(&self, config: &Config) -> Tuner {
        let concurrent = config.concurrent;
        Tuner { served: Arc::clone(&self.served), shared: self.shared.clone(), concurrent }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_again(
        &self,
        workshop: &Arc<Workshop>,
        index: usize,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (served, tasks) = (Arc::clone(&self.served), self.tasks.clone());
        let (workshop, draining) = (Arc::clone(workshop), self.shared.draining.clone());
        async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = draining.cancelled() => return,
                }
                match workshop.build(index).await {
                    Ok(runner) => {
                        take_up(&served, &tasks, &runner);
                        return runner.feed().await;
                    }
                    Err(error) => tracing::warn!(%error, "still waiting for a plugin"),
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Serves until a signal, then ends as it says.
    pub(crate) async fn run(self, mut signals: Signals) -> Exit {
        tracing::info!(runners = self.lock().len(), "mayfly is up");
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
        let mut ends = JoinSet::new();
        for served in self.lock().drain(..) {
            let delete = served.runner.config.autoscaler.delete_instances_on_shutdown;
            let limit = (may_delete && delete).then_some(self.shutdown_timeout);
            ends.spawn(served.end(limit));
        }
        while ends.join_next().await.is_some() {}
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

impl Served {
    /// Deletes the instances, if it has time for that, and ends the plugin.
    async fn end(self, delete_within: Option<Duration>) {
        if let Some(limit) = delete_within {
            let left = self.runner.group.delete_all(limit).await;
            if left > 0 {
                tracing::error!(left, "instances are still there, the next start takes them over");
            }
        }
        self.runner.group.detach().await;
    }
}

/// Begins to serve an entry; its jobs of before go on.
fn take_up(served: &Mutex<Vec<Served>>, tasks: &TaskTracker, runner: &Arc<Runner>) {
    tasks.spawn(Arc::clone(&runner.group).control());
    runner.recover();
    let verifier = Arc::clone(runner);
    tasks.spawn(async move { verifier.verify().await });
    let runner = Arc::clone(runner);
    served.lock().unwrap_or_else(PoisonError::into_inner).push(Served { runner });
}

/// A renamed server, or an id that was added, makes another runner of an entry: what the
/// old one had is not looked after any more.
fn warn_of_others(state: &State, config: &Config) {
    let keys: Vec<String> = config.runners.iter().map(config::Runner::key).collect();
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
