//! The life of one job on the manager's side, top to bottom:
//! acknowledge and acquire → send plan → write `go` → send `go` → follow → finish.
//!
//! Until `go` was written, a lost instance means another slot, and nobody notices. After
//! it, the job may have begun to change the world: a lost instance is a system failure
//! with its true cause.

mod deliver;
mod follow;
mod join;
mod log;
mod place;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use job::compose::{is_debug, job_timeout};
use job::outcome::{FailureReason, Outcome};
use job::payload::Job;
use job::report::{Ack, JobState, UPDATE_INTERVAL};
use tokio::time::Instant;

use crate::connect::AgentLine;
use crate::events::JobStep;
use crate::gitlab::Backoff;
use crate::group::{Acquisition, Reservation};
use crate::history::Event;
use crate::runner::{Permit, Runner};
use crate::secret::Secret;
use crate::state::JobRecord;
use follow::{Follow, Told};

/// A job that has not begun by then waits for an instance.
const WAITS_AFTER: Duration = Duration::from_millis(200);
/// An agent ends a job at its timeout. One that has not done so by then never will.
const OVERDUE_AFTER: Duration = Duration::from_secs(5 * 60);

/// A job on its way to its agent.
struct Placing<'a> {
    runner: &'a Runner,
    job: &'a Job,
    received: Instant,
    received_at: SystemTime,
}

/// A job whose plan an agent holds.
struct Placed {
    acquisition: Acquisition,
    line: AgentLine,
    plan_key: String,
}

/// Runs a job from its payload to its final state at the server.
pub(crate) async fn run(
    runner: Arc<Runner>,
    job: Box<Job>,
    reservation: Reservation,
    _permit: Permit,
) {
    runner.shared.events.tell(job.id, JobStep::Taken);
    runner.tell(Event::JobReceived {
        job: job.id,
        name: job.job_info.name.clone(),
        project: job.job_info.project_full_path.clone(),
    });
    tracing::info!(
        name = job.job_info.name,
        project = job.job_info.project_full_path,
        "job received"
    );
    let placing = Placing {
        runner: &runner,
        job: &job,
        received: Instant::now(),
        received_at: SystemTime::now(),
    };
    let aborting = runner.shared.aborting.clone();
    // Also while the manager ends in order: only a job that has begun can be left alone.
    let (ack, placed) = tokio::select! {
        both = async { tokio::join!(placing.acknowledge(), placing.place(reservation)) } => both,
        ack = placing.withdrawn() => (Ok(ack), Err(interrupted())),
        never = placing.waits() => match never {},
        () = aborting.cancelled() => (Err(interrupted()), Err(interrupted())),
    };
    let placed = match ack {
        Ok(ack) if ack.job == JobState::Over => {
            tracing::info!("the server has given the job to someone else, or canceled it");
            return runner.shared.state.remove_job(&runner.key, job.id);
        }
        Ok(ack) if ack.job == JobState::Canceling => {
            Err(Outcome::failure(FailureReason::JobCanceled, "canceled"))
        }
        Ok(_) => placed,
        Err(outcome) => Err(outcome),
    };
    let told = match placed {
        Ok(placed) => placing.begin(placed).await,
        Err(outcome) => Told::without_agent(
            placing.record(String::new(), None),
            placing.preamble(None),
            outcome,
        ),
    };
    finish(&runner, told).await;
}

/// Goes on with a job that ran under the last process.
pub(crate) async fn recover(runner: Arc<Runner>, record: JobRecord) {
    let _permit = runner.hold_permit();
    if record.instance.is_empty() {
        let outcome = match &record.lost {
            Some(lost) => Outcome {
                reason: lost.reason,
                ..Outcome::failure(FailureReason::RunnerSystemFailure, &lost.message)
            },
            None => {
                let why = "the runner manager ended before the job had an instance";
                Outcome::failure(FailureReason::RunnerSystemFailure, why)
            }
        };
        return finish(&runner, Told::without_agent(record, String::new(), outcome)).await;
    }
    runner.tell(Event::JobRecovered { job: record.job, instance: record.instance.clone() });
    let instance = scheduler::fleet::InstanceId(record.instance.clone());
    let acquisition = runner.group.recovered(instance, record.slot);
    let told = Follow::new(&runner, record, acquisition, None).run().await;
    finish(&runner, told).await;
}

