//! Jobs: the simulated GitLab that hands them out once, and their way through a process of
//! the manager: reserve, take, acquire, plan, begin, run, end, release.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use scheduler::fleet::InstanceId;
use scheduler::plan::Reason;

use crate::faults::{Ms, SECOND};
use crate::run::{Event, Sim};
use crate::shell::{Disk, Op, Record, Then};

pub(crate) type JobId = u64;

const POLL: Ms = 50 * SECOND;
const CHECK_INTERVAL: Ms = 5 * SECOND;
const REMEMBER_AFTER: Ms = 200;
const ARMED_LIMIT: Ms = 5 * SECOND;
const PLACEMENTS: usize = 5;
const SLOT_FAILURES: u32 = 2;

/// Where a job stands at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    Taken,
    Over,
}

/// A job as it truly is.
pub(crate) struct Job {
    pub(crate) runs: Ms,
    pub(crate) state: State,
    pub(crate) starts: u32,
    pub(crate) finished: bool,
    /// We told the server how it ended: what may still run of it is nobody's.
    pub(crate) told: bool,
    /// Rightly, with its instance: whichever process deletes that.
    pub(crate) given_up: bool,
}

/// The server, and what truly became of its jobs.
#[derive(Default)]
pub(crate) struct Gitlab {
    pub(crate) jobs: Vec<Job>,
    pub(crate) queue: VecDeque<JobId>,
    polls: u64,
    pub(crate) closed: bool,
}

/// A job that waits for a slot.
pub(crate) struct Waiter {
    pub(crate) job: JobId,
    except: Vec<InstanceId>,
}

#[derive(Clone, Debug)]
pub(crate) struct JobRecord {
    pub(crate) instance: InstanceId,
    pub(crate) slot: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Waiting,
    Planning,
    Beginning,
    Runs,
    Ending,
}

/// A job in a process of the manager.
pub(crate) struct Running {
    step: Step,
    bound: Option<(InstanceId, u32)>,
    used: bool,
    failed: Vec<InstanceId>,
    try_number: u64,
}

impl Gitlab {
    pub(crate) fn job(&mut self, id: JobId) -> &mut Job {
        &mut self.jobs[usize::try_from(id).unwrap_or_default()]
    }

    /// Its instance is no more, and it with it.
    pub(crate) fn died(&mut self, _job: JobId) {}

    /// Jobs of which no process knows any more are dropped by the server; for users that is
    /// a system failure.
    pub(crate) fn forgotten(&mut self, disk: &Disk) {
        for (id, job) in (0..).zip(&mut self.jobs) {
            if job.state == State::Taken && !disk.jobs.contains_key(&id) {
                job.state = State::Over;
            }
        }
    }

    pub(crate) fn unfinished(&self) -> usize {
        let closed = self.closed;
        let is_open = |job: &&Job| match job.state {
            State::Queued => !closed,
            State::Taken => true,
            State::Over => false,
        };
        self.jobs.iter().filter(is_open).count()
    }
}

impl Sim {
    pub(crate) fn arrive(&mut self, runs: Ms) {
        if self.gitlab.jobs.len() >= self.setup.most_jobs || self.healed {
            return;
        }
        let id = self.gitlab.jobs.len() as JobId;
        self.gitlab.jobs.push(Job {
            runs,
            state: State::Queued,
            starts: 0,
            finished: false,
            told: false,
            given_up: false,
        });
        self.gitlab.queue.push_back(id);
        self.tell(|| format!("job {id} arrives, {runs} ms"));
        self.hand_out();
    }

    /// Open polls get what is queued.
    fn hand_out(&mut self) {
        while self.shell.is_some() && !self.gitlab.closed && !self.gitlab.queue.is_empty() {
            let Some(number) = self.shell().polls.keys().next().copied() else { return };
            let Some(job) = self.gitlab.queue.pop_front() else { return };
            self.shell().polls.remove(&number);
            self.take(job);
            self.try_to_poll(number);
        }
    }

    /// Between deciding and acting a job comes.
    pub(crate) fn race(&mut self) {
        if !self.shell().polls.is_empty() && self.dice.chance(0.2) {
            let runs = self.dice.spread(500, 60 * SECOND);
            self.fault("job between deciding and acting");
            self.arrive(runs);
        }
    }

