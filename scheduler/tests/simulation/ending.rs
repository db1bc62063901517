//! What must be true after the faults: the queue drains, nothing is left over, the idle
//! target is met, and at the very end everything is gone.

use scheduler::fleet::Phase;

use crate::faults::{MINUTE, Ms, moment, ms};
use crate::run::Sim;

impl Sim {
    /// After healing: does the queue drain, and is the fleet then as it should be?
    pub(crate) fn check_end(&mut self) {
        self.after(MINUTE, crate::run::Event::Check);
        if self.early_end() {
            return;
        }
        if self.gitlab.unfinished() > 0 {
            if self.at > self.watch.drain_by {
                let what = format!("{} jobs are not over", self.gitlab.unfinished());
                self.broken("I8 liveness: the queue drains after the faults", what);
            }
            return;
        }
        if !std::mem::replace(&mut self.watch.drained, true) {
            self.watch.settle_by = self.watch.settle_by.max(self.at + self.slowest());
        }
        if self.at < self.watch.settle_by {
            return;
        }
        if self.watch.ending {
            let at = self.at;
            let is_ours = |machine: &&crate::cloud::Machine| machine.given_up_from > at;
            let left = self.cloud.machines.values().filter(is_ours).count();
            if left > 0 {
                self.broken("I1 nothing leaks: at the end everything goes", format!("{left}"));
            }
            self.done = true;
            return;
        }
        // An ask that was accepted and never served is counted for its deadline, and begins
        // anew when an instance that came for a later one was taken for its own.
        let is_restless = self.at < self.watch.disturbed_at + self.slowest()
            || !self.shell().fleet.asks().is_empty();
        if is_restless && self.at < self.watch.settle_by + 15 * self.slowest() {
            return;
        }
        if let Err((invariant, what)) = self.is_settled() {
            return self.broken(invariant, what);
        }
        if self.setup.deletes_all {
            self.watch.ending = true;
            self.gitlab.closed = true;
            self.watch.settle_by = self.at
                + 4 * MINUTE
                + 2 * self.setup.pace.vanish.1
                + 2 * self.setup.pace.boot.1
                + 2 * ms(self.setup.limits.deletion_retry);
            self.shell().deleting_all = true;
            return self.changed();
        }
        self.done = true;
    }

    /// Longest time for one instance to come or to go.
    fn slowest(&self) -> Ms {
        let pace = &self.setup.pace;
        ms(self.setup.limits.boot_deadline) + 4 * MINUTE + 2 * pace.boot.1 + 2 * pace.vanish.1
    }

    /// A manager that ends right after the faults, in whatever state it is.
    fn early_end(&mut self) -> bool {
        if !self.setup.ends_early || !self.shell().waiters.is_empty() || self.watch.ending {
            return false;
        }
        self.watch.ending = true;
        self.watch.settle_by = self.watch.drain_by;
        self.shell().deleting_all = true;
        self.changed();
        true
    }

    fn is_settled(&mut self) -> Result<(), (&'static str, String)> {
        let now = moment(self.at - self.shell().started);
        let policy = self.policy();
        let shell = self.shell.as_ref().expect("it runs again");
        let (fleet, limits) = (&shell.fleet, &self.setup.limits);
        let leak = "I1 nothing leaks: after healing everything is known and wanted";
        for (id, machine) in &self.cloud.machines {
            // One that was given up before it was ever listed may be long gone: see `listed`.
            if fleet.instance(id).is_none() && machine.given_up_from > self.at {
                return Err((leak, format!("{id} exists and is not known")));
            }
        }
        if !fleet.asks().is_empty() {
            return Err((leak, format!("{:?} are still counted", fleet.asks())));
        }
        for instance in fleet.instances() {
            let (id, phase) = (instance.id(), instance.phase().as_str());
            if !self.cloud.machines.contains_key(id) {
                return Err((leak, format!("{id} is {phase} and does not exist")));
            }
            if instance.phase() != Phase::Ready || instance.acquired() > 0 {
                let since = now.since(instance.phase_since()).as_secs();
                return Err((leak, format!("{id} is {phase} since {since} s: {instance:?}")));
            }
        }
        let (max, _) = limits.most_instances();
        let (free, target) = (fleet.free(limits), policy.idle_target(0));
        if free < target && fleet.costing() < max {
            let what = format!("{free} slots are free, {target} are wanted");
            return Err(("I8 liveness: the idle target is met", what));
        }
        let surplus = free.saturating_sub(target);
        if let Some(idle) = fleet.instances().find(|it| it.free(limits) <= surplus) {
            let what = format!("{free} slots are free, {target} are wanted, {} stays", idle.id());
            return Err(("I8 liveness: what is idle for too long goes", what));
        }
        if fleet.costing() > max {
            return Err(("I5 never more than max_instances", format!("{}", fleet.costing())));
        }
        Ok(())
    }
}
