//! Brings a job to a slot: composes its plan there and has an agent take it. A slot that
//! fails is replaced by another, and nobody notices.

use std::time::{Duration, SystemTime};

use job::compose::{Instance, PREPARE_EXECUTOR, compose, image, is_debug};
use job::outcome::{FailureReason, Outcome};
use job::plan::{Plan, PullPolicy};
use job::trace::colour::{BOLD_CYAN, CLEAR, RESET, YELLOW};
use job::wire::{from_agent, to_agent};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Placed, Placing, unix_seconds};
use crate::connect::{AgentLine, Connection};
use crate::events::JobStep;
use crate::group::{Acquisition, Reservation};
use crate::history::Event;

/// A waiting agent answers a plan within milliseconds. Where it does not, its instance is
/// probed: one that is dead costs the job a second.
const PROBE_AFTER: Duration = Duration::from_millis(250);
const PROBE_LIMIT: Duration = Duration::from_millis(750);
/// How long the agent of an instance that lives may take: it may have a lot to do.
const ARMED_LIMIT: Duration = Duration::from_secs(15);
/// Slots that may fail a job before it is told to the server.
const PLACEMENTS: usize = 5;

impl Placing<'_> {
    /// Finds a slot and brings the plan there. A slot that fails is replaced by another.
    pub(super) async fn place(&self, reservation: Reservation) -> Result<Placed, Outcome> {
        let wait = self.runner.config.autoscaler.instance_acquire_timeout;
        let deadline = self.deadline().min(self.received + wait);
        let mut reservation = Some(reservation);
        let mut failed = Vec::new();
        let mut last = String::new();
        for _ in 0..PLACEMENTS {
            let promise = reservation.take().unwrap_or_else(|| self.runner.group.reserve_again());
            let image = image(self.job, &self.runner.config.engine);
            let acquired = promise.acquire(deadline, image, failed.clone()).await;
            let acquisition = acquired.map_err(|error| {
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
        let plan_key = plan.job_key.clone();
        let exchange = async {
            let mut armed =
                connection.take_agent(acquisition.slot()).await.map_err(|e| e.to_string())?;
            // Not before: what is made ahead is made for the next job, and not for this one.
            let containers = plan.containers.as_ref();
            let containers = containers.filter(|_| self.runner.config.containers_ahead);
            connection.used(acquisition.slot(), containers);
            plan.protocol = armed.protocol;
            armed.line.say(to_agent::Message::Plan(plan)).await.map_err(|e| e.to_string())?;
            match armed.line.expect().await.map_err(|e| e.to_string())? {
                from_agent::Message::Armed(_) => Ok(armed.line),
                from_agent::Message::Refused(refused) => Err(refused.message),
                other => Err(format!("the agent answered a plan with {other:?}")),
            }
        };
        let line = unless_dead(connection, exchange).await.map_err(slot)?;
        Ok((line, plan_key))
    }

    fn compose(
        &self,
        acquisition: &Acquisition,
        connection: &Connection,
    ) -> Result<Plan, Unplaced> {
        let instance = Instance {
            id: acquisition.instance().0.clone(),
            home: connection.facts.home.clone(),
            slot: acquisition.slot(),
            arch: connection.facts.arch.clone(),
            via: crate::host_name(),
            has_git: connection.facts.has_git,
        };
        let mut plan =
            compose(self.job, &self.runner.config.engine, &instance).map_err(Unplaced::Outcome)?;
        let left = self.deadline().saturating_duration_since(Instant::now());
        plan.timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let alone_after = self.runner.config.report_alone_after;
        let debug_trace = is_debug(self.job, &self.runner.config.engine);
        plan.report = (!alone_after.is_zero())
            .then(|| self.runner.client.report(self.job, alone_after, debug_trace));
        if let Some(containers) = &plan.containers {
            let services = containers.services.iter().filter_map(|it| it.container.as_ref());
            let all = containers.build.iter().chain(services);
            let used = all.map(|it| {
                let may_be_pulled = it.pull_policies().any(|it| it != PullPolicy::PullNever);
                (it.image.clone(), may_be_pulled)
            });
            self.runner.group.used_images(acquisition.instance(), used.collect());
        }
        let place = place_line(self.received, acquisition, connection);
        match plan.stages.first_mut() {
            // The agent goes on with what is called so in the log.
            Some(stage) if stage.name == PREPARE_EXECUTOR => stage.notes = place,
            _ => {
                if let Some(trace) = &mut plan.trace {
                    trace.preamble = self.preamble(Some(&place));
                }
                return Ok(plan);
            }
        }
        if let Some(trace) = &mut plan.trace {
            trace.preamble = self.heading();
        }
        Ok(plan)
    }

    /// The first lines of the log, as GitLab Runner writes them.
    fn heading(&self) -> String {
        let engine = &self.runner.config.engine;
        format!(
            "{CLEAR}Running with mayfly {}{RESET}\n{CLEAR}  on {} {}, system ID: {}{RESET}\n",
            engine.version, engine.name, engine.short_token, self.runner.shared.system_id
        )
    }

    /// The same, and how the job came to its place: the section before those of its agent.
    pub(super) fn preamble(&self, place: Option<&str>) -> String {
        let mut text = self.heading();
        let sections = self.job.features.trace_sections;
        let section = |edge: &str, at: SystemTime| {
            let seconds = unix_seconds(at);
            if sections {
                format!("section_{edge}:{seconds}:{PREPARE_EXECUTOR}\r{CLEAR}")
            } else {
                String::new()
            }
        };
        let executor = job::compose::executor(self.runner.config.engine.docker.is_some());
        text.push_str(&section("start", self.received_at));
        text.push_str(&format!(
            "{CLEAR}{BOLD_CYAN}Preparing the \"{executor}\" executor{RESET}{RESET}\n"
        ));
        text.push_str(place.unwrap_or_default());
        text.push_str(&section("end", SystemTime::now()));
        text
    }
}

/// Where the job runs, and how long it took to get there.
fn place_line(received: Instant, acquisition: &Acquisition, connection: &Connection) -> String {
    let mut text = format!(
        "Instance {} connected, slot {}, after {:.1} s\n",
        acquisition.instance(),
        acquisition.slot(),
        received.elapsed().as_secs_f64()
    );
    if !connection.facts.detached {
        text.push_str(&format!(
            "{YELLOW}WARNING: processes there end with their connection: this job would not survive its loss{RESET}\n"
        ));
    }
    text
}

/// What an exchange with an instance comes to, as long as that lives.
async fn unless_dead<T>(
    connection: &Connection,
    exchange: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::pin!(exchange);
    if let Ok(result) = timeout(PROBE_AFTER, &mut exchange).await {
        return result;
    }
    tokio::select! {
        result = &mut exchange => return result,
        is_alive = connection.is_alive(PROBE_LIMIT) => if !is_alive {
            return Err("the instance does not answer".into());
        }
    }
    let late = format!("the agent did not take the plan within {} s", ARMED_LIMIT.as_secs());
    timeout(ARMED_LIMIT, exchange).await.unwrap_or(Err(late))
}

/// Why a plan is not on an instance.
enum Unplaced {
    /// The job ends with this, wherever it is placed.
    Outcome(Outcome),
    /// The slot is no good.
    Slot(String),
}
