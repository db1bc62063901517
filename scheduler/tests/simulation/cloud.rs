//! The simulated provider: the truth about instances, its answers, its lies, and what it
//! does late, in part or although it said no.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::fleet::{AskFailure, AskId, InstanceId, Seen};

use crate::faults::{EFFECT_SHOWS, HEARD_EFFECT_SHOWS, MINUTE, Ms, SECOND};
use crate::jobs::JobId;
use crate::run::{Event, Sim};

/// The manager's deadlines of its calls.
const LIST_LIMIT: Ms = 60 * SECOND;
const CHANGE_LIMIT: Ms = 120 * SECOND;
/// From the notice of an interruption to the end.
const NOTICE: Ms = 120 * SECOND;

/// Which call an instance comes from: the process of the manager, and its ask.
pub(crate) type By = (u64, AskId);

/// An instance to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// `None` is someone else.
    pub(crate) by: Option<By>,
    pub(crate) listed_from: Ms,
}

/// What the provider said to an ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    Accepted(u32),
    Failed(AskFailure),
}

/// One instance as it truly is.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) by: Option<By>,
    pub(crate) listed_from: Ms,
    pub(crate) runs_from: Ms,
    pub(crate) given_up_from: Ms,
    /// The manager was told so.
    pub(crate) told_given_up: bool,
    pub(crate) leaving: bool,
    /// Deletion works on it, whatever it was told before.
    pub(crate) reachable_from: Ms,
    pub(crate) unfit: bool,
    /// Lists in a row that did not name it.
    pub(crate) omitted: u32,
    /// A list did not name it, and none that did has arrived since.
    pub(crate) hidden: bool,
    /// The manager heard a list with it.
    pub(crate) was_listed: bool,
    /// Although someone else made it, it was taken for one that was asked for.
    pub(crate) took_ask: bool,
    pub(crate) jobs: BTreeMap<u32, JobId>,
    pub(crate) starts: u32,
}

impl Machine {
    /// Whether who tried had long enough: connecting takes some tries.
    pub(crate) fn could_be_reached(&self, at: Ms) -> bool {
        self.reachable_from.saturating_add(20 * SECOND) < at
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) machines: BTreeMap<InstanceId, Machine>,
    /// Gone, and listed as such until then.
    dead: BTreeMap<InstanceId, Ms>,
    /// Instances that calls may yet make.
    pub(crate) under_way: BTreeMap<By, u32>,
    /// Instances that were taken for one of another ask: so many that come are not counted.
    pub(crate) confused: u32,
    pub(crate) ever_confused: bool,
    /// Instances that were accepted and not made, or gone before any list had them.
    pub(crate) never_shown: u32,
    /// Creates that were not answered yet, of the current process.
    pub(crate) unanswered: BTreeSet<AskId>,
    pub(crate) outage_until: Ms,
    pub(crate) blind_until: Ms,
    pub(crate) plugin_down_until: Ms,
    born: u64,
}

impl Sim {
    fn is_down(&self) -> bool {
        self.at < self.cloud.outage_until || self.at < self.cloud.plugin_down_until
    }

    pub(crate) fn list_taken(&mut self, process: u64, begun: Ms) {
        let (from, to) = self.setup.pace.list;
        let delay = self.dice.between(from, to);
        let is_blind = self.is_down() || self.at < self.cloud.blind_until;
        if is_blind || self.dice.chance(self.behaviour.list_fails) {
            self.fault("list fails");
            return self.after(delay, Event::Listed(process, begun, None));
        }
        if self.dice.chance(self.behaviour.list_hangs) {
            self.fault("list hangs");
            return self.after(LIST_LIMIT, Event::Listed(process, begun, None));
        }
        if self.dice.chance(self.behaviour.list_strangers) {
            self.fault("instance of someone else");
            self.born(Made { by: None, listed_from: self.at });
        }
        let list = self.list();
        self.after(delay, Event::Listed(process, begun, Some(list)));
    }

