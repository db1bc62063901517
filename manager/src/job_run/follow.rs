//! Follows a job that has begun: its log to the server, the server's wishes to it, over
//! as many connections as it takes.

use std::time::{Duration, SystemTime};

use job::outcome::{FailureReason, Outcome};
use job::report::{Ack, JobState, MAX_PIECE_BYTES, Pending, UPDATE_INTERVAL};
use job::wire::{
    Abort, Attach, Cancel, Credit, Finished as AgentFinished, Go, from_agent, to_agent,
};
use scheduler::plan::Reason;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::join::Joiner;
use super::log::{Ended, Sent, send};
use super::{interrupted, removed, unix_seconds};
use crate::connect::AgentLine;
use crate::events::JobStep;
use crate::group::Acquisition;
use crate::runner::Runner;
use crate::secret::Secret;
use crate::state::{JobRecord, LostRecord};

/// Log bytes that an agent may send beyond what the server has: one PATCH, and what one
/// job may hold in this process's memory.
const WINDOW_BYTES: u64 = MAX_PIECE_BYTES as u64;
/// After this time people see the begin of the log, and the server says how often it
/// wants to hear of the job.
const FIRST_UPDATE: Duration = Duration::from_secs(1);
/// What an agent may send beyond its credit: what was on its way.
const SLACK_BYTES: u64 = 64 * 1024;
/// An agent kills what does not stop within seconds. One that was told to stop and does
/// not end the job by then is stuck.
const ABORT_LIMIT: Duration = Duration::from_secs(60);
/// A job that ended long ago is still to be asked for its result: longer than it takes to
/// reach its instance and to join.
const JOINED_AFTER: Duration = Duration::from_secs(5 * 60);
/// Bounds of the time between two signs of life to an agent.
const SHORTEST_PING_INTERVAL: Duration = Duration::from_millis(250);
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Jobs have an end everywhere; this is for those of records without one.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What following a job came to.
pub(crate) enum Told<'a> {
    /// It ended.
    Ended { record: Box<JobRecord>, ended: Ended<'a> },
    /// It goes on without us; the next process will find it in the state.
    Detached,
}

impl Told<'_> {
    /// A job that ended before any agent had it.
    pub(super) fn without_agent(record: JobRecord, preamble: String, outcome: Outcome) -> Self {
        let rest = preamble.into_bytes();
        let ended = Ended::Without { outcome, stored: 0, rest, silent: false };
        Self::Ended { record: Box::new(record), ended }
    }
}

/// Why the following ended.
enum Stop {
    Finished(AgentFinished),
    /// The agent, or the instance with it, is lost.
    Lost(String),
    /// It may still be there, and does not do what it must.
    Stuck(String),
    Detached,
}

/// One job that runs.
pub(crate) struct Follow<'a> {
    pub(super) runner: &'a Runner,
    pub(super) record: JobRecord,
    pub(super) token: Secret,
    pub(super) acquisition: Acquisition,
    pub(super) line: Option<AgentLine>,
    pub(super) joiner: Joiner,
    pub(super) pending: Pending,
    credit: u64,
    /// When the job must have ended, come what may.
    overdue: Instant,
    /// What the server says of the job.
    pub(super) server: JobState,
    /// It is being stopped, and shall end like this.
    interruption: Option<Outcome>,
    update_interval: Duration,
    pub(super) outcome: Outcome,
}

impl<'a> Follow<'a> {
    /// `line` is that of the agent that holds the plan; without one the job is joined.
    pub(super) fn new(
        runner: &'a Runner,
        record: JobRecord,
        acquisition: Acquisition,
        line: Option<AgentLine>,
    ) -> Self {
        let left = left(record.overdue_s);
        Self {
            runner,
            token: Secret::new(record.token.clone()),
            joiner: Joiner::new(&record.job_key),
            overdue: Instant::now() + if line.is_some() { left } else { left.max(JOINED_AFTER) },
            record,
            acquisition,
            line,
            pending: Pending::default(),
            credit: 0,
            server: JobState::Running,
            interruption: None,
            update_interval: UPDATE_INTERVAL,
            outcome: Outcome::success(),
        }
    }

