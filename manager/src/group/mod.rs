//! One instance group: the control loop, and the handle by which jobs get slots.
//!
//! observe → decide → act: the loop (`control`) wakes for any reason, looks at
//! everything, asks the scheduler what to do and starts it (`act`). Nothing that takes
//! time is waited for there: its end is one more wake-up.

mod acquisition;
mod act;
mod control;
mod prepare;
mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use scheduler::fleet::{AskId, InstanceId, Known};
use scheduler::plan::Reason;
use scheduler::time::Moment;
use scheduler::{Fleet, Limits, Now, Schedule};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::{Connection, Preparation};
use crate::history::{Event, History};
use crate::plugin::Provider;
use crate::state::{InstanceRecord, State};

pub(crate) use acquisition::{Acquisition, NoCapacity, Reservation};
pub(crate) use snapshot::{GroupStatus, InstanceStatus};

/// What a group is made of.
pub(crate) struct Parts {
    /// Names it in state.
    pub(crate) key: String,
    /// Names it for people.
    pub(crate) name: String,
    pub(crate) history: History,
    pub(crate) tuning: Tuning,
    /// The most instances that the provider's group allows.
    pub(crate) provider_max_size: u32,
    pub(crate) provider: Provider,
    pub(crate) preparation: Preparation,
    pub(crate) use_external_addr: bool,
    pub(crate) state: State,
    /// Running jobs are left to their agents: their slots stay theirs.
    pub(crate) detaching: CancellationToken,
}

/// What may change while the group runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuning {
    pub(crate) limits: Limits,
    pub(crate) schedule: Schedule,
    pub(crate) update_interval: Duration,
    pub(crate) update_interval_when_expecting: Duration,
}

/// One instance group.
pub(crate) struct Group {
    parts: Parts,
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
    ending: CancellationToken,
}

/// What changes, under one short lock that is never held over an await.
#[derive(Default)]
struct Inner {
    fleet: Fleet,
    /// Every ready instance has one.
    connections: BTreeMap<InstanceId, Arc<Connection>>,
    records: BTreeMap<InstanceId, InstanceRecord>,
    /// Jobs in a row that an instance did not take.
    slot_failures: BTreeMap<InstanceId, u32>,
    waiters: VecDeque<acquisition::Waiter>,
    next_waiter: u64,
    /// Everything is to go: the runner ends and is told to delete its instances.
    deleting_all: bool,
    /// The reason that last held creation back, so that it is told once.
    told_bound: Option<Reason>,
}

impl Parts {
    fn tuned(&self, mut tuning: Tuning) -> Tuning {
        tuning.limits.provider_max_size = self.provider_max_size;
        tuning
    }
}

impl Group {
    /// A group with what state knows of it. Jobs that were running hold their slots.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let group = Self {
            tuning: Mutex::new(Arc::new(parts.tuned(parts.tuning.clone()))),
            started: Instant::now(),
            inner: Mutex::default(),
            changed: Notify::new(),
            connections_changed: Notify::new(),
            capacity_changed: Notify::new(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            parts,
        };
        group.restore();
        Arc::new(group)
    }

    fn restore(&self) {
        let now = self.now().moment;
        let (state, key) = (&self.parts.state, &self.parts.key);
        let jobs = state.jobs(key);
        let mut inner = self.lock();
        for (id, record) in state.instances(key) {
            let slots: Vec<u32> =
                jobs.iter().filter(|job| job.instance == id).map(|job| job.slot).collect();
            let id = InstanceId(id);
            let known = Known { uses: record.uses, was_ready: record.remembered.ready, slots };
            inner.fleet.recorded(id.clone(), known, now);
            inner.records.insert(id, record);
        }
        for (id, ask) in state.asks(key) {
            if let Ok(id) = id.parse() {
                inner.fleet.recorded_ask(AskId(id), ask.n, now);
            }
        }
    }

    fn now(&self) -> Now {
        Now { moment: Moment(self.started.elapsed()), wall: jiff::Timestamp::now() }
    }

    /// Works with these numbers from now on.
    pub(crate) fn retune(&self, tuning: Tuning) {
        let tuning = Arc::new(self.parts.tuned(tuning));
        *self.tuning.lock().unwrap_or_else(PoisonError::into_inner) = tuning;
        self.changed.notify_one();
        self.capacity_changed.notify_waiters();
    }

    fn tuning(&self) -> Arc<Tuning> {
        Arc::clone(&self.tuning.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, event: Event) {
        self.parts.history.tell(&self.parts.name, event);
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
        for connection in connections {
            connection.close().await;
        }
        self.parts.provider.stop().await;
    }

    /// Deletes all instances that hold no job, and waits until the provider no longer
    /// lists them, at most `limit`. Returns how many are left.
    pub(crate) async fn delete_all(&self, limit: Duration) -> usize {
        self.lock().deleting_all = true;
        self.changed.notify_one();
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
