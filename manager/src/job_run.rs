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

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use job::compose::{Instance, compose, is_debug, job_timeout};
use job::outcome::{FailureReason, Outcome};
use job::payload::Job;
use job::plan::{Plan, Report};
use job::report::{Ack, JobState, UPDATE_INTERVAL};
use job::trace::colour::{BOLD_CYAN, CLEAR, RESET, YELLOW};
use job::wire::{from_agent, to_agent};
use tokio::time::{Instant, timeout, timeout_at};

use crate::connect::{AgentLine, Connection};
use crate::events::JobStep;
use crate::gitlab::Backoff;
use crate::group::{Acquisition, Reservation};
use crate::history::Event;
use crate::runner::{Permit, Runner};
use crate::secret::Secret;
use crate::state::JobRecord;
use follow::{Follow, Told};

/// A waiting agent answers a plan within milliseconds. One that does not is dead.
const ARMED_LIMIT: Duration = Duration::from_secs(5);
/// Slots that may fail a job before it is told to the server.
const PLACEMENTS: usize = 5;
/// A job that has not begun by then waits for an instance.
const REMEMBER_AFTER: Duration = Duration::from_millis(200);
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
        never = placing.remember() => match never {},
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
        let why = "the runner manager ended before the job had an instance";
        let outcome = Outcome::failure(FailureReason::RunnerSystemFailure, why);
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

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn interrupted() -> Outcome {
    Outcome::failure(FailureReason::RunnerInterrupted, "the runner manager is being stopped")
}