    fn list(&mut self) -> Vec<(InstanceId, Seen)> {
        let mut list = Vec::new();
        let (at, mut omissions) = (self.at, 0);
        for (id, machine) in &mut self.cloud.machines {
            if at < machine.listed_from {
                continue;
            }
            if machine.omitted < 2 && self.dice.chance(self.behaviour.list_omits) {
                machine.omitted += 1;
                machine.hidden = true;
                omissions += 1;
                continue;
            }
            machine.omitted = 0;
            let seen = match machine {
                _ if machine.leaving => Seen::Leaving,
                _ if at >= machine.given_up_from => Seen::Timeout,
                _ if at >= machine.runs_from => Seen::Running,
                _ => Seen::Coming,
            };
            list.push((id.clone(), seen));
            if self.dice.chance(self.behaviour.list_repeats) {
                list.push((id.clone(), seen));
            }
        }
        self.cloud.dead.retain(|_, until| at < *until);
        list.extend(self.cloud.dead.keys().map(|id| (id.clone(), Seen::Deleted)));
        if omissions > 0 {
            self.fault("list omits");
        }
        list
    }

    pub(crate) fn create_reaches(&mut self, process: u64, ask: AskId, n: u32) {
        let by = (process, ask);
        let delay = self.dice.between(self.setup.pace.call.0, self.setup.pace.call.1);
        let answer = |answered| Event::CreateAnswered(process, ask, answered);
        if self.at < self.cloud.plugin_down_until {
            self.fault("create not sent");
            self.cloud.under_way.remove(&by);
            return self.after(delay, answer(Answered::Failed(AskFailure::NotSent)));
        }
        let b = self.behaviour.clone();
        let heard = self.at < self.cloud.outage_until || self.dice.chance(b.create_fails);
        let some = self.dice.count(0, n);
        if heard {
            self.fault("create fails");
            let works = self.dice.chance(b.create_fails_with_effect) && some > 0;
            if works {
                self.fault("create fails with effect");
            }
            self.make(by, if works { some } else { 0 }, delay + HEARD_EFFECT_SHOWS);
            return self.after(delay, answer(Answered::Failed(AskFailure::Heard)));
        }
        if self.dice.chance(b.create_hangs) {
            self.fault("create hangs");
            self.make(by, some, EFFECT_SHOWS);
            return self.after(CHANGE_LIMIT, answer(Answered::Failed(AskFailure::Silent)));
        }
        let partly = n > 1 && self.dice.chance(b.create_partly);
        let accepted = if partly { self.dice.count(0, n - 1) } else { n };
        let lies = self.dice.chance(b.create_lies);
        if partly {
            self.fault("create in part");
        }
        if lies {
            self.fault("create lies");
        }
        let made = if lies { accepted / 2 } else { accepted };
        self.cloud.never_shown += accepted - made;
        self.make(by, made, EFFECT_SHOWS);
        self.after(delay, answer(Answered::Accepted(accepted)));
    }

    /// Makes instances that are listed within `shows_by`.
    fn make(&mut self, by: By, n: u32, shows_by: Ms) {
        if n == 0 {
            self.cloud.under_way.remove(&by);
        } else {
            self.cloud.under_way.insert(by, n);
        }
        for _ in 0..n {
            let born = self.dice.between(0, self.setup.pace.born.min(shows_by));
            let late = self.dice.between(self.setup.pace.shows.0, self.setup.pace.shows.1);
            let shows = (born + late).min(shows_by);
            let made = Made { by: Some(by), listed_from: self.at + shows };
            self.after(born, Event::Born(made));
        }
    }

    pub(crate) fn born(&mut self, made: Made) {
        if let Some(by) = made.by {
            let left = self.cloud.under_way.get(&by).map_or(0, |n| n.saturating_sub(1));
            if left == 0 {
                self.cloud.under_way.remove(&by);
            } else {
                self.cloud.under_way.insert(by, left);
            }
        }
        self.cloud.born += 1;
        let id = InstanceId(format!("i{}", self.cloud.born));
        let b = self.behaviour.clone();
        let boot = self.dice.between(self.setup.pace.boot.0, self.setup.pace.boot.1);
        let never = self.dice.chance(b.never_boots);
        let given_up = match never {
            true => self.dice.chance(0.2).then_some(boot),
            false => {
                self.dice.chance(b.reports_timeout).then(|| self.dice.spread(boot, 60 * MINUTE))
            }
        };
        if never {
            self.fault("never boots");
        }
        let runs_from = if never { Ms::MAX } else { self.at + boot };
        let slow = if self.dice.chance(b.slow_to_reach) { 5 * MINUTE } else { 0 };
        let unfit = self.dice.chance(b.unfit);
        if unfit {
            self.fault("cannot be prepared");
        }
        let machine = Machine {
            by: made.by,
            listed_from: made.listed_from,
            runs_from,
            given_up_from: given_up.map_or(Ms::MAX, |after| self.at + after),
            told_given_up: false,
            leaving: false,
            reachable_from: runs_from.saturating_add(self.dice.between(0, slow)),
            unfit,
            omitted: 0,
            hidden: false,
            was_listed: false,
            took_ask: false,
            jobs: BTreeMap::new(),
            starts: 0,
        };
        self.tell(|| format!("{id} is born, runs from {runs_from} ms, by {:?}", made.by));
        self.cloud.machines.insert(id.clone(), machine);
        let life = self.dice.spread(SECOND, 60 * MINUTE);
        if self.dice.chance(b.killed) {
            self.after(life, Event::Kill(id));
        } else if self.dice.chance(b.interrupted) {
            self.after(life, Event::Interrupt(id));
        } else if self.dice.chance(b.connection_lost) {
            self.after(life, Event::ConnectionLost(id));
        }
    }

