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
            let kept = inner.fleet.keep(&id, now);
            let instance = inner.fleet.instance(&id)?;
            if !kept {
                return Some(Err(why_not_kept(instance)));
            }
            let doomed = instance.doomed();
            inner.records.get_mut(&id).map(|record| {
                record.doomed = doomed.map_or("", Reason::as_str).to_owned();
                record.clone()
            })
        };
        tracing::info!(instance = %id, "instance gets jobs again, an operator asked for it");
        self.tell(Event::InstanceKept { instance: id.0.clone() });
        self.capacity_changed.notify_waiters();
        self.changed.notify_one();
        self.write_down(&id, record);
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

/// Why an instance was not kept.
fn why_not_kept(instance: &Instance) -> String {
    let id = instance.id();
    match (instance.phase(), instance.drain_reason()) {
        (Phase::Deleting, _) => format!("{id} is being deleted already"),
        (Phase::Draining, Some(Reason::Operator)) => {
            format!("the connection to {id} is lost; ask again when it is back")
        }
        (Phase::Draining, reason) => {
            let why = reason.map_or("another reason", Reason::as_str);
            format!("{id} drains for {why}, which an operator does not take back")
        }
        _ => format!("{id} does not drain"),
    }
}
