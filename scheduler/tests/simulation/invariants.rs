//! What must hold at every step.
//!
//! Each is checked against the truth of the simulated provider or recomputed on its own,
//! never against what the scheduler itself says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use scheduler::fleet::{Answer, Ask, Instance, InstanceId, Origin, Phase};
use scheduler::limits::Throttle;
use scheduler::plan::Reason;
use scheduler::time::Moment;

use crate::cloud::By;
use crate::faults::{MINUTE, Ms, SECOND, moment};
use crate::run::Sim;

/// Pauses of the breakers, as they are documented.
const BOOT_PAUSE: Ms = 10 * SECOND;
const MAX_BOOT_PAUSE: Ms = 300 * SECOND;
const TOLERATED: u32 = 2;
const CALL_PAUSE: Ms = SECOND;
/// A list that begins this long after a call, and after the start, shows what it did.
const ALL_SHOWS: Duration = Duration::from_secs(61);
/// Instances that could not be reached are given up although jobs may run there.
const GIVEN_UP: [Reason; 3] =
    [Reason::Unreachable, Reason::BootDeadline, Reason::PreparationFailed];

/// An invariant that did not hold.
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

/// What the checks remember.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) broken: Option<Broken>,
    pub(crate) events: u64,
    pub(crate) at_once: u64,
    pub(crate) rounds: u64,
    /// When a job began last.
    pub(crate) last_begin: Ms,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) idle_drained_at: Option<Ms>,
    pub(crate) settle_by: Ms,
    pub(crate) drain_by: Ms,
    pub(crate) disturbed_at: Ms,
    retuned_at: Ms,
    pub(crate) drained: bool,
    pub(crate) ending: bool,
    boot_failures: u32,
    boot_failed_at: Ms,
    pub(crate) call_failures: u32,
    call_failed_at: Ms,
    asks: VecDeque<(Ms, u32)>,
    /// The current minute, its provider calls and its changes of demand.
    minute: (Ms, u64, u64),
    rounds_in: (Ms, u64),
    restless: (Ms, u32),
    starving_since: Option<Ms>,
}

impl Watch {
    /// Something changed that may change what is wanted.
    pub(crate) fn disturbed(&mut self, at: Ms) {
        self.disturbed_at = at;
        self.turn(at);
        self.minute.2 += 1;
    }

    pub(crate) fn turn(&mut self, at: Ms) {
        if self.minute.0 != at / MINUTE {
            self.minute = (at / MINUTE, 0, 0);
        }
    }

    /// The provider is called.
    pub(crate) fn called(&mut self, at: Ms) {
        self.turn(at);
        self.minute.1 += 1;
    }

    pub(crate) fn asked(&mut self, at: Ms, n: u32) {
        self.asks.push_back((at, n));
        if self.asks.len() > 50 {
            self.asks.pop_front();
        }
    }

    pub(crate) fn answered(&mut self, at: Ms, well: bool) {
        self.call_failures = if well { 0 } else { self.call_failures + 1 };
        self.call_failed_at = at;
    }

    pub(crate) fn boot_failed(&mut self, at: Ms) {
        self.boot_failures += 1;
        self.boot_failed_at = at;
    }

    pub(crate) fn boot_succeeded(&mut self) {
        self.boot_failures = 0;
    }

    pub(crate) fn retuned(&mut self, at: Ms) {
        self.disturbed(at);
        self.retuned_at = at;
        self.asks.clear();
    }

    /// A new process knows nothing of what failed.
    pub(crate) fn restarted(&mut self, at: Ms) {
        self.retuned(at);
        self.idle_drained_at = None;
        self.boot_failures = 0;
        self.boot_failed_at = at;
        self.call_failures = 0;
        self.starving_since = None;
    }

    /// Until when creation pauses; what failed at this very moment counts from the next plan on.
    pub(crate) fn boot_pause_until(&self) -> Option<Ms> {
        let counted = self.boot_failures.checked_sub(TOLERATED)?;
        let pause = (BOOT_PAUSE << counted.min(10)).min(MAX_BOOT_PAUSE);
        Some(self.boot_failed_at + pause)
    }
}

