//! How a job gets a slot: reserve, acquire, release. Each is a guard that gives itself
//! back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scheduler::fleet::{InstanceId, NoSlot};
use scheduler::plan::Reason;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Group, Inner};
use crate::connect::Connection;
use crate::history::Event;
use crate::state::{JobRecord, StateError};

const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// A job that got no slot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    /// Not in time.
    #[error("no instance was ready within {} s{}", .waited_s, .bound.map(|b| format!(" (creation is held back: {})", b.as_str())).unwrap_or_default())]
    Timeout {
        /// How long it waited.
        waited_s: u64,
        /// What holds creation back.
        bound: Option<Reason>,
    },
    /// The group ends.
    #[error("the manager ends")]
    Ending,
}

/// A job that waits.
pub(super) struct Waiter {
    id: u64,
    /// Instances that just failed the job.
    except: Vec<InstanceId>,
    /// The image that it runs in; empty where it runs in none.
    image: String,
    sender: oneshot::Sender<Acquisition>,
}

/// The promise of a slot to a job that is being asked for.
pub(crate) struct Reservation {
    group: Arc<Group>,
    /// The promise was turned into a wait.
    spent: bool,
}

impl Group {
    /// Promises a slot: a free one, one that is coming, or one that may be made now.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Reservation, NoSlot> {
        let now = self.now();
        let tuning = self.tuning();
        let policy = tuning.schedule.at(now.wall);
        let mut inner = self.lock();
        let patience = tuning.instance_acquire_timeout;
        let promise = inner.fleet.may_promise(policy, &tuning.limits, patience, now);
        let is_too_slow = promise == Err(NoSlot::Bound(Reason::BootsTooSlow));
        // No plan tells of it: nothing is wanted for jobs that are not taken.
        if is_too_slow && !std::mem::replace(&mut inner.told_slow, true) {
            let reason = Reason::BootsTooSlow.as_str();
            tracing::warn!(reason, "jobs are not taken that would wait in vain");
            self.tell(Event::HeldBack { wanted: 1, reason: reason.into() });
        }
        promise?;
        inner.told_slow &= is_too_slow;
        inner.fleet.reserve();
        Ok(Reservation { group: Arc::clone(self), spent: false })
    }

    /// Promises a slot to a job that has lost the one that it was promised.
    pub(crate) fn reserve_again(self: &Arc<Self>) -> Reservation {
        self.lock().fleet.reserve();
        Reservation { group: Arc::clone(self), spent: false }
    }

    /// The slot of a job that was running before this process.
    pub(crate) fn recovered(self: &Arc<Self>, instance: InstanceId, slot: u32) -> Acquisition {
        let evicted = self.lock().evicted(&instance);
        Acquisition {
            group: Arc::clone(self),
            instance,
            slot,
            used: AtomicBool::new(true),
            connection: None,
            evicted,
        }
    }

    /// Gives free slots to waiting jobs, the first come first.
    pub(super) fn dispatch(self: &Arc<Self>, inner: &mut Inner) {
        let tuning = self.tuning();
        let mut still = std::mem::take(&mut inner.waiters);
        while let Some(waiter) = still.pop_front() {
            let limits = &tuning.limits;
            let with_image = inner.without_image(&waiter.image).and_then(|without| {
                inner.fleet.acquire(limits, &[without, waiter.except.clone()].concat())
            });
            let slot = with_image.or_else(|| inner.fleet.acquire(limits, &waiter.except));
            // Better the instance that failed it than none.
            match slot.or_else(|| inner.fleet.acquire(limits, &[])) {
                Some((instance, slot)) => {
                    inner.fleet.stop_waiting();
                    let connection = inner.connections.get(&instance).cloned();
                    let used = AtomicBool::new(false);
                    let group = Arc::clone(self);
                    let evicted = inner.evicted(&instance);
                    let acquisition =
                        Acquisition { group, instance, slot, used, connection, evicted };
                    // Where the job went away meanwhile, the slot is given back later:
                    // not now, its release takes this very lock.
                    if let Err(acquisition) = waiter.sender.send(acquisition) {
                        self.tasks.spawn(async move { drop(acquisition) });
                    }
                }
                None => inner.waiters.push_back(waiter),
            }
        }
    }
}

