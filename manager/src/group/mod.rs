//! One instance group: the control loop, and the handle by which jobs get slots.
//!
//! observe → decide → act: the loop (`control`) wakes for any reason, looks at
//! everything, asks the scheduler what to do and starts it (`act`). Nothing that takes
//! time is waited for there: its end is one more wake-up.

mod acquisition;
mod act;
mod change;
mod control;
mod images;
mod operator;
mod prepare;
mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use scheduler::boot::BootTimes;
use scheduler::fleet::{AskId, InstanceId, Known};
use scheduler::plan::Reason;
use scheduler::time::Moment;
use scheduler::{Fleet, Limits, Now, Schedule};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Template;
use crate::connect::{Agents, Connection, OwnKey};
use crate::history::{Event, History};
use crate::plugin::Provider;
use crate::state::{InstanceRecord, State};

pub(crate) use acquisition::{Acquisition, Reservation};
pub(crate) use operator::{LoginInfo, NoLogin};
#[cfg(test)]
pub(crate) use snapshot::{BootStatus, HeldBack, SlotStatus};
pub(crate) use snapshot::{GroupStatus, InstanceStatus};

/// What a group is made of.
pub(crate) struct Parts {
    /// Names it in state.
    pub(crate) key: String,
    pub(crate) history: History,
    pub(crate) tuning: Tuning,
    pub(crate) source: Source,
    pub(crate) agents: Arc<Agents>,
    pub(crate) own_key: OwnKey,
    pub(crate) state: State,
    /// Running jobs are left to their agents: their slots stay theirs.
    pub(crate) detaching: CancellationToken,
}

/// Where instances come from, and what they are made from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) provider: Arc<Provider>,
    pub(crate) template: Template,
    /// The plugin's name of its group, and the most instances that it allows.
    pub(crate) id: String,
    pub(crate) max_size: u32,
}

/// What may change at any time while the group runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// The entry's name, for people.
    pub(crate) name: String,
    pub(crate) ready_command: String,
    /// The Docker daemon that instances must have; `None` where jobs are processes.
    pub(crate) docker_host: Option<String>,
    /// How long a job may wait for a slot.
    pub(crate) instance_acquire_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) schedule: Schedule,
    /// How often a deletion is asked for again while the manager ends.
    pub(crate) shutdown_deletion_interval: Duration,
    /// Jobs in a row that an instance may fail to take.
    pub(crate) failure_threshold: u32,
    pub(crate) update_interval: Duration,
    pub(crate) update_interval_when_expecting: Duration,
}

/// One instance group.
pub(crate) struct Group {
    key: String,
    history: History,
    agents: Arc<Agents>,
    own_key: OwnKey,
    state: State,
    detaching: CancellationToken,
    source: Mutex<Source>,
    tuning: Mutex<Arc<Tuning>>,
    started: Instant,
    inner: Mutex<Inner>,
    /// Something changed: the loop looks.
    changed: Notify,
    /// An instance got or lost its connection.
    connections_changed: Notify,
    /// There may be a slot to promise.
    capacity_changed: Notify,
    tasks: TaskTracker,
    /// Jobs that were taken for it, until the server knows their end.
    jobs: TaskTracker,
    ending: CancellationToken,
}

/// What changes, under one short lock that is never held over an await.
#[derive(Default)]
struct Inner {
    fleet: Fleet,
    /// Every ready instance has one.
    connections: BTreeMap<InstanceId, Arc<Connection>>,
    records: BTreeMap<InstanceId, InstanceRecord>,
    /// Cancelled for instances that do not wait for their jobs.
    evictions: BTreeMap<InstanceId, CancellationToken>,
    images: images::Images,
    /// Jobs in a row that an instance did not take.
    slot_failures: BTreeMap<InstanceId, u32>,
    waiters: VecDeque<acquisition::Waiter>,
    next_waiter: u64,
    /// Everything is to go, for this reason.
    ends: Option<Reason>,
    /// Nothing is left of it, and nothing will be.
    over: bool,
    /// The reason that last held creation back, so that it is told once.
    told_bound: Option<Reason>,
    /// It was told that instances come up too slowly for jobs to wait for them.
    told_slow: bool,
}

impl Inner {
    fn evicted(&mut self, id: &InstanceId) -> CancellationToken {
        self.evictions.entry(id.clone()).or_default().clone()
    }
}