impl Placing<'_> {
    /// Tells the server that the job arrived. A job is not begun before the server knows:
    /// it might hand it out again.
    async fn acknowledge(&self) -> Result<Ack, Outcome> {
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

    /// Writes down that the job is ours if it does not begin at once: whatever becomes of
    /// this process, the next one can tell the server.
    async fn remember(&self) -> std::convert::Infallible {
        tokio::time::sleep(REMEMBER_AFTER).await;
        self.runner.tell(Event::JobWaits { job: self.job.id });
        let record = self.record(String::new(), None);
        if let Err(error) = self.runner.shared.state.put_job(&self.runner.key, &record).await {
            tracing::error!(%error, "cannot write down that a job waits");
        }
        std::future::pending().await
    }

    fn deadline(&self) -> Instant {
        self.received + job_timeout(self.job)
    }

    /// Finds a slot and brings the plan there. A slot that fails is replaced by another.
    async fn place(&self, reservation: Reservation) -> Result<Placed, Outcome> {
        let wait = self.runner.config.autoscaler.instance_acquire_timeout;
        let deadline = self.deadline().min(self.received + wait);
        let mut reservation = Some(reservation);
        let mut failed = Vec::new();
        let mut last = String::new();
        for _ in 0..PLACEMENTS {
            let promise = reservation.take().unwrap_or_else(|| self.runner.group.reserve_again());
            let acquisition = promise.acquire(deadline, failed.clone()).await.map_err(|error| {
                Outcome::failure(FailureReason::RunnerSystemFailure, error.to_string())
            })?;
            let instance = acquisition.instance().clone();
            match timeout_at(deadline, self.send_plan(&acquisition)).await {
                Ok(Ok((line, plan_key))) => return Ok(Placed { acquisition, line, plan_key }),
                Ok(Err(Unplaced::Outcome(outcome))) => return Err(outcome),
                Ok(Err(Unplaced::Slot(why))) => {
                    tracing::warn!(%instance, why, "the slot does not take the job, trying another");
                    self.runner.tell(Event::SlotFailed {
                        job: self.job.id,
                        instance: instance.0.clone(),
                        why: why.clone(),
                    });
                    last = why;
                    acquisition.failed();
                    failed.push(instance);
                }
                Err(_) => break,
            }
        }
        let message = format!("no instance took the job: {last}");
        Err(Outcome::failure(FailureReason::RunnerSystemFailure, message))
    }

    async fn send_plan(&self, acquisition: &Acquisition) -> Result<(AgentLine, String), Unplaced> {
        let slot = |why: String| Unplaced::Slot(why);
        let connection = acquisition
            .bound_connection()
            .ok_or_else(|| slot("the instance has no connection".into()))?;
        self.runner
            .shared
            .events
            .tell(self.job.id, JobStep::Bound { instance: acquisition.instance().0.clone() });
        self.runner.tell(Event::JobBound {
            job: self.job.id,
            instance: acquisition.instance().0.clone(),
            slot: acquisition.slot(),
        });
        let mut plan = self.compose(acquisition, connection)?;
        let mut armed =
            connection.take_agent(acquisition.slot()).await.map_err(|e| slot(e.to_string()))?;
        plan.protocol = armed.protocol;
        let plan_key = plan.job_key.clone();
        armed.line.say(to_agent::Message::Plan(plan)).await.map_err(|e| slot(e.to_string()))?;
        match timeout(ARMED_LIMIT, armed.line.expect()).await {
            Ok(Ok(from_agent::Message::Armed(_))) => Ok((armed.line, plan_key)),
            Ok(Ok(from_agent::Message::Refused(refused))) => Err(slot(refused.message)),
            Ok(Ok(other)) => Err(slot(format!("the agent answered a plan with {other:?}"))),
            Ok(Err(error)) => Err(slot(error.to_string())),
            Err(_) => Err(slot(format!(
                "the agent did not take the plan within {} s",
                ARMED_LIMIT.as_secs()
            ))),
        }
    }

    fn compose(
        &self,
        acquisition: &Acquisition,
        connection: &Connection,
    ) -> Result<Plan, Unplaced> {
        let instance = Instance {
            home: connection.facts.home.clone(),
            slot: acquisition.slot(),
            arch: connection.facts.arch.clone(),
            via: crate::host_name(),
        };
        let mut plan =
            compose(self.job, &self.runner.config.engine, &instance).map_err(Unplaced::Outcome)?;
        let left = self.deadline().saturating_duration_since(Instant::now());
        plan.timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let alone_after = self.runner.config.report_alone_after;
        plan.report = (!alone_after.is_zero()).then(|| Report {
            debug_trace: is_debug(self.job, &self.runner.config.engine),
            ..self.runner.client.report(self.job, alone_after)
        });
        if let Some(trace) = &mut plan.trace {
            trace.preamble = self.preamble(Some((acquisition, connection)));
        }
        Ok(plan)
    }

    /// The first lines of the log, as GitLab Runner writes them.
    fn preamble(&self, place: Option<(&Acquisition, &Connection)>) -> String {
        let engine = &self.runner.config.engine;
        let mut text = format!(
            "{CLEAR}Running with mayfly {}{RESET}\n{CLEAR}  on {} {}, system ID: {}{RESET}\n",
            engine.version, engine.name, engine.short_token, self.runner.shared.system_id
        );
        let sections = self.job.features.trace_sections;
        let section = |edge: &str, at: SystemTime| {
            let seconds = unix_seconds(at);
            if sections {
                format!("section_{edge}:{seconds}:prepare_executor\r{CLEAR}")
            } else {
                String::new()
            }
        };
        text.push_str(&section("start", self.received_at));
        text.push_str(&format!(
            "{CLEAR}{BOLD_CYAN}Preparing the \"instance\" executor{RESET}{RESET}\n"
        ));
        if let Some((acquisition, connection)) = place {
            text.push_str(&format!(
                "Instance {} connected, slot {}, after {:.1} s\n",
                acquisition.instance(),
                acquisition.slot(),
                self.received.elapsed().as_secs_f64()
            ));
            if !connection.facts.detached {
                text.push_str(&format!(
                    "{YELLOW}WARNING: processes there end with their connection: this job would not survive its loss{RESET}\n"
                ));
            }
        }
        text.push_str(&section("end", SystemTime::now()));
        text
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
            debug_trace: is_debug(self.job, &self.runner.config.engine),
        }
    }

    /// Writes `go` down, sends it, and follows the job to its end.
    async fn begin(&self, placed: Placed) -> Told<'_> {
        let Placed { acquisition, line, plan_key } = placed;
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

/// Why a plan is not on an instance.
enum Unplaced {
    /// The job ends with this, wherever it is placed.
    Outcome(Outcome),
    /// The slot is no good.
    Slot(String),
}
