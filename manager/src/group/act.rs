//! Does what a plan says. What takes time runs as a task whose end wakes the loop; what
//! is asked of the provider is in the state before it is asked.

use std::sync::Arc;

use scheduler::Plan;
use scheduler::fleet::{AskFailure, AskId, Gone, InstanceId, Vacant};
use scheduler::plan::{Reason, Step};
use tokio::task::JoinSet;

use super::{Group, Inner};
use crate::connect::Connection;
use crate::history::Event;
use crate::state::{AskRecord, InstanceRecord};

impl Group {
    /// Returns whether something new was asked of the provider, which may show soon.
    pub(super) fn act(self: &Arc<Self>, plan: &Plan) -> bool {
        let mut asked = false;
        for step in &plan.steps {
            match step {
                Step::Create { n, reason } => {
                    self.create(*n, *reason);
                    asked = true;
                }
                Step::Prepare { id } => self.prepare(id),
                Step::Drain { id, reason } => self.drain(id, *reason),
                Step::Delete { instances } => asked |= self.delete(instances),
                Step::GiveUp { ask } => self.give_up(*ask),
            }
        }
        asked
    }

    fn create(self: &Arc<Self>, n: u32, reason: Reason) {
        tracing::info!(n, reason = reason.as_str(), "asking for instances");
        self.tell(Event::Asked { n, reason: reason.as_str().into() });
        let now = self.now().moment;
        let ask = self.lock().fleet.asked(n, &self.tuning().limits, now);
        let group = Arc::clone(self);
        self.tasks.spawn(async move {
            let (state, key) = (&group.state, &group.key);
            if let Err(error) =
                state.put_ask(key, &ask.0.to_string(), AskRecord { n, doomed: String::new() }).await
            {
                tracing::error!(%error, "cannot write the intent down, nothing was asked for");
                let now = group.now().moment;
                group.lock().fleet.ask_failed(ask, AskFailure::NotSent, now);
                group.changed.notify_one();
                return;
            }
            let answer = group.provider().create(n).await;
            let now = group.now().moment;
            {
                let mut inner = group.lock();
                match answer {
                    Ok(accepted) => {
                        if accepted < n {
                            tracing::warn!(
                                asked = n,
                                accepted,
                                "the provider accepted fewer instances than asked"
                            );
                            let why = "it gave no reason".into();
                            group.tell(Event::AskFailed { n, accepted, why });
                        }
                        inner.fleet.ask_accepted(ask, accepted, now);
                    }
                    Err((failure, why)) => {
                        let what = match failure {
                            AskFailure::NotSent => "instances could not be asked for",
                            AskFailure::Heard => "the provider refused to create instances",
                            AskFailure::Silent => "it is not known whether instances were created",
                        };
                        tracing::warn!(asked = n, why, "{what}");
                        group.tell(Event::AskFailed { n, accepted: 0, why });
                        inner.fleet.ask_failed(ask, failure, now);
                    }
                }
                group.forget_asks(&inner, usize::MAX);
            }
            group.changed.notify_one();
        });
    }

    /// Gives an instance no more jobs; it goes once it holds none.
    pub(super) fn drain(&self, id: &InstanceId, reason: Reason) {
        tracing::info!(instance = %id, reason = reason.as_str(), "instance gets no more jobs");
        let (instance, word) = (id.0.clone(), reason.as_str().into());
        self.tell(Event::InstanceDrained { instance, reason: word });
        let now = self.now().moment;
        let record = {
            let mut inner = self.lock();
            inner.fleet.drain(id, reason, now);
            let record = inner.records.get_mut(id).filter(|_| outlives_restart(reason));
            record.map(|record| {
                record.doomed = reason.as_str().into();
                record.clone()
            })
        };
        self.connections_changed.notify_waiters();
        self.changed.notify_one();
        self.write_down(id, record);
    }

    /// Keeps an instance's changed record, if it has one, for the next process.
    pub(super) fn write_down(&self, id: &InstanceId, record: Option<InstanceRecord>) {
        let Some(record) = record else { return };
        let (state, key, id) = (self.state.clone(), self.key.clone(), id.0.clone());
        self.tasks.spawn(async move {
            if let Err(error) = state.put_instance(&key, &id, &record).await {
                tracing::error!(%error, "cannot write down whether an instance drains");
            }
        });
    }

