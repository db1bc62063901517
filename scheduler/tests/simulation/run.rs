//! One seed: the made-up clock, the queue of what happens next, and the order of things.
//!
//! A seed is replayed exactly: events at the same moment happen in the order in which they
//! were scheduled, and all chance comes from the seed.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cloud::{Answered, Cloud, Made};
use crate::faults::{Behaviour, Dice, Disturbance, MINUTE, Ms, Setup, ms};
use crate::invariants::{Broken, Watch};
use crate::jobs::{Gitlab, JobId};
use crate::shell::{Disk, Op, Shell, Then};
use scheduler::fleet::{AskId, InstanceId, Seen};

/// Events that a report shows.
const TOLD: usize = 40;
/// A history that is longer than this goes round in circles.
const MOST_EVENTS: u64 = 3_000_000;

/// Everything that can happen. What belongs to a process of the manager carries its number
/// and is ignored once that process has ended.
#[derive(Debug)]
pub(crate) enum Event {
    Timer(u64, u64),
    Round(u64),
    Written(u64, Op, Then),
    ListTaken(u64, Ms),
    Listed(u64, Ms, Option<Vec<(InstanceId, Seen)>>),
    CreateReaches(u64, AskId, u32),
    CreateAnswered(u64, AskId, Answered),
    DeleteReaches(u64, Vec<InstanceId>, bool),
    DeleteAnswered(u64, Vec<InstanceId>, Vec<InstanceId>),
    Prepare(u64, InstanceId, u64, Ms),
    Strangers(u64, InstanceId),
    ConnectionLost(InstanceId),
    Born(Made),
    Vanish(InstanceId),
    Kill(InstanceId),
    Interrupt(InstanceId),
    Arrive(Ms),
    Feed(u64, u32),
    PollEnds(u64, u32, u64),
    Planned(u64, JobId, u64),
    JobEnds(InstanceId, u32, JobId),
    AcquireTimeout(u64, JobId),
    Remember(u64, JobId),
    Reported(u64, JobId, bool),
    Disturb(Disturbance),
    Restart,
    Heal,
    Check,
}

struct Timed(Ms, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// The whole simulated world.
pub(crate) struct Sim {
    pub(crate) seed: u64,
    pub(crate) at: Ms,
    pub(crate) dice: Dice,
    pub(crate) setup: Setup,
    pub(crate) behaviour: Behaviour,
    pub(crate) wall_jump_s: i64,
    pub(crate) cloud: Cloud,
    pub(crate) disk: Disk,
    pub(crate) gitlab: Gitlab,
    pub(crate) shell: Option<Shell>,
    /// Numbers the processes of the manager.
    pub(crate) process: u64,
    pub(crate) watch: Watch,
    pub(crate) healed: bool,
    pub(crate) done: bool,
    queue: BinaryHeap<Timed>,
    scheduled: u64,
    story: VecDeque<String>,
    aloud: bool,
}

/// What a seed came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) broken: Option<String>,
    pub(crate) simulated: Ms,
    pub(crate) events: u64,
    pub(crate) rounds: u64,
    pub(crate) faults: std::collections::BTreeMap<&'static str, u64>,
}

/// Lives one seed. `aloud` prints every event.
pub(crate) fn live(seed: u64, aloud: bool) -> Outcome {
    let mut sim = Sim::drawn(seed, aloud);
    let lived = catch_unwind(AssertUnwindSafe(|| sim.run()));
    if let Err(panic) = lived {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        sim.broken("total: the scheduler panics", text.to_owned());
    }
    Outcome {
        broken: sim.watch.broken.take().map(|broken| sim.report(&broken)),
        simulated: sim.at,
        events: sim.watch.events,
        rounds: sim.watch.rounds,
        faults: std::mem::take(&mut sim.watch.faults),
    }
}

impl Sim {
    fn drawn(seed: u64, aloud: bool) -> Self {
        let mut dice = Dice::new(seed);
        let setup = Setup::draw(&mut dice);
        Self::new(seed, dice, setup, aloud)
    }

    /// The history of this very setup.
    pub(crate) fn of(seed: u64, setup: Setup, aloud: bool) -> Self {
        Self::new(seed, Dice::new(seed), setup, aloud)
    }