/// Brings the job's end to the server, then forgets it.
async fn finish(runner: &Runner, told: Told<'_>) {
    let Told::Ended { record, ended } = told else {
        return;
    };
    let (id, outcome) = (record.job, ended.outcome());
    if outcome.success {
        tracing::info!(job = id, "job succeeded");
    } else {
        tracing::info!(
            job = id,
            reason = outcome.reason().as_gitlab(),
            message = outcome.message,
            "job failed"
        );
    }
    runner.tell(Event::JobEnded {
        job: id,
        success: outcome.success,
        reason: outcome.reason().as_gitlab().into(),
        message: outcome.message.clone(),
    });
    let on_instance = matches!(ended, log::Ended::ByAgent(..));
    let kept = tokio::select! {
        kept = log::deliver(runner, &record, ended) => kept,
        // The next process finds the job in the state, and its log on the instance.
        () = runner.shared.detaching.cancelled(), if on_instance => return,
    };
    drop(kept);
    runner.shared.state.remove_job(&runner.key, id);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn interrupted() -> Outcome {
    Outcome::failure(FailureReason::RunnerInterrupted, "the runner manager is being stopped")
}

fn removed() -> Outcome {
    let why = "an operator removed the instance on which the job ran";
    Outcome::failure(FailureReason::RunnerInterrupted, why)
}

impl Placing<'_> {
    /// Tells the server that the job arrived. A job is not begun before the server knows:
    /// it might hand it out again.
    ///
    /// It is written down first: from then on the server counts on us, and whatever becomes
    /// of this process, the next one can tell it.
    async fn acknowledge(&self) -> Result<Ack, Outcome> {
        let record = self.record(String::new(), None);
        if let Err(error) = self.runner.shared.state.put_job(&self.runner.key, &record).await {
            tracing::error!(%error, "cannot write down that the job is ours");
            return Err(Outcome::failure(FailureReason::RunnerSystemFailure, error.to_string()));
        }
        let token = Secret::new(self.job.token.clone());
        let mut backoff = Backoff::default();
        loop {
            match self.runner.client.touch(self.job.id, &token).await {
                Ok(ack) => return Ok(ack),
                Err(error) => {
                    let pause = backoff.failed(None);
                    if Instant::now() + pause >= self.deadline() {
                        let why =
                            format!("the server cannot be told that the job arrived: {error}");
                        return Err(Outcome::failure(FailureReason::RunnerSystemFailure, why));
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Resolves when the server wants the job back while it still waits for its slot. Tells
    /// it meanwhile that the job is alive.
    async fn withdrawn(&self) -> Ack {
        let token = Secret::new(self.job.token.clone());
        let mut interval = UPDATE_INTERVAL;
        loop {
            tokio::time::sleep(interval).await;
            if let Ok(ack) = self.runner.client.touch(self.job.id, &token).await {
                if ack.job != JobState::Running {
                    return ack;
                }
                interval = ack.update_interval.unwrap_or(interval);
            }
        }
    }

    /// Says that the job waits if it does not begin at once.
    async fn waits(&self) -> std::convert::Infallible {
        tokio::time::sleep(WAITS_AFTER).await;
        self.runner.tell(Event::JobWaits { job: self.job.id });
        std::future::pending().await
    }

    fn deadline(&self) -> Instant {
        self.received + job_timeout(self.job)
    }

    fn record(&self, job_key: String, acquisition: Option<&Acquisition>) -> JobRecord {
        JobRecord {
            job: self.job.id,
            token: self.job.token.clone(),
            job_key,
            instance: acquisition.map(|a| a.instance().0.clone()).unwrap_or_default(),
            slot: acquisition.map_or(0, Acquisition::slot),
            failure_reasons: self.job.features.failure_reasons.clone(),
            overdue_s: unix_seconds(self.received_at + job_timeout(self.job) + OVERDUE_AFTER),
            alone_after_ms: millis(self.runner.config.report_alone_after),
            debug_trace: is_debug(self.job, &self.runner.config.engine),
            lost: None,
        }
    }

    /// Writes `go` down, sends it, and follows the job to its end.
    async fn begin(&self, placed: Placed) -> Told<'_> {
        // The server may have taken its time to hear that the job arrived: until `go` is
        // written, a lost instance is nothing to the job.
        let placed = if placed.line.is_closed() || placed.acquisition.evicted().is_cancelled() {
            drop(placed);
            self.place(self.runner.group.reserve_again()).await
        } else {
            Ok(placed)
        };
        let Placed { acquisition, line, plan_key } = match placed {
            Ok(placed) => placed,
            Err(outcome) => {
                let record = self.record(String::new(), None);
                return Told::without_agent(record, self.preamble(None), outcome);
            }
        };
        let record = self.record(plan_key, Some(&acquisition));
        if let Err(error) = acquisition.begin(&record).await {
            tracing::error!(%error, "cannot write down that the job begins");
            let outcome = Outcome::failure(FailureReason::RunnerSystemFailure, error.to_string());
            return Told::without_agent(record, self.preamble(None), outcome);
        }
        self.runner.shared.events.tell(self.job.id, JobStep::Begun);
        let instance = record.instance.clone();
        self.runner.tell(Event::JobBegun { job: self.job.id, instance });
        Follow::new(self.runner, record, acquisition, Some(line)).run().await
    }
}