    /// Returns whether one of them was not asked for before.
    fn delete(self: &Arc<Self>, instances: &[(Vacant, Reason)]) -> bool {
        let now = self.now().moment;
        // Between deciding and acting a job may have taken a slot: only who is vacant
        // still is deleted.
        let mut vacant = Vec::new();
        let mut connections = Vec::new();
        let mut is_new = false;
        {
            let mut inner = self.lock();
            for (candidate, reason) in instances {
                if let Some(instance) = inner.fleet.instance(candidate.id())
                    && inner.fleet.vacant(candidate.id()).is_some()
                {
                    is_new |= instance.delete_call().is_none();
                    tracing::info!(instance = %candidate.id(), reason = reason.as_str(), "deleting instance");
                    let (instance, word) = (candidate.id().0.clone(), reason.as_str().into());
                    self.tell(Event::InstanceDeleting { instance, reason: word });
                    connections.extend(inner.connections.remove(candidate.id()));
                    vacant.push(candidate.clone());
                }
            }
            inner.fleet.deleting(&vacant, now);
        }
        if vacant.is_empty() {
            return false;
        }
        let group = Arc::clone(self);
        self.tasks.spawn(async move {
            close_all(connections).await;
            let ids: Vec<_> = vacant.iter().map(|vacant| vacant.id().clone()).collect();
            let accepted = match group.provider().delete(ids).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "deleting instances failed, it is tried again");
                    Vec::new()
                }
            };
            let now = group.now().moment;
            group.lock().fleet.deletion_answered(&vacant, &accepted, now);
            group.changed.notify_one();
        });
        is_new
    }

    fn give_up(self: &Arc<Self>, ask: AskId) {
        let now = self.now().moment;
        let mut inner = self.lock();
        match inner.fleet.expected_of(ask) {
            0 => tracing::info!("what may have been accepted beside what came counts no longer"),
            n => tracing::warn!(n, "instances that were accepted never showed up"),
        }
        inner.fleet.ask_given_up(ask, now);
        self.forget_asks(&inner, usize::MAX);
    }

    /// Removes records of asks that are settled. `before` is how many there were.
    pub(super) fn forget_asks(self: &Arc<Self>, inner: &Inner, before: usize) {
        if inner.fleet.asks().len() >= before {
            return;
        }
        let open: Vec<String> = inner.fleet.asks().iter().map(|ask| ask.id.0.to_string()).collect();
        let (state, key) = (&self.state, &self.key);
        for settled in state.ask_ids(key).into_iter().filter(|id| !open.contains(id)) {
            state.remove_ask(key, &settled);
        }
    }

    /// An instance left the fleet.
    pub(super) fn gone(self: &Arc<Self>, inner: &mut Inner, gone: &Gone) {
        if gone.wanted {
            tracing::info!(instance = %gone.id, "instance is gone");
        } else {
            tracing::warn!(instance = %gone.id, jobs = gone.lost_slots.len(), "instance disappeared");
        }
        self.tell(Event::InstanceGone {
            instance: gone.id.0.clone(),
            wanted: gone.wanted,
            lost_jobs: gone.lost_slots.len(),
        });
        inner.records.remove(&gone.id);
        inner.slot_failures.remove(&gone.id);
        inner.images.forget(&gone.id);
        inner.evictions.remove(&gone.id);
        let connection = inner.connections.remove(&gone.id);
        self.connections_changed.notify_waiters();
        self.capacity_changed.notify_waiters();
        self.state.remove_instance(&self.key, &gone.id.0);
        self.tasks.spawn(close_all(connection));
    }
}

/// Whether the next process would not find the reason by itself.
fn outlives_restart(reason: Reason) -> bool {
    matches!(reason, Reason::Operator | Reason::SlotFailed | Reason::ReportedTimeout)
}

/// All at once: each may wait for its agents.
pub(super) async fn close_all(connections: impl IntoIterator<Item = Arc<Connection>>) {
    let close = |connection: Arc<Connection>| async move { connection.close().await };
    connections.into_iter().map(close).collect::<JoinSet<()>>().join_all().await;
}