    fn new(seed: u64, dice: Dice, setup: Setup, aloud: bool) -> Self {
        let mut sim = Self {
            seed,
            at: 0,
            behaviour: setup.behaviour.clone(),
            wall_jump_s: 0,
            cloud: Cloud::default(),
            disk: Disk::default(),
            gitlab: Gitlab::default(),
            shell: None,
            process: 0,
            watch: Watch::default(),
            healed: false,
            done: false,
            queue: BinaryHeap::new(),
            scheduled: 0,
            story: VecDeque::new(),
            aloud,
            dice,
            setup,
        };
        for (at, disturbance) in std::mem::take(&mut sim.setup.timeline) {
            sim.after(at, Event::Disturb(disturbance));
        }
        for (at, runs) in std::mem::take(&mut sim.setup.arrivals) {
            sim.after(at, Event::Arrive(runs));
        }
        sim.after(0, Event::Restart);
        sim.after(sim.setup.heal_at, Event::Heal);
        sim
    }

    pub(crate) fn after(&mut self, delay: Ms, event: Event) {
        self.scheduled += 1;
        self.queue.push(Timed(self.at + delay, self.scheduled, event));
    }

    pub(crate) fn run(&mut self) {
        if self.aloud {
            println!("limits {:?}\npolicies {:?}", self.setup.limits, self.setup.policies);
        }
        while let Some(Timed(at, _, event)) = self.queue.pop() {
            self.watch.events += 1;
            self.watch.at_once = if at == self.at { self.watch.at_once + 1 } else { 0 };
            self.at = at;
            if self.watch.events > MOST_EVENTS || self.watch.at_once > 5_000 {
                self.broken("I10 no busy loop", "the history does not go on".into());
            }
            self.happen(event);
            if self.done || self.watch.broken.is_some() {
                return;
            }
        }
    }

