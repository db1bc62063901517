//! Preparing instances, jobs of strangers found there, and connections that are lost.

use std::collections::BTreeSet;

use scheduler::fleet::{Instance, InstanceId, Origin, Phase};
use scheduler::plan::Reason;

use crate::faults::{MINUTE, Ms, SECOND};
use crate::run::{Event, Sim};
use crate::shell::{Op, Then};

const FIRST_WAIT: Ms = 20;
const LONGEST_WAIT: Ms = 5 * SECOND;
const STRANGERS_INTERVAL: Ms = 15 * SECOND;

impl Sim {
    pub(crate) fn prepare(&mut self, id: &InstanceId) {
        let (now, process) = (self.now().moment, self.process);
        let shell = self.shell();
        shell.fleet.preparing(id, now);
        shell.tasks += 1;
        let task = shell.tasks;
        shell.preparing.insert(id.clone(), task);
        let delay = self.dice.between(self.setup.pace.prepare.0, self.setup.pace.prepare.1);
        self.after(delay, Event::Prepare(process, id.clone(), task, FIRST_WAIT));
    }

    fn is_worth_preparing(&mut self, id: &InstanceId) -> bool {
        self.shell().fleet.instance(id).is_some_and(|instance| match instance.phase() {
            Phase::Preparing => true,
            Phase::Draining => instance.acquired() > 0,
            _ => false,
        })
    }

    pub(crate) fn try_to_prepare(&mut self, id: InstanceId, task: u64, wait: Ms) {
        if self.shell().preparing.get(&id) != Some(&task) || !self.is_worth_preparing(&id) {
            return;
        }
        let (at, process) = (self.at, self.process);
        let machine = self.cloud.machines.get(&id);
        let is_up = machine.is_some_and(|machine| at >= machine.reachable_from);
        if !is_up || self.at < self.cloud.plugin_down_until {
            let next = Event::Prepare(process, id, task, (wait * 2).min(LONGEST_WAIT));
            return self.after(wait, next);
        }
        if machine.is_some_and(|machine| machine.unfit) {
            return self.preparation_failed(&id);
        }
        let shell = self.shell.as_mut().expect("the process runs");
        let origin = shell.fleet.instance(&id).map(Instance::origin);
        let first = shell.fleet.instance(&id).is_some_and(|instance| !instance.was_ready());
        let record = shell.records.entry(id.clone()).or_default();
        // The next process must ask it for jobs again.
        let has_strangers = first && machine.is_some_and(|machine| !machine.jobs.is_empty());
        let is_strange = has_strangers || origin == Some(Origin::Unrecorded);
        if record.ready && (record.strange || !is_strange) {
            return self.prepared(&id, task);
        }
        record.strange |= is_strange;
        record.ready = true;
        let record = record.clone();
        self.write(Op::PutInstance(id.clone(), record), Then::Prepared(id, task));
    }

    fn preparation_failed(&mut self, id: &InstanceId) {
        self.tell(|| format!("{id} cannot be prepared"));
        let (now, at) = (self.now().moment, self.at);
        let fresh = self.shell().fleet.instance(id).is_some_and(|i| !i.was_ready());
        if fresh {
            self.watch.boot_failed(at);
        }
        self.watch.disturbed(at);
        self.shell().fleet.preparation_failed(id, now);
        self.connections_changed();
        self.changed();
    }

    pub(crate) fn prepared(&mut self, id: &InstanceId, task: u64) {
        let (at, now) = (self.at, self.now().moment);
        if self.shell().preparing.get(id) != Some(&task) {
            return;
        }
        self.shell().preparing.remove(id);
        // It may be gone or unreachable by now: then its connection is lost at once.
        let machine = self.cloud.machines.get(id);
        let is_up = machine.is_some_and(|machine| at >= machine.reachable_from);
        let Some(instance) = self.shell().fleet.instance(id) else { return };
        let first = !instance.was_ready();
        let busy: BTreeSet<u32> = match self.cloud.machines.get(id) {
            Some(machine) if first => machine.jobs.keys().copied().collect(),
            _ => BTreeSet::new(),
        };
        self.tell(|| format!("{id} is prepared, jobs of others {busy:?}"));
        self.watch.disturbed(at);
        if first {
            self.watch.boot_succeeded();
        }
        if !busy.is_empty() {
            let process = self.process;
            self.fault("jobs of strangers");
            self.after(STRANGERS_INTERVAL, Event::Strangers(process, id.clone()));
        }
        let shell = self.shell();
        shell.fleet.prepared(id, busy, now);
        shell.connections.insert(id.clone());
        self.dispatch();
        self.connections_changed();
        self.capacity_changed();
        self.changed();
        if !is_up {
            self.connection_lost(id);
        }
    }

    pub(crate) fn strangers(&mut self, id: InstanceId) {
        let (now, process) = (self.now().moment, self.process);
        if self.shell().fleet.instance(&id).is_none() {
            return;
        }
        let connected = self.shell().connections.contains(&id);
        let hopeless = self.is_hopeless(&id);
        if !connected && !hopeless {
            return self.after(STRANGERS_INTERVAL, Event::Strangers(process, id));
        }
        let busy: BTreeSet<u32> = match self.cloud.machines.get(&id) {
            Some(machine) if connected => machine.jobs.keys().copied().collect(),
            _ => BTreeSet::new(),
        };
        let ended = busy.is_empty();
        self.shell().fleet.occupied(&id, busy, now);
        if ended {
            self.changed();
        } else {
            self.after(STRANGERS_INTERVAL, Event::Strangers(process, id));
        }
    }

    pub(crate) fn is_hopeless(&mut self, id: &InstanceId) -> bool {
        let hopeless = [Reason::Unreachable, Reason::BootDeadline, Reason::PreparationFailed];
        let instance = self.shell().fleet.instance(id);
        instance.is_none_or(|it| it.drain_reason().is_some_and(|why| hopeless.contains(&why)))
    }

    /// The connection to an instance ends, for whatever reason.
    pub(crate) fn connection_lost(&mut self, id: &InstanceId) {
        let at = self.at;
        let machine = self.cloud.machines.get_mut(id).filter(|it| it.reachable_from <= at);
        if let Some(machine) = machine.filter(|_| !self.healed) {
            let never = self.dice.chance(self.behaviour.never_returns);
            let pause = self.dice.spread(100, 4 * MINUTE);
            machine.reachable_from = if never { Ms::MAX } else { at + pause };
        }
        if self.shell.is_none() || !self.shell().connections.remove(id) {
            return;
        }
        self.fault("connection lost");
        self.watch.disturbed(self.at);
        self.tell(|| format!("the connection to {id} is lost"));
        self.prepare(id);
        self.changed();
    }
}
