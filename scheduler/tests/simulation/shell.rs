//! A model of the manager's group around the real core: the loop, what it writes down
//! before it acts, and what a new process makes of that.
//!
//! It follows `manager/src/group` step by step; the order of writes, calls and changes of
//! the fleet is the same. The process may end at any write, on either side of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scheduler::fleet::{AskId, Instance, InstanceId, Origin, Vacant};
use scheduler::plan::{Plan, Reason, Step};
use scheduler::policy::Policy;
use scheduler::{Fleet, Now, Schedule, decide, decide_end};

use crate::cloud::Answered;
use crate::faults::{MINUTE, Ms, SECOND, Setup, moment, ms};
use crate::jobs::{JobId, JobRecord, Running, Waiter};
use crate::run::{Event, Sim};

pub(crate) const FIRST_LOOK: Ms = 10;
const POLICY_INTERVAL: Ms = MINUTE;

/// One write to the state.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    PutAsk(AskId, u32, u64),
    RemoveAsk(AskId),
    PutInstance(InstanceId, Record),
    RemoveInstance(InstanceId),
    BeginJob(JobId, JobRecord, Record),
    PutJob(JobId),
    /// The job is over and has left its slot; the server has not heard of it.
    LeaveSlot(JobId),
    RemoveJob(JobId),
}

/// What goes on once a write is on disk.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    Create(AskId, u32),
    Prepared(InstanceId, u64),
    Go(JobId, u64),
    Release(JobId),
    Nothing,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) uses: u32,
    pub(crate) ready: bool,
    /// Jobs of strangers may run there.
    pub(crate) strange: bool,
}

/// What outlives the process.
#[derive(Default)]
pub(crate) struct Disk {
    /// How many each, and which process asked.
    pub(crate) asks: BTreeMap<AskId, (u32, u64)>,
    pub(crate) instances: BTreeMap<InstanceId, Record>,
    pub(crate) jobs: BTreeMap<JobId, Option<JobRecord>>,
    /// Writes that nobody waits for: in order, and lost from some point on by a crash.
    pub(crate) later: VecDeque<Op>,
    /// The first process whose state is of this lineage: what came before was lost.
    pub(crate) lineage: u64,
}

impl Disk {
    fn apply(&mut self, op: Op) {
        match op {
            Op::PutAsk(ask, n, process) => drop(self.asks.insert(ask, (n, process))),
            Op::RemoveAsk(ask) => drop(self.asks.remove(&ask)),
            Op::PutInstance(id, record) => drop(self.instances.insert(id, record)),
            Op::RemoveInstance(id) => drop(self.instances.remove(&id)),
            Op::BeginJob(job, record, instance) => {
                self.instances.insert(record.instance.clone(), instance);
                self.jobs.insert(job, Some(record));
            }
            Op::PutJob(job) => drop(self.jobs.entry(job).or_insert(None)),
            Op::LeaveSlot(job) => {
                self.jobs.entry(job).and_modify(|record| *record = None);
            }
            Op::RemoveJob(job) => drop(self.jobs.remove(&job)),
        }
    }

    /// Applies so many of the writes that wait; the others are lost.
    pub(crate) fn flush(&mut self, writes: usize) {
        for op in self.later.drain(..).take(writes).collect::<Vec<_>>() {
            self.apply(op);
        }
    }

    pub(crate) fn later(&mut self, op: Op) {
        self.later.push_back(op);
        if self.later.len() > 20
            && let Some(op) = self.later.pop_front()
        {
            self.apply(op);
        }
    }
}

/// When the provider is listed next.
pub(crate) struct Looks {
    pub(crate) next: Ms,
    pub(crate) fast: Ms,
    pub(crate) running: bool,
    pub(crate) failures: u32,
}

/// One process of the manager.
pub(crate) struct Shell {
    pub(crate) fleet: Fleet,
    pub(crate) started: Ms,
    pub(crate) connections: BTreeSet<InstanceId>,
    pub(crate) records: BTreeMap<InstanceId, Record>,
    pub(crate) slot_failures: BTreeMap<InstanceId, u32>,
    pub(crate) waiters: VecDeque<Waiter>,
    pub(crate) jobs: BTreeMap<JobId, Running>,
    /// Loops that hold a reservation while they ask for a job, by what numbers the poll.
    pub(crate) polls: BTreeMap<u32, u64>,
    pub(crate) deleting_all: bool,
    pub(crate) timer: u64,
    pub(crate) round_due: bool,
    pub(crate) preparing: BTreeMap<InstanceId, u64>,
    pub(crate) tasks: u64,
    pub(crate) looks: Looks,
    /// The minute for which it was looked up.
    pub(crate) policy: (i64, Policy),
}

impl Setup {
    pub(crate) fn seed_shows_leaving(&self) -> bool {
        self.pace.vanish.0.is_multiple_of(2)
    }
}

impl Sim {
    pub(crate) fn shell(&mut self) -> &mut Shell {
        self.shell.as_mut().expect("the process runs")
    }

