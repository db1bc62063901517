//! What a list of the provider does to the manager: what is seen, what is gone, and what
//! nobody can tell apart.

use std::collections::BTreeSet;

use scheduler::fleet::{AskId, Gone, Instance, InstanceId, Origin, Phase, Seen};
use scheduler::plan::Reason;

use crate::faults::{Ms, moment};
use crate::run::Sim;
use crate::shell::{FIRST_LOOK, Op, Record, Then};

impl Sim {
    /// Takes a list. One that failed changes nothing.
    pub(crate) fn observe(&mut self, begun: Ms, list: Option<Vec<(InstanceId, Seen)>>) {
        let at = self.at;
        let (interval, expecting) = (self.setup.update_interval, self.setup.update_expecting);
        self.shell().looks.running = false;
        let Some(list) = list else {
            let looks = &mut self.shell().looks;
            looks.failures += 1;
            let pause = FIRST_LOOK << looks.failures.min(12);
            looks.next = at + pause.min(interval);
            return self.changed();
        };
        self.see(&list);
        let doubtful = self.not_come_up();
        let known: BTreeSet<InstanceId> =
            self.shell().fleet.instances().map(|instance| instance.id().clone()).collect();
        let (before, expected) = self.asked_for();
        let leaving = self.leaving();
        let started = self.shell().started;
        let (begun, now) = (moment(begun - started), self.now().moment);
        let asks = self.shell().fleet.asks().len();
        let failures = self.shell().fleet.creation.boot_failures();
        let gone = self.shell().fleet.listed(&list, begun, now);
        let failed = self.shell().fleet.creation.boot_failures() - failures;
        // What was asked for may be over when it is first listed.
        let came_to_nothing =
            |gone: &&Gone| doubtful.contains(&gone.id) || !known.contains(&gone.id);
        let sure = gone.iter().filter(came_to_nothing).count();
        let believed = (failed as usize).saturating_sub(sure).min(over_at_first(&list, &known));
        for _ in 0..sure + believed {
            self.watch.boot_failed(at);
        }
        for gone in gone {
            self.gone(&gone);
        }
        // What was doubted is not waited for any more.
        let (outstanding, expected_now) = self.asked_for();
        if self.leaving() != leaving || expected_now < expected {
            self.watch.disturbed(at);
        }
        if outstanding != before {
            self.tell(|| format!("outstanding: {before}, now {outstanding}, by the list {list:?}"));
        }
        if self.shell().fleet.asks().len() < asks {
            self.watch.disturbed(at);
            self.forget_asks();
        }
        self.record_new();
        let fleet = &self.shell().fleet;
        let is_moving = |phase| matches!(phase, Phase::Creating | Phase::Deleting);
        let moving = fleet.instances().any(|instance| is_moving(instance.phase()));
        let is_expecting = moving || !fleet.asks().is_empty();
        let looks = &mut self.shell().looks;
        looks.failures = 0;
        if is_expecting {
            looks.next = at + looks.fast;
            looks.fast = (looks.fast * 2).min(expecting);
        } else {
            looks.fast = FIRST_LOOK;
            looks.next = at + interval;
        }
        self.changed();
    }

    /// What the truth must know of a list before the fleet does. An instance whose own ask
    /// is settled, because its call failed, someone else made it, or lists left it out, may
    /// be taken for one of another ask: nobody can tell them apart.
    fn see(&mut self, list: &[(InstanceId, Seen)]) {
        let process = self.process;
        let open: Vec<AskId> = self.shell().fleet.asks().iter().map(|ask| ask.id).collect();
        for (id, seen) in list {
            let is_new = self.shell().fleet.instance(id).is_none();
            let Some(machine) = self.cloud.machines.get_mut(id) else { continue };
            machine.hidden = false;
            machine.was_listed = true;
            machine.told_given_up |= *seen == Seen::Timeout;
            // It waits for its own ask, unless that is settled already or was another's.
            let is_own = machine.by.is_some_and(|by| {
                let recorded = self.disk.asks.get(&by.1).is_some_and(|(_, who)| *who == by.0);
                let is_ours = by.0 == process || recorded;
                is_ours && open.contains(&by.1)
            });
            if is_new && !is_own && !open.is_empty() {
                machine.by = None;
                machine.took_ask = true;
                self.cloud.confused += 1;
                self.cloud.ever_confused = true;
            }
        }
    }

    /// What came of an ask is written down: the next process must not take it for anyone's.
    fn record_new(&mut self) {
        let shell = self.shell.as_ref().expect("the process runs");
        let ours = shell.fleet.instances().filter(|it| it.origin() == Origin::Asked);
        let ours: Vec<InstanceId> = ours.map(|it| it.id().clone()).collect();
        for id in ours {
            let records = &mut self.shell().records;
            if !records.contains_key(&id) {
                records.insert(id.clone(), Record::default());
                self.write(Op::PutInstance(id, Record::default()), Then::Nothing);
            }
        }
    }

    /// How many are outstanding, and how many are waited for.
    fn asked_for(&mut self) -> (u32, u32) {
        let fleet = &self.shell().fleet;
        (fleet.outstanding(), fleet.expected())
    }

    fn leaving(&mut self) -> BTreeSet<InstanceId> {
        let is_leaving = |instance: &&Instance| instance.phase() >= Phase::Draining;
        let leaving = self.shell().fleet.instances().filter(is_leaving);
        leaving.map(|instance| instance.id().clone()).collect()
    }

    /// Instances that never were ready, and that nobody wants gone.
    fn not_come_up(&mut self) -> BTreeSet<InstanceId> {
        let by_itself = |why| matches!(why, Reason::ReportedTimeout | Reason::Interrupted);
        let is_doubtful = |instance: &&Instance| {
            let is_fresh = instance.origin() == Origin::Asked && !instance.was_ready();
            is_fresh && instance.drain_reason().is_none_or(by_itself)
        };
        let doubtful = self.shell().fleet.instances().filter(is_doubtful);
        doubtful.map(|instance| instance.id().clone()).collect()
    }

    fn gone(&mut self, gone: &Gone) {
        self.tell(|| format!("{} is gone: {gone:?}", gone.id));
        if !gone.wanted {
            self.watch.disturbed(self.at);
        }
        let shell = self.shell();
        shell.records.remove(&gone.id);
        shell.slot_failures.remove(&gone.id);
        shell.connections.remove(&gone.id);
        self.disk.later(Op::RemoveInstance(gone.id.clone()));
        self.connections_changed();
        self.capacity_changed();
    }
}

/// Soon after the start nobody can tell whether what is over when it is first listed was
/// asked for: it is believed to have been.
fn over_at_first(list: &[(InstanceId, Seen)], known: &BTreeSet<InstanceId>) -> usize {
    list.iter().filter(|(id, seen)| *seen == Seen::Deleted && !known.contains(id)).count()
}