    pub(crate) fn feed(&mut self, number: u32) {
        let process = self.process;
        self.after(CHECK_INTERVAL, Event::Feed(process, number));
        self.try_to_poll(number);
    }

    pub(crate) fn capacity_changed(&mut self) {
        for number in 0..self.setup.loops {
            self.try_to_poll(number);
        }
    }

    /// Reserves as the group does, then asks for a job.
    fn try_to_poll(&mut self, number: u32) {
        if self.gitlab.closed || self.shell().polls.contains_key(&number) || !self.reserve() {
            return;
        }
        self.gitlab.polls += 1;
        let (poll, process) = (self.gitlab.polls, self.process);
        self.shell().polls.insert(number, poll);
        self.after(POLL, Event::PollEnds(process, number, poll));
        if !self.gitlab.queue.is_empty() {
            self.hand_out();
        }
    }

    fn reserve(&mut self) -> bool {
        let (now, policy) = (self.now(), self.policy());
        let shell = self.shell.as_mut().expect("the process runs");
        let (fleet, limits) = (&mut shell.fleet, &self.setup.limits);
        let patience = Duration::from_millis(self.setup.acquire_timeout);
        if fleet.may_promise(&policy, limits, patience, now).is_err() {
            return false;
        }
        fleet.reserve();
        true
    }

    pub(crate) fn poll_ends(&mut self, number: u32, poll: u64) {
        if self.shell().polls.get(&number) == Some(&poll) {
            self.shell().polls.remove(&number);
            self.shell().fleet.unreserve();
            self.try_to_poll(number);
        }
    }

    fn take(&mut self, job: JobId) {
        let process = self.process;
        self.tell(|| format!("job {job} is taken"));
        self.gitlab.job(job).state = State::Taken;
        let running = Running {
            step: Step::Waiting,
            bound: None,
            used: false,
            failed: Vec::new(),
            try_number: 0,
        };
        self.shell().jobs.insert(job, running);
        self.after(self.setup.acquire_timeout, Event::AcquireTimeout(process, job));
        self.after(REMEMBER_AFTER, Event::Remember(process, job));
        self.wait_for_slot(job);
    }

    fn wait_for_slot(&mut self, job: JobId) {
        self.watch.disturbed(self.at);
        let shell = self.shell();
        let running = shell.jobs.get_mut(&job).expect("it is ours");
        running.step = Step::Waiting;
        let except = running.failed.clone();
        shell.fleet.wait();
        shell.waiters.push_back(Waiter { job, except });
        self.dispatch();
        self.changed();
    }

    /// Gives free slots to waiting jobs, the first come first.
    pub(crate) fn dispatch(&mut self) {
        let process = self.process;
        let limits = self.setup.limits.clone();
        let mut still = std::mem::take(&mut self.shell().waiters);
        while let Some(waiter) = still.pop_front() {
            let fleet = &mut self.shell().fleet;
            let slot = fleet.acquire(&limits, &waiter.except);
            let Some((id, slot)) = slot.or_else(|| fleet.acquire(&limits, &[])) else {
                self.shell().waiters.push_back(waiter);
                continue;
            };
            self.shell().fleet.stop_waiting();
            self.tell(|| format!("job {} gets slot {slot} of {id}", waiter.job));
            self.watch.disturbed(self.at);
            self.check_acquired(&id, slot);
            let running = self.shell().jobs.get_mut(&waiter.job).expect("it waits");
            running.step = Step::Planning;
            running.bound = Some((id, slot));
            running.try_number += 1;
            let try_number = running.try_number;
            let fails = self.dice.chance(self.behaviour.slot_fails);
            let number = if fails { u64::MAX } else { try_number };
            let delay = if fails { ARMED_LIMIT } else { self.dice.between(1, 40) };
            self.after(delay, Event::Planned(process, waiter.job, number));
        }
    }

