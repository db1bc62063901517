//! Processes of the manager: how one ends, what the next makes of the state, and what an
//! operator does to it meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scheduler::Fleet;
use scheduler::fleet::{InstanceId, Known};
use scheduler::plan::Reason;
use scheduler::policy::Policy;

use crate::faults::{self, MINUTE, moment};
use crate::jobs::{JobId, JobRecord};
use crate::run::{Event, Sim};
use crate::shell::{Disk, FIRST_LOOK, Looks, Shell};

impl Sim {
    /// The process ends here and now.
    pub(crate) fn crash(&mut self, when: &'static str) {
        if self.shell.take().is_none() {
            return;
        }
        self.fault("crash");
        self.tell(|| format!("CRASH {when}"));
        let kept = self.dice.between(0, self.disk.later.len() as u64);
        self.disk.flush(usize::try_from(kept).unwrap_or_default());
        self.end_process();
    }

    /// The process ends in order: jobs are left to their agents.
    pub(crate) fn sigterm(&mut self) {
        if self.shell.is_none() {
            return;
        }
        self.fault("restart");
        let waiting: Vec<JobId> = self.shell().waiters.iter().map(|waiter| waiter.job).collect();
        for job in waiting {
            self.finish(job, false, "the manager ends");
        }
        self.disk.flush(usize::MAX);
        self.shell = None;
        self.end_process();
    }

    fn end_process(&mut self) {
        self.cloud.unanswered.clear();
        self.gitlab.forgotten(&self.disk);
        let pause = self.dice.spread(50, 2 * MINUTE);
        self.after(pause, Event::Restart);
    }

    pub(crate) fn lose_state(&mut self) {
        self.fault("state lost");
        self.crash("and its state is lost");
        self.disk = Disk { lineage: self.process + 1, ..Disk::default() };
        self.gitlab.forgotten(&self.disk);
    }

    /// A new process, with what state knows.
    pub(crate) fn restart(&mut self) {
        if self.shell.is_some() {
            return;
        }
        self.process += 1;
        let process = self.process;
        self.tell(|| format!("process {process} starts"));
        self.watch.restarted(self.at);
        let looks = Looks { next: self.at, fast: FIRST_LOOK, running: false, failures: 0 };
        let mut fleet = Fleet::default();
        let now = moment(0);
        for (id, record) in &self.disk.instances {
            let here = |job: &&JobRecord| job.instance == *id;
            let slots: Vec<u32> =
                self.disk.jobs.values().flatten().filter(here).map(|job| job.slot).collect();
            if record.strange && slots.is_empty() {
                fleet.unrecorded(id.clone(), now);
                continue;
            }
            let (uses, was_ready) = (record.uses, record.ready);
            let known = Known { uses, was_ready, slots, doomed: None };
            fleet.recorded(id.clone(), known, now);
        }
        for (ask, (n, _)) in &self.disk.asks {
            fleet.recorded_ask(*ask, *n, None, now);
        }
        // Nothing is written down of what was listed and not prepared yet, and of what no ask
        // is open for: it shows up as anybody's would, and may be taken for another ask's.
        for (id, machine) in &mut self.cloud.machines {
            let is_recorded = self.disk.instances.contains_key(id);
            let asked = |by: &crate::cloud::By| {
                self.disk.asks.get(&by.1).is_some_and(|(_, process)| *process == by.0)
            };
            machine.by = machine.by.filter(|by| is_recorded || (!machine.was_listed && asked(by)));
        }
        self.shell = Some(Shell {
            fleet,
            started: self.at,
            connections: BTreeSet::new(),
            records: self.disk.instances.clone(),
            slot_failures: BTreeMap::new(),
            waiters: VecDeque::new(),
            jobs: BTreeMap::new(),
            polls: BTreeMap::new(),
            deleting_all: false,
            timer: 0,
            round_due: false,
            preparing: BTreeMap::new(),
            tasks: 0,
            looks,
            policy: (i64::MIN, Policy::default()),
        });
        self.recover_jobs();
        self.changed();
    }

    pub(crate) fn retune(&mut self) {
        self.setup.limits = faults::retuned(&mut self.dice, &self.setup.limits);
        if self.dice.chance(0.5) {
            self.setup.policies = faults::policies(&mut self.dice);
        }
        self.watch.retuned(self.at);
        if self.shell.is_some() {
            self.shell().policy.0 = i64::MIN;
            self.capacity_changed();
            self.changed();
        }
    }

    /// One policy for good, so that it can be said when its target is met.
    pub(crate) fn settle_policy(&mut self) {
        let mut policy = faults::policy(&mut self.dice);
        policy.idle_time = policy.idle_time.min(std::time::Duration::from_secs(60));
        self.setup.policies = vec![policy];
        self.watch.retuned(self.at);
        if self.shell.is_some() {
            self.shell().policy.0 = i64::MIN;
            self.capacity_changed();
            self.changed();
        }
    }

    pub(crate) fn operator(&mut self) {
        if self.shell.is_none() {
            return;
        }
        let ids: Vec<InstanceId> =
            self.shell().fleet.instances().map(|instance| instance.id().clone()).collect();
        if !ids.is_empty() {
            self.fault("operator drains");
            let id = self.dice.pick(&ids);
            self.drain(&id, Reason::Operator);
        }
    }
}
