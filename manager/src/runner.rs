//! One `[[runners]]` entry: reserve → permit → request a job → start it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use job::outcome::{FailureReason, Outcome};
use job::report::FinalState;
use scheduler::fleet::NoSlot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument as _;

use crate::config;
use crate::events::Events;
use crate::gitlab::{ApiError, Backoff, Client, JobRequest};
use crate::group::{Group, Reservation};
use crate::history::{Event, History};
use crate::job_run;
use crate::secret::Secret;
use crate::state::State;

/// A token that is not accepted is tried again this often: it may be a proxy's mistake.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(30);

/// How long an answer may be on its way.
const LAST_ANSWER: Duration = Duration::from_millis(300);

/// More jobs than any process runs.
const NO_LIMIT: u32 = 1_000_000;

/// What all runners of the process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) state: State,
    pub(crate) history: History,
    pub(crate) events: Events,
    /// `concurrent`.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) check_interval: Duration,
    pub(crate) system_id: String,
    pub(crate) jobs: TaskTracker,
    /// No more jobs are asked for.
    pub(crate) draining: CancellationToken,
    /// Running jobs are left to their agents.
    pub(crate) detaching: CancellationToken,
    /// Running jobs are stopped.
    pub(crate) aborting: CancellationToken,
}

impl Shared {
    /// Resolves a moment after no more jobs are to be asked for: one that the server was
    /// about to hand out is still taken.
    async fn drained(&self) {
        self.draining.cancelled().await;
        tokio::time::sleep(LAST_ANSWER).await;
    }
}

/// One entry, ready to take jobs.
pub(crate) struct Runner {
    pub(crate) config: config::Runner,
    /// Names its group in state.
    pub(crate) key: String,
    pub(crate) client: Client,
    pub(crate) group: Arc<Group>,
    pub(crate) shared: Shared,
    /// It asks for no more jobs; one that it was about to get it still takes.
    pub(crate) stop: CancellationToken,
    limit: Arc<Limit>,
}

/// `limit`, and the permits for it.
struct Limit {
    now: Mutex<u32>,
    permits: Arc<Semaphore>,
}

impl Limit {
    fn resize(&self, to: u32) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        resize(&self.permits, std::mem::replace(&mut *now, to), to);
    }
}

/// A limit of 0 is none.
fn bounded(limit: u32) -> u32 {
    if limit == 0 { NO_LIMIT } else { limit.min(NO_LIMIT) }
}

/// Makes more permits, or takes some away: at once as far as they are free, the rest as
/// they are given back.
pub(crate) fn resize(permits: &Arc<Semaphore>, from: u32, to: u32) {
    if to > from {
        permits.add_permits((to - from) as usize);
    } else if to < from {
        let permits = Arc::clone(permits);
        tokio::spawn(async move {
            if let Ok(surplus) = permits.acquire_many_owned(from - to).await {
                surplus.forget();
            }
        });
    }
}

/// The right to run one more job, in the process and in the entry.
pub(crate) struct Permit {
    _process: OwnedSemaphorePermit,
    _entry: OwnedSemaphorePermit,
}

impl Runner {
    /// The runner of an entry. Where it takes the place of one `before`, the jobs of both
    /// count against the limit.
    pub(crate) fn new(
        config: config::Runner,
        client: Client,
        group: Arc<Group>,
        shared: Shared,
        before: Option<&Self>,
    ) -> Self {
        let wanted = bounded(config.limit);
        let limit = before.map(|before| Arc::clone(&before.limit)).unwrap_or_else(|| {
            let permits = Arc::new(Semaphore::new(wanted as usize));
            Arc::new(Limit { now: Mutex::new(wanted), permits })
        });
        limit.resize(wanted);
        let (key, stop) = (group.key().to_owned(), shared.draining.child_token());
        Self { key, client, group, shared, stop, limit, config }
    }

    pub(crate) fn tell(&self, event: Event) {
        self.shared.history.tell(&self.config.name, event);
    }

    /// Goes on with the jobs of the last process. They count as all do; where there are
    /// more than may run now, no others are asked for until enough have ended.
    pub(crate) fn recover(self: &Arc<Self>) {
        for record in self.shared.state.jobs(&self.key) {
            tracing::info!(
                job = record.job,
                instance = record.instance,
                "going on with a job of before"
            );
            let span = tracing::info_span!("job", runner = self.config.name, job = record.job);
            let runner = Arc::clone(self);
            let job = job_run::recover(runner, record).instrument(span);
            self.shared.jobs.spawn(self.group.jobs().track_future(job));
        }
    }