impl Sim {
    /// Instances that exist or may yet come by what we asked for. Left out is what no list
    /// has shown that we were to believe, and what cannot be told apart.
    fn truly_costing(&mut self) -> u32 {
        let fleet = &self.shell.as_ref().expect("the process runs").fleet;
        let ours = |by: Option<By>| by.is_some_and(|(process, _)| process >= self.disk.lineage);
        let (mut known, mut unknown, mut hidden) = (0, 0, 0);
        for (id, machine) in &self.cloud.machines {
            if fleet.instance(id).is_some() {
                known += 1;
            } else if ours(machine.by) && machine.hidden {
                hidden += 1;
            } else if ours(machine.by) && !machine.leaving {
                // One that is given up before it was ever heard of is passed over, unless its
                // ask still waits for it.
                let waits = |ask: &Ask| machine.by.is_some_and(|by| by.1 == ask.id);
                let is_waited_for = !self.cloud.ever_confused && fleet.asks().iter().any(waits);
                let is_passed_over = self.at >= machine.given_up_from && !is_waited_for;
                unknown += u32::from(!is_passed_over);
            }
        }
        let under_way = self.cloud.under_way.iter().filter(|(by, _)| ours(Some(**by)));
        unknown += under_way.map(|(_, n)| n).sum::<u32>();
        if unknown + hidden == 0 && fleet.asks().is_empty() {
            self.cloud.confused = 0;
            self.cloud.never_shown = 0;
        }
        known + unknown.saturating_sub(self.cloud.confused)
    }

    /// Before instances are asked for.
    pub(crate) fn check_create(&mut self, n: u32, reason: Reason) {
        let (max, _) = self.setup.limits.most_instances();
        let costing = self.truly_costing();
        if costing.saturating_add(n) > max {
            let what = format!("{n} more beside {costing}, {max} are allowed");
            self.broken("I5 never more than max_instances", what);
        }
        if let Throttle::PerSecond { limit, burst } = self.setup.limits.throttle {
            let mut sum = n;
            for (at, asked) in self.watch.asks.iter().rev() {
                sum += asked;
                let flowed = u64::from(limit) * (self.at - at) / SECOND;
                if u64::from(sum) > u64::from(burst) + flowed + 1 {
                    let what = format!("{sum} instances within {} ms", self.at - at);
                    return self.broken("I10 scale_throttle holds", what);
                }
            }
        }
        let at = self.at;
        let just_failed = self.watch.boot_failed_at == at;
        let until = self.watch.boot_pause_until().filter(|_| !just_failed);
        if until.is_some_and(|until| at < until || n > 1) {
            let what = format!("{n} more after {} boot failures", self.watch.boot_failures);
            self.broken("I10 boot failures hold creation back", what);
        }
        if self.watch.call_failures > 0 && at < self.watch.call_failed_at + CALL_PAUSE {
            let what = format!("{n} more at once after a call that failed");
            self.broken("I10 failing calls back off", what);
        }
        let drained = self.watch.idle_drained_at;
        let calm = drained.is_some_and(|drained| drained > self.watch.disturbed_at);
        if calm && reason == Reason::IdleTarget {
            let what = format!("an idle one went at {drained:?}, nothing happened since");
            self.broken("I11 idle instances are not churned", what);
        }
    }

    /// Before an instance is deleted.
    pub(crate) fn check_delete(&mut self, id: &InstanceId, reason: Reason) {
        let jobs = self.cloud.machines.get(id).map(|machine| machine.jobs.clone());
        let mut jobs = jobs.unwrap_or_default();
        let gitlab = &mut self.gitlab;
        jobs.retain(|_, job| !gitlab.job(*job).told && !gitlab.job(*job).given_up);
        let given_up = self.shell().fleet.instance(id).and_then(Instance::drain_reason);
        // Neither its provider nor itself says that it is there.
        let is_silent = self.cloud.machines.get(id).is_some_and(|machine| {
            self.at >= machine.given_up_from && !machine.could_be_reached(self.at)
        });
        let hopeless = given_up.is_some_and(|why| GIVEN_UP.contains(&why))
            || (is_silent && reason == Reason::ReportedTimeout);
        if !jobs.is_empty() && !hopeless {
            let what = format!("{id} runs {jobs:?}, deleted for {}", reason.as_str());
            self.broken("I2 no running job loses its instance by our doing", what);
        }
        if self.bound_and_not_begun(id) > 0 {
            let what = format!("{id} is bound to a job");
            self.broken("I2 no running job loses its instance by our doing", what);
        }
    }

