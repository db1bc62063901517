//! What the manager holds of a prepared instance: its sessions, and on each free slot an
//! agent that waits for a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use job::plan::Containers;
use job::wire::{Attach, OLDEST_PROTOCOL, Ready, from_agent, negotiate, to_agent};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::line::AgentLine;
use super::prepare::quote;
use super::ssh::{Access, Session};

/// OpenSSH allows 10 sessions per connection; two stay free for attach and probes.
const AGENTS_PER_SESSION: u32 = 8;
/// Starting an agent takes a process start and a round trip.
const ARM_LIMIT: Duration = Duration::from_secs(10);

/// An agent that made something ahead of a job removes it, and ends.
const DISMISSAL: Duration = Duration::from_secs(4);

/// A timer that fires so much too late says that this process has too much to do.
const LATE: Duration = Duration::from_millis(100);

/// What is known of the instance.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The login directory.
    pub(crate) home: String,
    /// The agent's directory.
    pub(crate) base: String,
    /// The agent's binary.
    pub(crate) agent: String,
    /// Architecture in Go's words.
    pub(crate) arch: String,
    /// Whether jobs there outlive the connection.
    pub(crate) detached: bool,
    /// Whether it has git.
    pub(crate) has_git: bool,
}

/// An agent that waits for a plan.
pub(crate) struct Armed {
    pub(crate) line: AgentLine,
    pub(crate) protocol: u32,
    /// It was told to make something ahead, which it has to remove if no job comes.
    makes_ahead: bool,
}

/// Why no agent can be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ArmError(String);

/// A prepared instance.
pub(crate) struct Connection {
    pub(crate) facts: Facts,
    access: Access,
    lost: CancellationToken,
    /// Nothing is made ahead any more.
    closing: CancellationToken,
    /// The first is that of the preparation; more are dialed where one is not enough.
    sessions: AsyncMutex<Vec<Arc<Session>>>,
    /// A slot's lock is held while its agent is started: a second one would take the slot
    /// from the first.
    slots: Mutex<BTreeMap<u32, Arc<AsyncMutex<Option<Armed>>>>>,
    /// What the last job of each slot ran in.
    habits: Mutex<BTreeMap<u32, Habit>>,
}

/// What jobs of a slot run in, as far as it can be made ahead.
struct Habit {
    shape: Containers,
    /// The last two had it.
    is_steady: bool,
}

impl Connection {
    pub(super) fn new(session: Session, access: Access, facts: Facts) -> Self {
        Self {
            facts,
            access,
            lost: session.closed.clone(),
            closing: CancellationToken::new(),
            sessions: AsyncMutex::new(vec![Arc::new(session)]),
            slots: Mutex::default(),
            habits: Mutex::default(),
        }
    }

    /// A job of this slot runs in these containers, if any of them are to be made ahead. The
    /// next one is taken for one of its kind if the one before it was: what does not fit is
    /// made and thrown away for nothing.
    pub(crate) fn used(&self, slot: u32, containers: Option<&Containers>) {
        let mut habits = self.habits.lock().unwrap_or_else(PoisonError::into_inner);
        let before = habits.remove(&slot);
        if let Some(shape) = containers.and_then(job::ahead::shape) {
            let is_steady = before.is_some_and(|before| before.shape == shape);
            habits.insert(slot, Habit { shape, is_steady });
        }
    }

    /// What the slot's next job will likely run in.
    fn likely(&self, slot: u32) -> Option<Containers> {
        let habits = self.habits.lock().unwrap_or_else(PoisonError::into_inner);
        habits.get(&slot).filter(|habit| habit.is_steady).map(|habit| habit.shape.clone())
    }

    /// User, host and port.
    pub(crate) fn login(&self) -> (String, String, u16) {
        self.access.login()
    }

    /// Cancelled when the instance cannot be reached any more. Noticed by keepalive.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Whether the instance answers now. One that does not is taken for lost, and connected
    /// to again; but not where it is this process that was late.
    pub(crate) async fn is_alive(&self, limit: Duration) -> bool {
        let Ok(Ok(session)) = timeout(limit, self.session(0)).await else {
            return !self.lost.is_cancelled();
        };
        let due = Instant::now() + limit;
        let is_alive = session.answers(limit).await || Instant::now() > due + LATE;
        if !is_alive {
            self.lost.cancel();
        }
        is_alive
    }

    /// An agent for the slot: the one that waits, or a new one.
    pub(crate) async fn take_agent(&self, slot: u32) -> Result<Armed, ArmError> {
        let place = self.slot(slot);
        let mut waiting = place.lock().await;
        match waiting.take() {
            Some(armed) if !armed.line.is_closed() => Ok(armed),
            _ => self.start_agent(slot).await,
        }
    }