    /// Tells the server what this manager can do; it remembers that for an hour.
    pub(crate) async fn verify(&self) {
        if let Err(error) = self.client.verify().await {
            tracing::warn!(runner = self.config.name, %error, "the server does not confirm the runner");
        }
    }

    /// Asks for jobs until draining, in as many loops as `request_concurrency` says.
    pub(crate) async fn feed(self: Arc<Self>) {
        let loops = TaskTracker::new();
        for _ in 0..self.config.request_concurrency {
            let runner = Arc::clone(&self);
            let span = tracing::info_span!("runner", name = self.config.name);
            loops.spawn(
                async move {
                    tokio::select! {
                        () = runner.ask_for_jobs() => {}
                        () = runner.shared.drained() => {}
                    }
                }
                .instrument(span),
            );
        }
        loops.close();
        loops.wait().await;
    }

    async fn ask_for_jobs(self: &Arc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            // The slot first: whoever waits for one must not keep others from theirs.
            let both = async { (self.reserve().await, self.permit().await) };
            let (reservation, permit) = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                (reservation, Some(permit)) = both => (reservation, permit),
                else => return,
            };
            let asked = Instant::now();
            let pause = match self.client.request_job().await {
                Ok(JobRequest::Job(job)) => {
                    backoff.succeeded();
                    self.start(job, reservation, permit);
                    continue;
                }
                Ok(JobRequest::Unreadable { id, token, why }) => {
                    drop((reservation, permit));
                    self.refuse(id, &token, &why).await;
                    continue;
                }
                Ok(JobRequest::Nothing) => {
                    backoff.succeeded();
                    drop((reservation, permit));
                    // A server that held the request open may be asked again at once.
                    self.shared.check_interval.saturating_sub(asked.elapsed())
                }
                Err(error) => {
                    drop((reservation, permit));
                    self.pause_after(&error, &mut backoff)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Gives a job back that cannot be read, instead of letting it hang at the server.
    async fn refuse(&self, id: u64, token: &Secret, why: &str) {
        tracing::error!(job = id, why, "the server sent a job that cannot be read");
        let outcome = Outcome::failure(FailureReason::RunnerSystemFailure, why);
        let state = FinalState::of(&outcome, &[], None);
        if let Err(error) = self.client.finish(id, token, &state).await {
            tracing::warn!(job = id, %error, "cannot give the job back");
        }
    }

    /// Holds a permit, as soon as there is one, until the handle is dropped. Whoever asks
    /// later gets one later.
    pub(crate) fn hold_permit(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let runner = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let _permit = runner.permit().await;
            std::future::pending().await
        }))
    }

    async fn permit(&self) -> Option<Permit> {
        let entry = Arc::clone(&self.limit.permits).acquire_owned().await.ok()?;
        let process = Arc::clone(&self.shared.permits).acquire_owned().await.ok()?;
        Some(Permit { _process: process, _entry: entry })
    }

    /// Waits until a slot can be promised.
    async fn reserve(&self) -> Reservation {
        let mut told: Option<NoSlot> = None;
        loop {
            let changed = self.group.capacity_changed();
            match self.group.reserve() {
                Ok(reservation) => return reservation,
                Err(why) => {
                    if told.replace(why) != Some(why) {
                        tracing::debug!(?why, "no slot to promise, asking for no job");
                    }
                }
            }
            let _ = tokio::time::timeout(self.shared.check_interval, changed).await;
        }
    }

    fn start(
        self: &Arc<Self>,
        job: Box<job::payload::Job>,
        reservation: Reservation,
        permit: Permit,
    ) {
        let span = tracing::info_span!("job", runner = self.config.name, job = job.id);
        let run = job_run::run(Arc::clone(self), job, reservation, permit);
        self.shared.jobs.spawn(self.group.jobs().track_future(run.instrument(span)));
    }

    fn pause_after(&self, error: &ApiError, backoff: &mut Backoff) -> Duration {
        let first = backoff.failures() == 0;
        let pause = match error {
            ApiError::Forbidden(_) => {
                backoff.failed(None);
                FORBIDDEN_PAUSE
            }
            ApiError::Temporary { retry_after, .. } => backoff.failed(*retry_after),
            ApiError::Refused(_) => backoff.failed(None),
        };
        // Once per outage, not once per attempt.
        match error {
            ApiError::Forbidden(_) if first => tracing::error!(%error, "cannot ask for jobs"),
            _ if first => tracing::warn!(%error, "cannot ask for jobs, trying again"),
            _ => tracing::debug!(%error, "still cannot ask for jobs"),
        }
        pause
    }
}