    pub(crate) fn now(&self) -> Now {
        let started = self.shell.as_ref().map_or(self.at, |shell| shell.started);
        let seconds = i64::try_from(self.at / SECOND).unwrap_or_default();
        let wall = self.setup.wall_s + seconds + self.wall_jump_s;
        let wall = jiff::Timestamp::from_second(wall).expect("a time of this century");
        Now { moment: moment(self.at - started), wall }
    }

    /// The policy that holds; it changes with minutes only.
    pub(crate) fn policy(&mut self) -> Policy {
        let now = self.now();
        let minute = now.wall.as_second().div_euclid(60);
        if self.shell().policy.0 != minute {
            let policy = Schedule::new(self.setup.policies.clone()).at(now.wall).clone();
            if policy != self.shell().policy.1 {
                self.watch.disturbed(self.at);
            }
            self.shell().policy = (minute, policy);
        }
        self.shell().policy.1.clone()
    }

    /// Wakes the loop, once however often it is called.
    pub(crate) fn changed(&mut self) {
        let process = self.process;
        if !std::mem::replace(&mut self.shell().round_due, true) {
            self.after(0, Event::Round(process));
        }
    }

    pub(crate) fn round(&mut self) {
        let process = self.process;
        let at = self.at;
        self.watch.rounds += 1;
        if !self.shell().looks.running && at >= self.shell().looks.next {
            self.shell().looks.running = true;
            let delay = self.dice.between(1, self.setup.pace.list.0);
            self.watch.called(at);
            self.after(delay, Event::ListTaken(process, at));
        }
        let plan = self.decide();
        if self.dice.chance(self.behaviour.races) {
            self.race();
        }
        let asked = self.act(&plan);
        let shell = self.shell();
        if asked {
            shell.looks.fast = FIRST_LOOK;
            shell.looks.next = shell.looks.next.min(at + FIRST_LOOK);
        }
        let mut wake = if shell.looks.running { at + POLICY_INTERVAL } else { shell.looks.next };
        let started = shell.started;
        wake = plan.wake.map_or(wake, |wake_at| wake.min(started + ms(wake_at.0)));
        if self.setup.policies.iter().any(|policy| !policy.periods.is_empty()) {
            wake = wake.min(at + POLICY_INTERVAL);
        }
        self.shell().timer += 1;
        let timer = self.shell().timer;
        self.after(wake.saturating_sub(at).max(1), Event::Timer(process, timer));
        self.check_round(asked);
    }

    fn decide(&mut self) -> Plan {
        let (now, policy) = (self.now(), self.policy());
        let shell = self.shell.as_ref().expect("the process runs");
        let (fleet, limits) = (&shell.fleet, &self.setup.limits);
        let make = || match shell.deleting_all {
            true => decide_end(fleet, limits, Reason::ShuttingDown, now),
            false => decide(fleet, &policy, limits, now),
        };
        let plan = make();
        let same = plan == make();
        if !same {
            self.broken("total: equal fleets have equal plans", format!("{plan:?}"));
        }
        self.check_plan(&plan, &policy, now);
        plan
    }