impl Reservation {
    /// Waits for the slot until `deadline`: rather where `image` is, not on `except`.
    pub(crate) async fn acquire(
        mut self,
        deadline: Instant,
        image: String,
        except: Vec<InstanceId>,
    ) -> Result<Acquisition, AcquireError> {
        self.spent = true;
        let group = Arc::clone(&self.group);
        let begun = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let waiting = {
            let mut inner = group.lock();
            inner.fleet.wait();
            let id = inner.next_waiter;
            inner.next_waiter += 1;
            inner.waiters.push_back(Waiter { id, except, image, sender });
            group.dispatch(&mut inner);
            Waiting { group: Arc::clone(&group), id }
        };
        group.changed.notify_one();
        let result = tokio::select! {
            result = receiver => result.map_err(|_| AcquireError::Ending),
            () = tokio::time::sleep_until(deadline) => {
                let bound = group.lock().told_bound;
                // The deadline counts from a moment before this.
                let waited_s = (begun.elapsed() + HALF_A_SECOND).as_secs();
                Err(AcquireError::Timeout { waited_s, bound })
            }
            () = group.ending.cancelled() => Err(AcquireError::Ending),
        };
        drop(waiting);
        result
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.spent {
            self.group.lock().fleet.unreserve();
        }
    }
}

/// Takes a job out of the queue, if it is still there.
struct Waiting {
    group: Arc<Group>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.group.lock();
        let before = inner.waiters.len();
        inner.waiters.retain(|waiter| waiter.id != self.id);
        if inner.waiters.len() < before {
            inner.fleet.stop_waiting();
        }
    }
}

/// A slot bound to a job. Dropped, it is released.
pub(crate) struct Acquisition {
    group: Arc<Group>,
    instance: InstanceId,
    slot: u32,
    used: AtomicBool,
    connection: Option<Arc<Connection>>,
    evicted: CancellationToken,
}

impl Acquisition {
    pub(crate) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// Cancelled when the instance is to go without waiting for the job.
    pub(crate) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// The instance's connection as it was when the slot was bound.
    pub(crate) fn bound_connection(&self) -> Option<&Arc<Connection>> {
        self.connection.as_ref()
    }

    /// The instance's connection now; see [`Group::connection`].
    pub(crate) fn connection(
        &self,
    ) -> impl Future<Output = Option<Arc<Connection>>> + Send + use<> {
        let (group, instance) = (Arc::clone(&self.group), self.instance.clone());
        async move { group.connection(&instance).await }
    }

    /// The slot did not take a job. The first time may be chance; an instance that fails
    /// again and again takes no more jobs, for the next ones would wait for it in vain.
    pub(crate) fn failed(&self) {
        let is_lost = self.connection.as_ref().is_none_or(|it| it.lost().is_cancelled());
        let failures = {
            let mut inner = self.group.lock();
            let failures = inner.slot_failures.entry(self.instance.clone()).or_default();
            // A lost connection is made anew: that says nothing of the instance.
            *failures += u32::from(!is_lost);
            *failures
        };
        if failures >= self.group.tuning().failure_threshold {
            self.give_up_instance(Reason::SlotFailed);
        }
    }

    /// The instance gets no more jobs, and goes once it holds none.
    pub(crate) fn give_up_instance(&self, reason: Reason) {
        tracing::warn!(instance = %self.instance, reason = reason.as_str(), "giving the instance up");
        self.group.drain(&self.instance, reason);
    }

    /// The job begins: it and the use of the instance are on disk before this returns.
    pub(crate) async fn begin(&self, job: &JobRecord) -> Result<(), StateError> {
        let record = {
            let mut inner = self.group.lock();
            let uses = inner.fleet.instance(&self.instance).map_or(0, |instance| instance.uses());
            let record = inner.records.entry(self.instance.clone()).or_default();
            record.uses = uses;
            let record = record.clone();
            inner.slot_failures.remove(&self.instance);
            record
        };
        self.group.state.begin_job(&self.group.key, job, &record).await?;
        self.used.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Acquisition {
    fn drop(&mut self) {
        let group = &self.group;
        let used = self.used.load(Ordering::Relaxed);
        // The job goes on without us, and the loop may run on for a while: to it the
        // instance must not look free.
        if used && group.detaching.is_cancelled() {
            return;
        }
        let now = group.now().moment;
        let tuning = group.tuning();
        let mut inner = group.lock();
        inner.fleet.release(&self.instance, self.slot, used, now);
        group.dispatch(&mut inner);
        let free = inner.fleet.instance(&self.instance).is_some_and(|instance| {
            instance.free(&tuning.limits) > 0 && !instance.slots().any(|slot| slot == self.slot)
        });
        let connection = inner.connections.get(&self.instance).filter(|_| free).cloned();
        drop(inner);
        group.changed.notify_one();
        group.capacity_changed.notify_waiters();
        if let Some(connection) = connection {
            group.arm(connection, self.slot);
        }
    }
}