    /// Follows the job to its end.
    pub(super) async fn run(mut self) -> Told<'a> {
        self.begin().await;
        match self.listen().await {
            Stop::Detached => Told::Detached,
            Stop::Finished(finished) => {
                self.outcome = finished.outcome.clone().unwrap_or_default();
                let record = Box::new(self.record.clone());
                Told::Ended { record, ended: Ended::ByAgent(Box::new(self), finished) }
            }
            Stop::Stuck(why) => {
                self.acquisition.give_up_instance(Reason::SlotFailed);
                self.without_agent(why).await
            }
            Stop::Lost(why) => self.without_agent(why).await,
        }
    }

    /// The end of a job whose agent says nothing more.
    async fn without_agent(mut self, why: String) -> Told<'a> {
        let outcome = self
            .interruption
            .take()
            .unwrap_or_else(|| Outcome::failure(FailureReason::RunnerSystemFailure, why));
        let rest = self.unsent();
        // Its slot is another job's before the server has heard the end: the next process
        // must not take it for this one's.
        self.record.instance.clear();
        let (reason, message) = (outcome.reason, outcome.message.clone());
        self.record.lost = Some(LostRecord { reason, message });
        let (state, key) = (&self.runner.shared.state, &self.runner.key);
        if let Err(error) = state.put_job(key, &self.record).await {
            tracing::error!(%error, "cannot write down that a job has left its slot");
        }
        let silent = self.server == JobState::Over;
        let stored = self.pending.stored();
        Told::Ended {
            record: Box::new(self.record),
            ended: Ended::Without { outcome, stored, rest, silent },
        }
    }

    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// `go`, to an agent that holds the plan.
    async fn begin(&mut self) {
        if self.line.is_some() {
            self.say(to_agent::Message::Go(Go {})).await;
            self.give_credit().await;
            self.keep_alive();
        }
    }

    async fn listen(&mut self) -> Stop {
        let shared = &self.runner.shared;
        let (aborting, detaching) = (shared.aborting.clone(), shared.detaching.clone());
        let evicted = self.acquisition.evicted().clone();
        let mut ticks = interval_at(Instant::now() + FIRST_UPDATE, self.update_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let overdue = tokio::time::sleep_until(self.overdue);
            let may_go_on = self.interruption.is_none();
            let Some(line) = &mut self.line else {
                let from = self.pending.end();
                tokio::select! {
                    joined = self.joiner.join(&self.acquisition, from) => match joined {
                        Ok(line) => self.joined(line).await,
                        Err(why) => return Stop::Lost(why),
                    },
                    _ = ticks.tick() => self.update_unless_ending(&mut ticks).await,
                    () = overdue => return self.stuck(),
                    () = aborting.cancelled(), if may_go_on => self.interrupt(interrupted()).await,
                    () = evicted.cancelled(), if may_go_on => self.interrupt(removed()).await,
                    () = detaching.cancelled() => return Stop::Detached,
                }
                continue;
            };
            tokio::select! {
                message = line.next() => {
                    if let Some(stop) = self.heard(message).await {
                        return stop;
                    }
                }
                _ = ticks.tick() => self.update_unless_ending(&mut ticks).await,
                () = overdue => return self.stuck(),
                () = aborting.cancelled(), if may_go_on => self.interrupt(interrupted()).await,
                () = evicted.cancelled(), if may_go_on => self.interrupt(removed()).await,
                () = detaching.cancelled() => return Stop::Detached,
            }
        }
    }

    fn stuck(&self) -> Stop {
        Stop::Stuck("the job's agent did not end the job when it had to".into())
    }

    async fn heard(&mut self, message: Option<from_agent::Message>) -> Option<Stop> {
        if message.is_some() {
            self.joiner.heard();
        }
        match message {
            Some(from_agent::Message::Log(log)) => {
                if log.offset + log.data.len() as u64 > self.credit + SLACK_BYTES {
                    return Some(Stop::Stuck("the job's agent sends more than it may".into()));
                }
                if let Err(end) = self.pending.take(log.offset, &log.data) {
                    tracing::debug!(
                        offset = log.offset,
                        end,
                        "a piece of the log is missing, asking again"
                    );
                    self.say(to_agent::Message::Attach(Attach { from: end, ..Attach::default() }))
                        .await;
                }
            }
            Some(from_agent::Message::Progress(progress)) => {
                self.runner.shared.events.tell(self.record.job, JobStep::Stage(progress));
            }
            Some(from_agent::Message::Finished(finished)) => return Some(Stop::Finished(finished)),
            Some(from_agent::Message::Lost(lost)) => return Some(Stop::Lost(lost.message)),
            Some(from_agent::Message::Refused(refused)) => {
                return Some(Stop::Lost(format!(
                    "the instance does not know the job any more: {}",
                    refused.message
                )));
            }
            Some(_) => {}
            None => {
                tracing::debug!("the line to the job is lost, joining it again");
                self.line = None;
            }
        }
        None
    }

    pub(super) async fn joined(&mut self, line: AgentLine) {
        self.line = Some(line);
        self.credit = 0;
        self.give_credit().await;
        self.keep_alive();
        if self.server == JobState::Canceling {
            self.say(to_agent::Message::Cancel(Cancel {})).await;
        }
        if self.interruption.is_some() || self.server == JobState::Over {
            self.abort().await;
        }
    }

    /// A server that hangs must not hold an ending up. A piece of log whose answer was not
    /// awaited is sent again, and the server says that it has it.
    async fn update_unless_ending(&mut self, ticks: &mut tokio::time::Interval) {
        let shared = self.runner.shared.clone();
        let evicted = self.acquisition.evicted().clone();
        let may_go_on = self.interruption.is_none();
        tokio::select! {
            () = self.update(ticks) => {}
            () = shared.detaching.cancelled() => {}
            () = shared.aborting.cancelled(), if may_go_on => {}
            () = evicted.cancelled(), if may_go_on => {}
        }
    }

    /// Once per interval: sends what there is of the log, or tells that the job lives. It
    /// is how the server's wish to cancel is heard, of a silent job too.
    async fn update(&mut self, ticks: &mut tokio::time::Interval) {
        if self.server == JobState::Over {
            return;
        }
        let ack = if self.pending.is_empty() {
            self.runner.client.touch(self.record.job, &self.token).await.map(Some)
        } else {
            match send(&mut self.pending, self.runner, &self.record, &self.token).await {
                Ok(Sent::Ack(ack)) => Ok(ack),
                Ok(Sent::NeedFrom(at)) => {
                    self.say(to_agent::Message::Attach(Attach { from: at, ..Attach::default() }))
                        .await;
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        match ack {
            Ok(Some(ack)) => {
                self.obey(ack).await;
                if ticks.period() != self.update_interval {
                    *ticks = interval(self.update_interval);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    ticks.reset();
                }
            }
            Ok(None) => {}
            // The next tick is the next attempt; the log waits on the instance.
            Err(error) => tracing::debug!(%error, "cannot update the job"),
        }
        self.give_credit().await;
    }

    async fn obey(&mut self, ack: Ack) {
        if let Some(interval) = ack.update_interval {
            self.update_interval = interval;
        }
        let before = std::mem::replace(&mut self.server, ack.job);
        if before == ack.job {
            return;
        }
        match ack.job {
            JobState::Running => {}
            JobState::Canceling => {
                tracing::info!("the job is being canceled");
                self.say(to_agent::Message::Cancel(Cancel {})).await;
            }
            JobState::Over => {
                tracing::info!("the job is over for the server, stopping it");
                self.abort().await;
            }
        }
    }

    async fn interrupt(&mut self, outcome: Outcome) {
        self.interruption = Some(outcome);
        self.abort().await;
    }

    async fn abort(&mut self) {
        let canceled = || Outcome::failure(FailureReason::JobCanceled, "canceled");
        let outcome = self.interruption.clone().unwrap_or_else(canceled);
        self.overdue = self.overdue.min(Instant::now() + ABORT_LIMIT);
        let abort = Abort { reason: outcome.reason, message: outcome.message };
        self.say(to_agent::Message::Abort(abort)).await;
    }

    /// Tells the agent all the time that a manager is there: it need not tell the server of
    /// the job by itself.
    fn keep_alive(&mut self) {
        if let Some(line) = &mut self.line
            && self.record.alone_after_ms > 0
        {
            let alone_after = Duration::from_millis(self.record.alone_after_ms);
            line.keep_alive((alone_after / 4).clamp(SHORTEST_PING_INTERVAL, PING_INTERVAL));
        }
    }

    /// Lets the agent send on, as the server takes the log.
    pub(super) async fn give_credit(&mut self) {
        let until = self.pending.stored() + WINDOW_BYTES;
        // An agent that has used up its credit says nothing more without a word of ours.
        let used_up = self.pending.end() >= self.credit;
        if until > self.credit + WINDOW_BYTES / 4 || (used_up && until > self.credit) {
            self.credit = until;
            self.say(to_agent::Message::Credit(Credit { until })).await;
        }
    }

    /// A line that does not take a word is lost; listening will notice.
    pub(super) async fn say(&mut self, message: to_agent::Message) {
        if let Some(line) = &self.line
            && let Err(error) = line.say(message).await
        {
            tracing::debug!(%error, "cannot speak to the agent");
            self.line = None;
        }
    }

    /// What is left of the log, with its last line ended.
    fn unsent(&self) -> Vec<u8> {
        let mut rest = self.pending.rest().to_vec();
        if !rest.is_empty() && !rest.ends_with(b"\n") {
            rest.push(b'\n');
        }
        rest
    }
}

/// The time to a second of the wall clock; far away if there is none.
fn left(overdue_s: u64) -> Duration {
    match overdue_s {
        0 => FAR,
        at => Duration::from_secs(at.saturating_sub(unix_seconds(SystemTime::now()))).min(FAR),
    }
}