    fn act(&mut self, plan: &Plan) -> bool {
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
                Step::GiveUp { ask } => {
                    self.tell(|| format!("gives ask {} up", ask.0));
                    let now = self.now().moment;
                    if self.shell().fleet.expected_of(*ask) > 0 {
                        self.watch.boot_failed(self.at);
                    }
                    self.watch.disturbed(self.at);
                    self.shell().fleet.ask_given_up(*ask, now);
                    self.forget_asks();
                }
            }
        }
        asked
    }

    fn create(&mut self, n: u32, reason: Reason) {
        let (now, process) = (self.now().moment, self.process);
        self.check_create(n, reason);
        let limits = self.setup.limits.clone();
        let ask = self.shell().fleet.asked(n, &limits, now);
        self.tell(|| format!("asks for {n} ({}), ask {}", reason.as_str(), ask.0));
        self.cloud.under_way.insert((process, ask), n);
        self.watch.asked(self.at, n);
        self.write(Op::PutAsk(ask, n, process), Then::Create(ask, n));
    }

    /// Writes, and goes on once it is on disk.
    pub(crate) fn write(&mut self, op: Op, then: Then) {
        let (process, delay) = (self.process, self.dice.between(0, 5));
        self.after(delay, Event::Written(process, op, then));
    }

    pub(crate) fn written(&mut self, process: u64, op: Op, then: Then) {
        if self.shell.is_none() || self.process != process {
            if let Then::Create(ask, _) = then {
                self.cloud.under_way.remove(&(process, ask));
            }
            return;
        }
        let crash = self.dice.chance(self.behaviour.crash);
        if crash && self.dice.chance(0.5) {
            self.tell(|| format!("crashes before {op:?} is written"));
            if let Then::Create(ask, _) = then {
                self.cloud.under_way.remove(&(process, ask));
            }
            return self.crash("before a write");
        }
        if self.dice.chance(self.behaviour.write_fails) {
            self.fault("write fails");
            return self.not_written(then);
        }
        self.disk.flush(usize::MAX);
        self.disk.apply(op.clone());
        if crash {
            self.tell(|| format!("crashes after {op:?} is written"));
            if let Then::Create(ask, _) = then {
                self.cloud.under_way.remove(&(process, ask));
            }
            return self.crash("after a write");
        }
        match then {
            Then::Create(ask, n) => {
                self.watch.called(self.at);
                self.cloud.unanswered.insert(ask);
                self.after(1, Event::CreateReaches(process, ask, n));
            }
            Then::Prepared(id, task) => self.prepared(&id, task),
            Then::Go(job, try_number) => self.go(job, try_number),
            Then::Release(job) => self.release(job),
            Then::Nothing => {}
        }
    }

    fn not_written(&mut self, then: Then) {
        match then {
            Then::Create(ask, _) => {
                self.cloud.under_way.remove(&(self.process, ask));
                self.cloud.unanswered.insert(ask);
                let failure = scheduler::fleet::AskFailure::NotSent;
                self.create_answered(ask, Answered::Failed(failure));
            }
            Then::Prepared(id, task) => self.prepared(&id, task),
            Then::Go(job, _) => self.finish(job, false, "its begin cannot be written down"),
            Then::Release(job) => self.release(job),
            Then::Nothing => {}
        }
    }

    pub(crate) fn create_answered(&mut self, ask: AskId, answered: Answered) {
        if !self.cloud.unanswered.remove(&ask) {
            return;
        }
        self.tell(|| format!("ask {} is answered: {answered:?}", ask.0));
        let now = self.now().moment;
        self.watch.disturbed(self.at);
        match answered {
            Answered::Accepted(accepted) => {
                let short = self.disk.asks.get(&ask).is_some_and(|(n, _)| accepted < *n);
                self.watch.answered(self.at, !short);
                self.shell().fleet.ask_accepted(ask, accepted, now);
            }
            Answered::Failed(failure) => {
                self.watch.answered(self.at, false);
                self.shell().fleet.ask_failed(ask, failure, now);
            }
        }
        self.forget_asks();
        self.changed();
    }

    pub(crate) fn drain(&mut self, id: &InstanceId, reason: Reason) {
        self.tell(|| format!("drains {id}: {}", reason.as_str()));
        let now = self.now().moment;
        let origin = self.shell().fleet.instance(id).map(Instance::origin);
        if reason == Reason::BootDeadline && origin == Some(Origin::Asked) {
            self.watch.boot_failed(self.at);
        }
        if reason == Reason::IdleTooLong {
            self.watch.idle_drained_at = Some(self.at);
        } else {
            self.watch.disturbed(self.at);
        }
        self.shell().fleet.drain(id, reason, now);
        self.connections_changed();
        self.changed();
    }

    /// Whether one of them was not asked for before.
    fn delete(&mut self, instances: &[(Vacant, Reason)]) -> bool {
        let (now, process) = (self.now().moment, self.process);
        let fleet = &self.shell().fleet;
        let vacant: Vec<Vacant> = instances
            .iter()
            .filter(|(candidate, _)| fleet.vacant(candidate.id()).is_some())
            .map(|(candidate, _)| candidate.clone())
            .collect();
        let ids: Vec<InstanceId> = vacant.iter().map(|vacant| vacant.id().clone()).collect();
        let is_new =
            |id: &InstanceId| fleet.instance(id).is_some_and(|it| it.delete_call().is_none());
        let any_new = ids.iter().any(is_new);
        for (candidate, reason) in instances.iter().filter(|(it, _)| ids.contains(it.id())) {
            self.check_delete(candidate.id(), *reason);
            self.shell().connections.remove(candidate.id());
        }
        self.shell().fleet.deleting(&vacant, now);
        if ids.is_empty() {
            return false;
        }
        self.tell(|| format!("deletes {}", names(&ids)));
        self.watch.called(self.at);
        let sent = self.at >= self.cloud.plugin_down_until;
        let delay = self.dice.between(1, 50);
        self.after(delay, Event::DeleteReaches(process, ids, sent));
        any_new
    }

    pub(crate) fn delete_answered(&mut self, asked: &[InstanceId], accepted: &[InstanceId]) {
        let now = self.now().moment;
        let fleet = &mut self.shell().fleet;
        let vacant: Vec<Vacant> = asked.iter().filter_map(|id| fleet.vacant(id)).collect();
        fleet.deletion_answered(&vacant, accepted, now);
        self.changed();
    }

    pub(crate) fn forget_asks(&mut self) {
        let open: BTreeSet<AskId> = self.shell().fleet.asks().iter().map(|ask| ask.id).collect();
        let settled: Vec<AskId> =
            self.disk.asks.keys().filter(|ask| !open.contains(ask)).copied().collect();
        for ask in settled {
            self.disk.later(Op::RemoveAsk(ask));
        }
    }
}

pub(crate) fn names(ids: &[InstanceId]) -> String {
    ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(" ")
}
