//! From running to ready, and back to ready after a lost connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduler::fleet::{Instance, InstanceId, Origin, Phase};
use scheduler::plan::Reason;
use tokio::time::timeout;

use super::{Group, Inner};
use crate::connect::{Access, Connection, DialError, Preparation, PrepareError, Remembered};
use crate::history::Event;
use crate::state::BootsRecord;

/// Waits between attempts while an instance comes up: short at first, since many come up
/// within milliseconds.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Between two looks at jobs that are not ours.
const STRANGERS_INTERVAL: Duration = Duration::from_secs(15);
/// Some providers list an instance as running a moment before they know its address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(10);
/// How long the plugin may take to say how to reach an instance that was reached before.
const PLUGIN_PATIENCE: Duration = Duration::from_secs(5);

impl Group {
    /// Begins to prepare an instance.
    pub(super) fn prepare(self: &Arc<Self>, id: &InstanceId) {
        let now = self.now().moment;
        self.lock().fleet.preparing(id, now);
        let (group, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = group.keep_preparing(&id) => {}
                () = group.ending.cancelled() => {}
            }
        });
    }

    /// Starts the agent of a slot ahead of its next job.
    pub(super) fn arm(self: &Arc<Self>, connection: Arc<Connection>, slot: u32) {
        self.tasks.spawn(async move {
            if let Err(error) = connection.arm(slot).await {
                tracing::debug!(%error, slot, "no agent waits on the slot");
            }
        });
    }

    /// Tries until it works, cannot work, or the instance is given up by its deadline.
    async fn keep_preparing(self: &Arc<Self>, id: &InstanceId) {
        let (mut wait, mut told) = (FIRST_WAIT, String::new());
        let begun = Instant::now();
        while self.is_worth_preparing(id) {
            let error = match self.prepare_once(id).await {
                Ok((connection, busy)) => return self.prepared(id, connection, busy),
                Err(error) => error,
            };
            let no_address = matches!(error, PrepareError::Dial(DialError::NoAddress));
            if !error.may_pass() || (no_address && begun.elapsed() > ADDRESS_LIMIT) {
                tracing::warn!(instance = %id, %error, "instance cannot be prepared");
                let (instance, why) = (id.0.clone(), error.to_string());
                self.tell(Event::InstanceUnfit { instance, why });
                let now = self.now().moment;
                self.lock().fleet.preparation_failed(id, now);
                self.connections_changed.notify_waiters();
                self.changed.notify_one();
                return;
            }
            // One that is reached and not fit yet is told, once for each cause.
            let why = error.to_string();
            if matches!(error, PrepareError::Step { .. }) && why != told {
                tracing::warn!(instance = %id, why, "instance is not ready yet");
                told = why;
            } else {
                tracing::debug!(instance = %id, why, "instance is not ready yet");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// While it may become ready, or runs jobs that want their connection back.
    fn is_worth_preparing(&self, id: &InstanceId) -> bool {
        let inner = self.lock();
        inner.fleet.instance(id).is_some_and(|instance| match instance.phase() {
            Phase::Preparing => true,
            Phase::Draining => instance.acquired() > 0,
            _ => false,
        })
    }

    /// The connection, and the slots on which jobs of someone run that we do not know.
    async fn prepare_once(
        &self,
        id: &InstanceId,
    ) -> Result<(Connection, BTreeSet<u32>), PrepareError> {
        let mut remembered = self.remembered(id);
        let access = self.access(id, &remembered).await?;
        let preparation = Preparation {
            agents: Arc::clone(&self.agents),
            own_key: self.own_key.clone(),
            ready_command: self.tuning().ready_command.clone(),
            docker: self.docker_of(id),
        };
        let result = preparation.attempt(&access, &mut remembered).await;
        let was_ready = self.lock().fleet.instance(id).is_some_and(Instance::was_ready);
        let busy = match &result {
            Ok(connection) if !was_ready => busy_slots(connection).await,
            _ => Ok(BTreeSet::new()),
        };
        let has_strangers = busy.as_ref().is_ok_and(|busy| !busy.is_empty());
        // Without an answer it is not ready: the next attempt asks again, and writes.
        remembered.ready &= busy.is_ok();
        self.remember(id, remembered, has_strangers).await;
        Ok((result?, busy?))
    }

    /// How to reach it, as the plugin says. One that was reached before is reached by our own
    /// key, too, and without a plugin that does not answer.
    async fn access(
        &self,
        id: &InstanceId,
        remembered: &Remembered,
    ) -> Result<Access, PrepareError> {
        let failed =
            |why: String| PrepareError::Step { step: "asking the plugin how to connect", why };
        let known = remembered.login.clone().filter(|_| remembered.ready);
        let provider = self.provider();
        let asked = provider.connect_info(id);
        let info = match &known {
            None => asked.await.map_err(|error| error.to_string()),
            Some(_) => match timeout(PLUGIN_PATIENCE, asked).await {
                Ok(info) => info.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            },
        };
        let info = match (info, known) {
            (Ok(info), _) => info,
            (Err(why), Some(login)) => {
                tracing::debug!(instance = %id, why, "connecting without the plugin");
                return Ok(Access::by_own_key(login, &self.own_key));
            }
            (Err(why), None) => return Err(failed(why)),
        };
        // Our own key is there once an instance was prepared.
        let own = remembered.ready.then_some(&self.own_key);
        let access = Access::new(&info, self.source().template.use_external_addr, own)?;
        // The template of now says nothing of an instance that another one made.
        Ok(match remembered.login.clone().filter(|_| self.is_doomed(id)) {
            Some(login) => access.at(login),
            None => access,
        })
    }

    fn is_doomed(&self, id: &InstanceId) -> bool {
        self.lock().records.get(id).is_some_and(|record| !record.doomed.is_empty())
    }

    fn remembered(&self, id: &InstanceId) -> Remembered {
        let inner = self.lock();
        inner.records.get(id).map(|record| record.remembered.clone()).unwrap_or_default()
    }

    /// Keeps what a preparation learned, also that jobs may run there that are not ours,
    /// before anyone relies on it.
    async fn remember(&self, id: &InstanceId, remembered: Remembered, has_strangers: bool) {
        let record = {
            let mut inner = self.lock();
            if inner.fleet.instance(id).is_none() {
                return;
            }
            let Inner { records, fleet, .. } = &mut *inner;
            let record = records.entry(id.clone()).or_default();
            let is_unrecorded = fleet.instance(id).is_some_and(|instance| {
                instance.origin() == Origin::Unrecorded
                    || instance.drain_reason() == Some(Reason::Unrecorded)
            });
            let strange = record.strange || is_unrecorded || has_strangers;
            if record.remembered == remembered && record.strange == strange {
                return;
            }
            record.remembered = remembered;
            record.strange = strange;
            record.clone()
        };
        let (state, key) = (&self.state, &self.key);
        if let Err(error) = state.put_instance(key, &id.0, &record).await {
            tracing::error!(%error, "cannot write the state");
        }
    }

    fn prepared(self: &Arc<Self>, id: &InstanceId, connection: Connection, busy: BTreeSet<u32>) {
        let connection = Arc::new(connection);
        let now = self.now().moment;
        let slots: Vec<u32> = {
            let mut inner = self.lock();
            let first = inner.fleet.instance(id).is_some_and(|instance| !instance.was_ready());
            if first {
                let mode = if connection.facts.detached { "detached" } else { "attached" };
                tracing::info!(instance = %id, mode, "instance is ready");
                let since = inner.fleet.instance(id).map_or(now, Instance::known_since);
                let after_s = now.since(since).as_secs_f64();
                self.tell(Event::InstanceReady { instance: id.0.clone(), after_s });
            }
            if !busy.is_empty() {
                tracing::warn!(
                    instance = %id,
                    jobs = busy.len(),
                    "jobs run there that this manager does not know: the instance stays until they have ended"
                );
                self.watch_strangers(id.clone());
            }
            inner.fleet.prepared(id, busy, now);
            if first {
                self.remember_boots(&inner);
            }
            inner.connections.insert(id.clone(), Arc::clone(&connection));
            self.dispatch(&mut inner);
            let instance = inner.fleet.instance(id);
            let ready = instance.filter(|instance| instance.phase() == Phase::Ready);
            ready.map_or_else(Vec::new, |instance| {
                let used: Vec<u32> = instance.slots().collect();
                (0..self.tuning().limits.capacity).filter(|slot| !used.contains(slot)).collect()
            })
        };
        self.connections_changed.notify_waiters();
        self.capacity_changed.notify_waiters();
        self.changed.notify_one();
        for slot in slots {
            self.arm(Arc::clone(&connection), slot);
        }
        self.watch(id.clone(), connection);
    }

    /// How long instances take to come up is worth knowing for the next process.
    fn remember_boots(&self, inner: &Inner) {
        let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let boots = BootsRecord { millis: inner.fleet.boots.all().map(millis).collect() };
        let (state, key) = (self.state.clone(), self.key.clone());
        self.tasks.spawn(async move {
            if let Err(error) = state.put_boots(&key, &boots).await {
                tracing::error!(%error, "cannot write the state");
            }
        });
    }

    /// Looks from time to time whether jobs that we do not know have ended.
    fn watch_strangers(self: &Arc<Self>, id: InstanceId) {
        let group = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(STRANGERS_INTERVAL) => {}
                    () = group.ending.cancelled() => return,
                }
                let busy = match group.connection(&id).await {
                    Some(connection) => busy_slots(&connection).await,
                    // It was given up, and they with it.
                    None => Ok(BTreeSet::new()),
                };
                let Ok(busy) = busy else { continue };
                let ended = busy.is_empty();
                let now = group.now().moment;
                group.lock().fleet.occupied(&id, busy, now);
                if ended {
                    group.changed.notify_one();
                    return;
                }
            }
        });
    }

    /// Prepares the instance anew when its connection is lost.
    fn watch(self: &Arc<Self>, id: InstanceId, connection: Arc<Connection>) {
        let group = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = connection.lost().cancelled_owned() => {}
                () = group.ending.cancelled() => return,
            }
            let is_current = {
                let mut inner = group.lock();
                let current = inner.connections.get(&id).is_some_and(|c| Arc::ptr_eq(c, &connection));
                if current {
                    inner.connections.remove(&id);
                }
                current
            };
            if is_current {
                tracing::warn!(instance = %id, "the connection to the instance is lost, connecting again");
                group.tell(Event::ConnectionLost { instance: id.0.clone() });
                group.prepare(&id);
            }
        });
    }
}

async fn busy_slots(connection: &Connection) -> Result<BTreeSet<u32>, PrepareError> {
    let step = "asking the instance for running jobs";
    connection
        .busy_slots()
        .await
        .map_err(|error| PrepareError::Step { step, why: error.to_string() })
}