    /// A job is given up because its instance is.
    pub(crate) fn check_given_up(&mut self, job: u64, id: &InstanceId) {
        // Without a plugin nobody tells how to connect.
        let plugin = self.cloud.plugin_down_until + 20 * SECOND < self.at;
        let reachable = self.cloud.machines.get(id).is_some_and(|machine| {
            plugin && machine.could_be_reached(self.at) && !machine.leaving && !machine.hidden
        });
        if reachable {
            let what = format!("job {job} is given up, {id} could be reached all the time");
            self.broken("I3 no job is lost by our doing", what);
        }
        self.gitlab.job(job).given_up = true;
    }

    /// A slot was bound.
    pub(crate) fn check_acquired(&mut self, id: &InstanceId, slot: u32) {
        let limits = self.setup.limits.clone();
        if slot >= limits.capacity {
            // After the capacity was lowered the higher slots may still run jobs.
            let lowered = self.watch.retuned_at > 0;
            let acquired = self.shell().fleet.instance(id).map_or(0, Instance::acquired);
            if !lowered || acquired > limits.capacity {
                let what = format!("slot {slot} of {id}, {acquired} jobs");
                self.broken("I5 jobs per instance ≤ capacity", what);
            }
        }
        // It is not among the bound ones yet.
        let pending = self.bound_and_not_begun(id);
        let Some(machine) = self.cloud.machines.get(id) else { return };
        let other =
            machine.jobs.get(&slot).copied().filter(|job| !self.gitlab.jobs[*job as usize].told);
        if let Some(other) = other {
            let what = format!("slot {slot} of {id} runs job {other}");
            self.broken("I4 one job per slot", what);
            return;
        }
        if machine.told_given_up {
            let what = format!("the provider said that it gave {id} up");
            return self.broken("I2 jobs only on ready instances that are known", what);
        }
        let uses = machine.starts + pending + 1;
        let is_taken_for_new = machine.took_ask;
        if limits.max_use_count > 0 && uses > limits.max_use_count && !is_taken_for_new {
            let what = format!("{id} is used for the {uses}. time of {}", limits.max_use_count);
            self.broken("I5 uses ≤ max_use_count", what);
        }
        let shell = self.shell.as_ref().expect("the process runs");
        let instance = shell.fleet.instance(id).expect("it was acquired");
        if instance.phase() != Phase::Ready || instance.origin() == Origin::Unrecorded {
            let what = format!("{id} is {} and gets a job", instance.phase().as_str());
            self.broken("I2 jobs only on ready instances that are known", what);
        }
        if !self.shell().connections.contains(id) {
            self.broken("I2 jobs only on connected instances", format!("{id}"));
        }
    }

    /// After each round of the loop.
    pub(crate) fn check_round(&mut self, acted: bool) {
        self.check_counted();
        self.check_vain();
        let at = self.at;
        self.watch.turn(at);
        if self.watch.rounds_in.0 != at / MINUTE {
            self.watch.rounds_in = (at / MINUTE, 0);
        }
        self.watch.rounds_in.1 += 1;
        let (calls, changes) = (self.watch.minute.1, self.watch.minute.2);
        let rounds = self.watch.rounds_in.1;
        let size = self.shell().fleet.instances().count() as u64;
        if calls > 150 + 12 * changes + 10 * size || rounds > 400 + 40 * changes {
            let what = format!("{calls} calls and {rounds} rounds, {changes} changes in a minute");
            self.broken("I10 no busy loop", what);
        }
        self.watch.restless = match self.watch.restless {
            (when, n) if when == at && acted => (at, n + 1),
            _ => (at, u32::from(acted)),
        };
        if self.watch.restless.1 > 8 {
            self.broken("I10 no busy loop", "one plan after the other at one moment".into());
        }
        if self.setup.calm {
            self.check_starving();
            self.check_coming();
        }
    }

