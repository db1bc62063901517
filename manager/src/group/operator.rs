//! What an operator may do with an instance.

use scheduler::fleet::{Instance, InstanceId, Phase};
use scheduler::plan::Reason;
use serde::{Deserialize, Serialize};

use super::Group;
use crate::history::Event;

/// How to log in to an instance with the manager's own key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoginInfo {
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As in `known_hosts`, without names.
    pub(crate) host_key: String,
}

/// Why an operator cannot have what they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLogin {
    /// There is no such instance here.
    Unknown,
    /// It is not prepared, or its connection is lost.
    NotConnected,
}

impl Group {
    /// An operator wants an instance gone: it gets no more jobs, and goes once it holds
    /// none; `at_once` stops those that it holds. Returns how many these are; `None` if
    /// there is no such instance.
    pub(crate) fn remove_by_hand(&self, id: &str, at_once: bool) -> Option<u32> {
        let id = InstanceId(id.to_owned());
        let (jobs, is_leaving, evicted) = {
            let mut inner = self.lock();
            let instance = inner.fleet.instance(&id)?;
            let (jobs, phase) = (instance.acquired(), instance.phase());
            (jobs, phase >= Phase::Draining, inner.evicted(&id))
        };
        if !is_leaving {
            self.drain(&id, Reason::Operator);
        }
        if at_once {
            evicted.cancel();
        }
        Some(jobs)
    }

    /// An operator takes a drain back. `None` if there is no such instance; `Err` says why
    /// it goes nevertheless.
    pub(crate) fn keep_by_hand(&self, id: &str) -> Option<Result<(), String>> {
        let id = InstanceId(id.to_owned());
        let now = self.now().moment;
        let record = {
            let mut inner = self.lock();
            let instance = inner.fleet.instance(&id)?;
            if let Some(why) = why_not_kept(instance) {
                return Some(Err(why));
            }
            inner.fleet.keep(&id, now);
            let doomed = inner.fleet.instance(&id).and_then(Instance::doomed);
            inner.records.get_mut(&id).map(|record| {
                record.doomed = doomed.map_or("", Reason::as_str).to_owned();
                record.clone()
            })
        };
        tracing::info!(instance = %id, "instance gets jobs again, an operator asked for it");
        self.tell(Event::InstanceKept { instance: id.0.clone() });
        self.capacity_changed.notify_waiters();
        self.changed.notify_one();
        if let Some(record) = record {
            let (state, key) = (self.state.clone(), self.key.clone());
            self.tasks.spawn(async move {
                if let Err(error) = state.put_instance(&key, &id.0, &record).await {
                    tracing::error!(%error, "cannot write down that an instance is kept");
                }
            });
        }
        Some(Ok(()))
    }

    /// Jobs on an instance, if it is here.
    pub(crate) fn jobs_on(&self, id: &str) -> Option<u32> {
        let inner = self.lock();
        inner.fleet.instance(&InstanceId(id.to_owned())).map(Instance::acquired)
    }

    /// How to log in to an instance.
    pub(crate) fn login(&self, id: &str) -> Result<LoginInfo, NoLogin> {
        let id = InstanceId(id.to_owned());
        let inner = self.lock();
        inner.fleet.instance(&id).ok_or(NoLogin::Unknown)?;
        let connection = inner.connections.get(&id).ok_or(NoLogin::NotConnected)?;
        let record = inner.records.get(&id).ok_or(NoLogin::NotConnected)?;
        let (user, host, port) = connection.login();
        Ok(LoginInfo { user, host, port, host_key: record.remembered.host_key.clone() })
    }
}

/// Why an instance cannot be kept; nothing if it can.
fn why_not_kept(instance: &Instance) -> Option<String> {
    let id = instance.id();
    match (instance.phase(), instance.drain_reason()) {
        (Phase::Deleting, _) => Some(format!("{id} is being deleted already")),
        (Phase::Draining, Some(Reason::Operator)) => {
            let is_lost = instance.lost_since().is_some() || instance.is_cut_off();
            is_lost.then(|| format!("the connection to {id} is lost; ask again when it is back"))
        }
        (Phase::Draining, reason) => {
            let why = reason.map_or("another reason", Reason::as_str);
            Some(format!("{id} drains for {why}, which an operator does not take back"))
        }
        _ => Some(format!("{id} does not drain")),
    }
}