    pub(crate) fn delete_reaches(&mut self, process: u64, ids: &[InstanceId], sent: bool) {
        let delay = self.dice.between(self.setup.pace.call.0, self.setup.pace.call.1);
        let b = self.behaviour.clone();
        let answer = |accepted| Event::DeleteAnswered(process, ids.to_vec(), accepted);
        if !sent || self.is_down() || self.dice.chance(b.delete_fails) {
            self.fault("delete fails");
            let has_effect = sent && self.dice.chance(0.3);
            for id in ids.iter().filter(|_| has_effect) {
                self.leave(id);
            }
            return self.after(delay, answer(Vec::new()));
        }
        if self.dice.chance(b.delete_hangs) {
            self.fault("delete hangs");
            for id in ids {
                if self.dice.chance(0.5) {
                    self.leave(id);
                }
            }
            return self.after(CHANGE_LIMIT, answer(Vec::new()));
        }
        let mut accepted = Vec::new();
        for id in ids {
            if self.dice.chance(b.delete_partly) {
                self.fault("delete in part");
                continue;
            }
            accepted.push(id.clone());
            if self.dice.chance(b.delete_lies) {
                self.fault("delete lies");
                continue;
            }
            self.leave(id);
        }
        self.after(delay, answer(accepted));
    }

    fn leave(&mut self, id: &InstanceId) {
        let delay = self.dice.between(self.setup.pace.vanish.0, self.setup.pace.vanish.1);
        // Some providers show at once that it goes, others only that it is gone.
        let shows = self.setup.seed_shows_leaving();
        let Some(machine) = self.cloud.machines.get_mut(id) else { return };
        machine.leaving = shows;
        self.after(delay, Event::Vanish(id.clone()));
    }

    pub(crate) fn interrupt(&mut self, id: &InstanceId) {
        if self.healed {
            return;
        }
        if let Some(machine) = self.cloud.machines.get_mut(id) {
            machine.leaving = true;
            self.fault("interruption");
            self.tell(|| format!("{id} is to be interrupted"));
            self.after(NOTICE, Event::Kill(id.clone()));
        }
    }

    pub(crate) fn kill(&mut self, id: &InstanceId) {
        let leaves = self.cloud.machines.get(id).is_some_and(|machine| machine.leaving);
        if leaves || !self.healed {
            self.vanish(id, "is killed from outside");
        }
    }

    pub(crate) fn kill_one(&mut self) {
        let ids: Vec<_> = self.cloud.machines.keys().cloned().collect();
        if !ids.is_empty() {
            let id = self.dice.pick(&ids);
            self.vanish(&id, "is killed from outside");
        }
    }

    /// An instance is no more, and its jobs with it.
    pub(crate) fn vanish(&mut self, id: &InstanceId, how: &'static str) {
        let Some(machine) = self.cloud.machines.remove(id) else { return };
        self.tell(|| format!("{id} {how}, jobs {:?}", machine.jobs));
        self.cloud.never_shown += u32::from(!machine.was_listed);
        if how != "vanishes" {
            self.fault("killed from outside");
        }
        if self.setup.pace.shows_deleted {
            self.cloud.dead.insert(id.clone(), self.at + MINUTE);
        }
        for job in machine.jobs.values() {
            self.gitlab.died(*job);
        }
        self.connection_lost(id);
    }

    pub(crate) fn restart_plugin(&mut self, pause: Ms) {
        self.fault("plugin restart");
        self.cloud.plugin_down_until = self.at + pause;
        let process = self.process;
        for ask in std::mem::take(&mut self.cloud.unanswered) {
            let silent = Answered::Failed(AskFailure::Silent);
            self.cloud.unanswered.insert(ask);
            self.after(0, Event::CreateAnswered(process, ask, silent));
        }
    }
}