    /// I1: what exists is known, or asked for, and counted.
    fn check_counted(&mut self) {
        if !self.shell().fleet.is_known() {
            return;
        }
        let (counted, truth) = (self.shell().fleet.costing(), self.truly_costing());
        if counted < truth {
            let fleet = &self.shell.as_ref().expect("the process runs").fleet;
            let unknown = self.cloud.machines.iter().filter(|(id, _)| fleet.instance(id).is_none());
            let unknown: Vec<_> = unknown.map(|(id, machine)| (&id.0, machine.hidden)).collect();
            let what = format!(
                "{counted} are counted, {truth} exist or may come; not known, and whether the last list left it out: {unknown:?}"
            );
            self.broken("I1 what may cost money is counted", what);
        }
    }

    /// Where lists have shown what every call did, nothing is waited for but what comes.
    fn check_vain(&mut self) {
        let shell = self.shell.as_ref().expect("the process runs");
        let (fleet, started) = (&shell.fleet, shell.started);
        if fleet.asks().is_empty() || fleet.asks().iter().any(|it| it.answer != Answer::Accepted) {
            return;
        }
        let failed = self.watch.call_failed_at.saturating_sub(started);
        let last = fleet.asks().iter().map(|ask| ask.at).fold(moment(failed), Moment::max);
        if !fleet.listed_since(last.after(ALL_SHOWS)) {
            return;
        }
        let waited_for = fleet.expected();
        let unknown = self.cloud.machines.keys().filter(|id| fleet.instance(id).is_none()).count();
        let under_way: u32 = self.cloud.under_way.values().sum();
        let coming = u32::try_from(unknown).unwrap_or(u32::MAX) + under_way;
        if waited_for > coming + self.cloud.never_shown {
            let what = format!("{waited_for} are waited for, {coming} come");
            self.broken("I8 liveness: nothing is waited for that does not come", what);
        }
    }

    /// With an honest provider all comes that was accepted and is waited for.
    fn check_coming(&mut self) {
        let fleet = &self.shell.as_ref().expect("the process runs").fleet;
        if fleet.asks().iter().any(|ask| ask.answer != Answer::Accepted) {
            return;
        }
        let waited_for = fleet.expected();
        let unknown = self.cloud.machines.keys().filter(|id| fleet.instance(id).is_none()).count();
        let coming =
            unknown as u64 + self.cloud.under_way.values().map(|n| u64::from(*n)).sum::<u64>();
        if u64::from(waited_for) > coming {
            let what = format!("{waited_for} are waited for, {coming} come");
            self.broken("I8 liveness: nothing is waited for that does not come", what);
        }
    }

    /// With an honest provider a job never waits for longer than an instance takes.
    fn check_starving(&mut self) {
        let (pace, setup) = (&self.setup.pace, &self.setup);
        let longest = pace.boot.1
            + pace.prepare.1
            + pace.shows.1
            + 3 * pace.call.1
            + 3 * pace.list.1
            + 2 * setup.update_expecting
            + 60 * SECOND;
        let (max, _) = setup.limits.most_instances();
        let shell = self.shell.as_ref().expect("the process runs");
        let starves = !shell.waiters.is_empty() && shell.fleet.costing() < max;
        let ready_lately = self.watch.disturbed_at;
        let since = match self.watch.starving_since {
            _ if !starves => None,
            None => Some(self.at),
            Some(since) => Some(since),
        };
        self.watch.starving_since = since;
        if since.is_some_and(|since| self.at > since.max(ready_lately) + longest) {
            let what = format!("a job waits since {since:?} ms, below max_instances");
            self.broken("I8 liveness: an honest provider serves within its boot time", what);
        }
    }
}