    /// Whether the process of the manager to which an event belongs still runs.
    fn is_current(&self, process: u64) -> bool {
        self.shell.is_some() && self.process == process
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Timer(process, timer) => {
                if self.is_current(process) && self.shell().timer == timer {
                    self.round();
                }
            }
            Event::Round(process) => {
                if self.is_current(process) {
                    self.shell().round_due = false;
                    self.round();
                }
            }
            Event::Written(process, op, then) => self.written(process, op, then),
            Event::ListTaken(process, begun) => self.list_taken(process, begun),
            Event::Listed(process, begun, list) if self.is_current(process) => {
                self.observe(begun, list);
            }
            Event::CreateReaches(process, ask, n) => self.create_reaches(process, ask, n),
            Event::CreateAnswered(process, ask, answered) if self.is_current(process) => {
                self.create_answered(ask, answered);
            }
            Event::DeleteReaches(process, ids, works) => self.delete_reaches(process, &ids, works),
            Event::DeleteAnswered(process, asked, accepted) if self.is_current(process) => {
                self.delete_answered(&asked, &accepted);
            }
            Event::Prepare(process, id, task, wait) if self.is_current(process) => {
                self.try_to_prepare(id, task, wait);
            }
            Event::Strangers(process, id) if self.is_current(process) => self.strangers(id),
            Event::ConnectionLost(id) => self.connection_lost(&id),
            Event::Born(made) => self.born(made),
            Event::Vanish(id) => self.vanish(&id, "vanishes"),
            Event::Kill(id) => self.kill(&id),
            Event::Interrupt(id) => self.interrupt(&id),
            other => self.happen_to_jobs(other),
        }
    }

    fn happen_to_jobs(&mut self, event: Event) {
        match event {
            Event::Arrive(runs) => self.arrive(runs),
            Event::Feed(process, number) if self.is_current(process) => self.feed(number),
            Event::PollEnds(process, number, poll) if self.is_current(process) => {
                self.poll_ends(number, poll);
            }
            Event::Planned(process, job, try_number) if self.is_current(process) => {
                self.planned(job, try_number);
            }
            Event::JobEnds(id, slot, job) => self.job_ends(&id, slot, job),
            Event::AcquireTimeout(process, job) if self.is_current(process) => {
                self.acquire_timeout(job);
            }
            Event::Remember(process, job) if self.is_current(process) => self.remember_job(job),
            Event::Reported(process, job, success) => self.reported(process, job, success),
            Event::Disturb(disturbance) => self.disturb(disturbance),
            Event::Restart => self.restart(),
            Event::Heal => self.heal(),
            Event::Check => self.check_end(),
            _ => {}
        }
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        if self.healed {
            return;
        }
        self.tell(|| format!("DISTURBANCE {disturbance:?}"));
        match disturbance {
            Disturbance::Retune => {
                self.fault("retune");
                self.retune();
            }
            Disturbance::Crash => self.crash("at any moment"),
            Disturbance::Sigterm => self.sigterm(),
            Disturbance::StateLost => self.lose_state(),
            Disturbance::WallJump(seconds) => {
                self.fault("wall clock jump");
                self.wall_jump_s += seconds;
            }
            Disturbance::PluginRestart(pause) => self.restart_plugin(pause),
            Disturbance::KillOne => self.kill_one(),
            Disturbance::Outage(pause) => {
                self.fault("provider outage");
                self.cloud.outage_until = self.at + pause;
            }
            Disturbance::Blind(pause) => {
                self.fault("lists fail for long");
                self.cloud.blind_until = self.at + pause;
            }
            Disturbance::LoseConnections => self.lose_connections(),
            Disturbance::Operator => self.operator(),
        }
    }

    fn lose_connections(&mut self) {
        self.fault("all connections lost");
        let ids: Vec<_> = self.cloud.machines.keys().cloned().collect();
        let back = self.at + self.dice.spread(100, 3 * MINUTE);
        for id in ids {
            let machine = self.cloud.machines.get_mut(&id).expect("it is there");
            machine.reachable_from = machine.reachable_from.max(back);
            self.connection_lost(&id);
        }
    }

    /// Nothing goes wrong from now on: what is wrong must become right within a bound.
    fn heal(&mut self) {
        self.tell(|| "HEALED: nothing goes wrong from now on".into());
        self.healed = true;
        self.behaviour = Behaviour::default();
        self.cloud.outage_until = self.at;
        self.cloud.blind_until = self.at;
        self.cloud.plugin_down_until = self.at;
        for machine in self.cloud.machines.values_mut() {
            machine.omitted = 0;
        }
        self.settle_policy();
        self.gitlab.closed = self.setup.ends_early;
        if self.shell.is_none() {
            self.after(1, Event::Restart);
        }
        self.watch.settle_by = self.at + self.settle_time();
        self.watch.drain_by = self.watch.settle_by + self.work_left();
        self.after(MINUTE, Event::Check);
    }

    /// Longest time for the fleet to become as it should be, whatever it was: breakers, all
    /// deadlines one after the other, the last retry, and the idle time.
    fn settle_time(&self) -> Ms {
        let limits = &self.setup.limits;
        2 * ms(limits.boot_deadline)
            + ms(limits.prepare_deadline)
            + 3 * ms(limits.reconnect_deadline)
            + 2 * ms(limits.deletion_retry)
            + 20 * MINUTE
            + 4 * self.setup.pace.boot.1
            + 4 * self.setup.pace.vanish.1
            + 4 * self.setup.update_interval
    }

    /// Says once that an invariant is broken.
    pub(crate) fn broken(&mut self, invariant: &'static str, what: String) {
        self.tell(|| format!("BROKEN {invariant}: {what}"));
        self.watch.broken.get_or_insert(Broken { invariant, what });
    }

    /// Counts an injected fault.
    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.watch.faults.entry(kind).or_default() += 1;
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>10.3} s  {}", self.at as f64 / 1000.0, line());
        if self.aloud {
            println!("{line}");
        }
        if self.story.len() == TOLD {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    pub(crate) fn report(&self, broken: &Broken) -> String {
        let story: Vec<&str> = self.story.iter().map(String::as_str).collect();
        format!(
            "{}\n  {}\n  seed {}, simulated time {:.3} s, the last events:\n{}\n  replay: MAYFLY_SIM_SEED={} cargo test -p scheduler --test simulation -- --nocapture",
            broken.invariant,
            broken.what,
            self.seed,
            self.at as f64 / 1000.0,
            story.join("\n"),
            self.seed
        )
    }
}