    /// Makes an agent wait on the slot, ahead of its next job.
    pub(crate) async fn arm(&self, slot: u32) -> Result<(), ArmError> {
        let place = self.slot(slot);
        // Someone at work on the slot brings its own.
        let Ok(mut waiting) = place.try_lock() else {
            return Ok(());
        };
        if waiting.as_ref().is_none_or(|armed| armed.line.is_closed()) {
            let mut armed = self.start_agent(slot).await?;
            if let Some(shape) = self.likely(slot)
                && !self.closing.is_cancelled()
            {
                let told = armed.line.say(to_agent::Message::Ahead(shape)).await;
                armed.makes_ahead = told.is_ok();
            }
            *waiting = Some(armed);
        }
        Ok(())
    }

    fn slot(&self, slot: u32) -> Arc<AsyncMutex<Option<Armed>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(slot).or_default())
    }

    /// Joins a job that runs there, or ended there, from a byte of its log on.
    pub(crate) async fn attach(&self, job_key: &str, from: u64) -> Result<AgentLine, ArmError> {
        let command = format!(
            "exec {} attach --base {} --job {}",
            quote(&self.facts.agent),
            quote(&self.facts.base),
            quote(job_key)
        );
        let line = self.open(0, &command).await?;
        line.say(to_agent::Message::Attach(Attach { from, ..Attach::default() }))
            .await
            .map_err(|error| ArmError(error.to_string()))?;
        Ok(line)
    }

    /// The slots on which jobs run.
    pub(crate) async fn busy_slots(&self) -> Result<BTreeSet<u32>, ArmError> {
        let command =
            format!("exec {} slots --base {}", quote(&self.facts.agent), quote(&self.facts.base));
        let session = self.session(0).await?;
        let output =
            session.run(&command, bytes::Bytes::new(), ARM_LIMIT).await.map_err(ArmError)?;
        if !output.succeeded() {
            return Err(ArmError(output.complaint()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Ends the connection; jobs there go on. What was made ahead of jobs goes first.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        let slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ends = JoinSet::new();
        for place in slots.into_values() {
            ends.spawn(async move {
                let Ok(mut waiting) = timeout(DISMISSAL, place.lock()).await else { return };
                if let Some(armed) = waiting.take_if(|armed| armed.makes_ahead) {
                    armed.line.end(DISMISSAL).await;
                }
            });
        }
        ends.join_all().await;
        for session in self.sessions.lock().await.iter() {
            session.disconnect().await;
        }
    }

    async fn start_agent(&self, slot: u32) -> Result<Armed, ArmError> {
        let command = format!(
            "exec {} job --base {} --slot {slot}",
            quote(&self.facts.agent),
            quote(&self.facts.base)
        );
        let mut line = self.open(slot / AGENTS_PER_SESSION, &command).await?;
        let first = timeout(ARM_LIMIT, line.expect())
            .await
            .map_err(|_| {
                ArmError(format!("the agent did not answer within {} s", ARM_LIMIT.as_secs()))
            })?
            .map_err(|error| ArmError(error.to_string()))?;
        match first {
            from_agent::Message::Ready(ready) => {
                let protocol = common_protocol(&ready)?;
                Ok(Armed { line, protocol, makes_ahead: false })
            }
            from_agent::Message::Refused(refused) => Err(ArmError(refused.message)),
            other => Err(ArmError(format!("the agent opened with {other:?}"))),
        }
    }

    async fn open(&self, session: u32, command: &str) -> Result<AgentLine, ArmError> {
        let session = self.session(session as usize).await?;
        let opened = timeout(ARM_LIMIT, session.open(command)).await;
        match opened {
            Ok(Ok(channel)) => Ok(AgentLine::new(channel)),
            Ok(Err(error)) => Err(ArmError(format!("cannot open a channel: {error}"))),
            Err(_) => Err(ArmError("cannot open a channel in time".into())),
        }
    }

    async fn session(&self, index: usize) -> Result<Arc<Session>, ArmError> {
        let mut sessions = self.sessions.lock().await;
        while sessions.len() <= index {
            let more = self.one_more(&sessions[0].host_key).await?;
            sessions.push(more);
        }
        // The first is the instance's own: its loss is everyone's.
        if index > 0 && sessions[index].closed.is_cancelled() {
            sessions[index] = self.one_more(&sessions[0].host_key).await?;
        }
        Ok(Arc::clone(&sessions[index]))
    }

    async fn one_more(&self, host_key: &str) -> Result<Arc<Session>, ArmError> {
        let session = self.access.dial(Some(host_key)).await;
        session.map(Arc::new).map_err(|error| ArmError(error.to_string()))
    }
}

fn common_protocol(ready: &Ready) -> Result<u32, ArmError> {
    negotiate(ready.oldest_protocol, ready.newest_protocol).ok_or_else(|| {
        ArmError(format!(
            "the agent speaks protocols {} to {}, this manager needs at least {OLDEST_PROTOCOL}",
            ready.oldest_protocol, ready.newest_protocol
        ))
    })
}