    /// Slots that are bound on an instance to jobs that have not begun.
    pub(crate) fn bound_and_not_begun(&mut self, id: &InstanceId) -> u32 {
        let is_there = |running: &&Running| {
            !running.used && running.bound.as_ref().is_some_and(|(instance, _)| instance == id)
        };
        let count = self.shell().jobs.values().filter(is_there).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The agent holds the plan, or the slot does not take the job.
    pub(crate) fn planned(&mut self, job: JobId, try_number: u64) {
        let Some(running) = self.shell().jobs.get(&job) else { return };
        if running.step != Step::Planning {
            return;
        }
        let (id, slot) = running.bound.clone().expect("it is bound");
        let is_up = self.shell().connections.contains(&id);
        // The agent of a job that was given up holds its slot.
        let is_held = self.cloud.machines.get(&id).is_some_and(|m| m.jobs.contains_key(&slot));
        if is_held {
            return self.slot_failed(job, id, is_up);
        }
        if try_number != u64::MAX && is_up {
            let uses = self.shell().fleet.instance(&id).map_or(0, |instance| instance.uses());
            let shell = self.shell();
            shell.slot_failures.remove(&id);
            let running = shell.jobs.get_mut(&job).expect("it is ours");
            running.step = Step::Beginning;
            let record = shell.records.entry(id.clone()).or_default();
            record.uses = uses;
            let record = Record { uses, ..record.clone() };
            let begun = JobRecord { instance: id, slot };
            return self.write(Op::BeginJob(job, begun, record), Then::Go(job, try_number));
        }
        self.slot_failed(job, id, is_up);
    }

    fn slot_failed(&mut self, job: JobId, id: InstanceId, is_up: bool) {
        self.fault("slot fails");
        self.tell(|| format!("{id} does not take job {job}"));
        let failures = self.shell().slot_failures.entry(id.clone()).or_default();
        *failures += u32::from(is_up);
        if *failures >= SLOT_FAILURES {
            self.drain(&id, Reason::SlotFailed);
        }
        let running = self.shell().jobs.get_mut(&job).expect("it is ours");
        running.failed.push(id);
        let enough = running.failed.len() >= PLACEMENTS;
        self.release(job);
        if enough {
            return self.finish(job, false, "no instance took it");
        }
        self.shell().fleet.reserve();
        self.wait_for_slot(job);
    }

    /// Its begin is on disk: the agent is told.
    pub(crate) fn go(&mut self, job: JobId, _try_number: u64) {
        let Some(running) = self.shell().jobs.get_mut(&job) else { return };
        if running.step != Step::Beginning {
            return;
        }
        running.step = Step::Runs;
        running.used = true;
        let (id, slot) = running.bound.clone().expect("it is bound");
        let connected = self.shell().connections.contains(&id);
        let at = self.at;
        let machine = self.cloud.machines.get_mut(&id);
        let Some(machine) = machine.filter(|m| connected && at >= m.reachable_from) else {
            return self.connections_changed();
        };
        machine.starts += 1;
        let taken = machine.jobs.insert(slot, job);
        if let Some(other) = taken {
            self.broken("I4 one job per slot", format!("{id} slot {slot}: {job} over {other}"));
        }
        let truth = self.gitlab.job(job);
        truth.starts += 1;
        let (starts, runs) = (truth.starts, truth.runs);
        if starts > 1 {
            self.broken("I4 no job runs twice", format!("job {job} starts again on {id}"));
        }
        self.tell(|| format!("job {job} begins on {id} slot {slot}"));
        self.watch.last_begin = self.at;
        self.after(runs, Event::JobEnds(id, slot, job));
    }

    /// A job ends on its instance, whether or not anyone listens.
    pub(crate) fn job_ends(&mut self, id: &InstanceId, slot: u32, job: JobId) {
        let Some(machine) = self.cloud.machines.get_mut(id) else { return };
        if machine.jobs.get(&slot) != Some(&job) {
            return;
        }
        machine.jobs.remove(&slot);
        self.gitlab.job(job).finished = true;
        self.tell(|| format!("job {job} ends on {id}"));
        if self.shell.is_some() && self.shell().connections.contains(id) {
            self.connections_changed();
        }
    }

    /// Jobs learn that their instance can be asked again, or never.
    pub(crate) fn connections_changed(&mut self) {
        let runs: Vec<(JobId, InstanceId)> = self
            .shell()
            .jobs
            .iter()
            .filter(|(_, running)| running.step == Step::Runs)
            .filter_map(|(job, running)| Some((*job, running.bound.as_ref()?.0.clone())))
            .collect();
        for (job, id) in runs {
            let connected = self.shell().connections.contains(&id);
            let hopeless = !connected && self.is_hopeless(&id);
            let machine = self.cloud.machines.get(&id);
            let is_there = machine.is_some_and(|m| m.jobs.values().any(|it| *it == job));
            if connected && self.gitlab.job(job).finished {
                self.finish(job, true, "by its agent");
            } else if connected && machine.is_some() && !is_there {
                self.finish(job, false, "its agent is not there");
            } else if hopeless {
                if is_there {
                    self.check_given_up(job, &id);
                }
                self.finish(job, false, "its instance is lost");
            }
        }
    }

    pub(crate) fn finish(&mut self, job: JobId, success: bool, why: &'static str) {
        let process = self.process;
        let Some(running) = self.shell().jobs.get_mut(&job) else { return };
        if running.step == Step::Ending {
            return;
        }
        let was = std::mem::replace(&mut running.step, Step::Ending);
        self.tell(|| format!("job {job} is over, success {success}: {why}"));
        if was == Step::Waiting {
            let shell = self.shell();
            let before = shell.waiters.len();
            shell.waiters.retain(|waiter| waiter.job != job);
            if shell.waiters.len() < before {
                shell.fleet.stop_waiting();
            }
        }
        match was {
            Step::Runs if !success => self.write(Op::LeaveSlot(job), Then::Release(job)),
            _ if !success => self.release(job),
            _ => {}
        }
        let delay = self.dice.between(20, 500);
        self.after(delay, Event::Reported(process, job, success));
    }

    pub(crate) fn release(&mut self, job: JobId) {
        let now = self.now().moment;
        self.watch.disturbed(self.at);
        let shell = self.shell();
        let Some(running) = shell.jobs.get_mut(&job) else { return };
        if let Some((id, slot)) = running.bound.take() {
            let used = running.used;
            shell.fleet.release(&id, slot, used, now);
            self.dispatch();
            self.changed();
            self.capacity_changed();
        }
    }

    pub(crate) fn reported(&mut self, process: u64, job: JobId, success: bool) {
        let is_ours = self.shell.is_some() && self.process == process;
        if !is_ours && self.dice.chance(0.5) {
            return;
        }
        let truth = self.gitlab.job(job);
        if success && !truth.finished {
            self.broken("I3 no job is lost silently", format!("job {job} did not succeed"));
        }
        let truth = self.gitlab.job(job);
        truth.told |= truth.state == State::Taken;
        truth.state = State::Over;
        if is_ours {
            self.release(job);
            self.shell().jobs.remove(&job);
            self.disk.later(Op::RemoveJob(job));
        }
    }

    pub(crate) fn acquire_timeout(&mut self, job: JobId) {
        if self.shell().jobs.get(&job).is_some_and(|running| running.step == Step::Waiting) {
            self.finish(job, false, "no instance was ready in time");
        }
    }

    pub(crate) fn remember_job(&mut self, job: JobId) {
        let waits = |running: &Running| matches!(running.step, Step::Waiting | Step::Planning);
        if self.shell().jobs.get(&job).is_some_and(waits) {
            self.write(Op::PutJob(job), Then::Nothing);
        }
    }

    /// Goes on with the jobs of the last process.
    pub(crate) fn recover_jobs(&mut self) {
        let process = self.process;
        let records: BTreeMap<JobId, Option<JobRecord>> = self.disk.jobs.clone();
        for (job, record) in records {
            let waits = record.is_none();
            let running = Running {
                step: Step::Runs,
                bound: record.map(|record| (record.instance, record.slot)),
                used: true,
                failed: Vec::new(),
                try_number: 0,
            };
            self.shell().jobs.insert(job, running);
            if waits {
                self.finish(job, false, "the manager ended before it had an instance");
            }
        }
        self.connections_changed();
        for number in 0..self.setup.loops {
            self.after(1, Event::Feed(process, number));
        }
    }

    /// Longest time to serve what is left, one after the other.
    pub(crate) fn work_left(&self) -> Ms {
        let pace = &self.setup.pace;
        let each = pace.boot.1 + 2 * pace.vanish.1 + 2 * pace.prepare.1 + 60 * SECOND;
        let left = self.gitlab.jobs.iter().filter(|job| job.state != State::Over);
        left.map(|job| job.runs + each).sum()
    }
}