impl Group {
    /// A group with what state knows of it. Jobs that were running hold their slots.
    pub(crate) fn new(mut parts: Parts) -> Arc<Self> {
        parts.tuning.limits.provider_max_size = parts.source.max_size;
        let group = Self {
            tuning: Mutex::new(Arc::new(parts.tuning)),
            key: parts.key,
            history: parts.history,
            agents: parts.agents,
            own_key: parts.own_key,
            state: parts.state,
            detaching: parts.detaching,
            source: Mutex::new(parts.source),
            started: Instant::now(),
            inner: Mutex::default(),
            changed: Notify::new(),
            connections_changed: Notify::new(),
            capacity_changed: Notify::new(),
            tasks: TaskTracker::new(),
            jobs: TaskTracker::new(),
            ending: CancellationToken::new(),
        };
        group.restore();
        Arc::new(group)
    }

    fn restore(&self) {
        let now = self.now().moment;
        let (state, key) = (&self.state, &self.key);
        let jobs = state.jobs(key);
        let mut inner = self.lock();
        for (id, record) in state.instances(key) {
            let slots: Vec<u32> =
                jobs.iter().filter(|job| job.instance == id).map(|job| job.slot).collect();
            let id = InstanceId(id);
            if record.strange && slots.is_empty() {
                inner.fleet.unrecorded(id.clone(), now);
                inner.records.insert(id, record);
                continue;
            }
            let (uses, was_ready) = (record.uses, record.remembered.ready);
            let doomed = Reason::named(&record.doomed);
            let known = Known { uses, was_ready, slots, doomed };
            inner.fleet.recorded(id.clone(), known, now);
            inner.records.insert(id, record);
        }
        let boots = state.boots(key).unwrap_or_default();
        inner.fleet.boots = BootTimes::of(boots.millis.into_iter().map(Duration::from_millis));
        for (id, ask) in state.asks(key) {
            if let Ok(id) = id.parse() {
                inner.fleet.recorded_ask(AskId(id), ask.n, Reason::named(&ask.doomed), now);
            }
        }
    }

    fn now(&self) -> Now {
        Now { moment: Moment(self.started.elapsed()), wall: jiff::Timestamp::now() }
    }

    /// The numbers of now, within what the provider's group allows.
    fn tuning(&self) -> Arc<Tuning> {
        Arc::clone(&self.tuning.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn provider(&self) -> Arc<Provider> {
        self.source().provider
    }

    /// Where its instances come from now.
    pub(crate) fn source(&self) -> Source {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn jobs(&self) -> &TaskTracker {
        &self.jobs
    }

    /// Names it in state.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    fn tell(&self, event: Event) {
        self.history.tell(&self.tuning().name, event);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock leaves facts that are still facts.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when there may be a slot to promise; hears what happens from now on, not
    /// only while it is awaited.
    pub(crate) fn capacity_changed(&self) -> Notified<'_> {
        self.capacity_changed.notified()
    }

    /// The connection of an instance, waiting for it to come (back); `None` once the
    /// instance is gone or given up.
    pub(crate) async fn connection(&self, id: &InstanceId) -> Option<Arc<Connection>> {
        loop {
            let changed = self.connections_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let inner = self.lock();
                if let Some(connection) = inner.connections.get(id) {
                    return Some(Arc::clone(connection));
                }
                let instance = inner.fleet.instance(id)?;
                let hopeless =
                    [Reason::Unreachable, Reason::BootDeadline, Reason::PreparationFailed];
                if instance.drain_reason().is_some_and(|reason| hopeless.contains(&reason)) {
                    return None;
                }
            }
            tokio::select! {
                () = &mut changed => {}
                () = self.ending.cancelled() => return None,
            }
        }
    }

    /// Stops the loop, leaves instances and their jobs alone, ends the plugin.
    pub(crate) async fn detach(&self) {
        self.ending.cancel();
        self.tasks.close();
        let connections: Vec<_> = self.lock().connections.values().cloned().collect();
        act::close_all(connections).await;
        self.provider().stop().await;
    }

    /// Deletes all instances that hold no job, and waits until the provider no longer
    /// lists them, at most `limit`. Returns how many are left.
    pub(crate) async fn delete_all(&self, limit: Duration) -> usize {
        self.end_for(Reason::ShuttingDown);
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let left = {
                let inner = self.lock();
                inner.fleet.instances().count() + inner.fleet.asks().len()
            };
            if left == 0 || tokio::time::Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
