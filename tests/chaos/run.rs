//! One run: a server, a manager that somebody starts again whenever it has ended, jobs that
//! arrive, and everything that goes wrong meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use support::{Audit, GitLab, JobId, Manager, Runner, State, seconds};

use crate::inject::Injector;
use crate::plan::{Kind, Plan};
use crate::targets::Targets;
use crate::witness::Witness;

/// The most instances.
pub(crate) const MAX_INSTANCES: u32 = 6;
const CAPACITY: u32 = 2;
const MAX_USE_COUNT: u32 = 12;
/// Between two looks at what is due.
const STEP: Duration = Duration::from_millis(5);
/// Between two looks at instances and jobs.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// GitLab puts a job that nobody acknowledged back into the queue.
const REQUEUE_AFTER: Duration = seconds(10);
/// A runner says something of each of its jobs every few seconds. A job of which a manager
/// that is up says nothing for so long is forgotten.
const FORGOTTEN_AFTER: Duration = seconds(60);
/// A run in which no job ends for so long will not end.
const STUCK_AFTER: Duration = seconds(400);
/// No job runs when the manager is drained, and up to six instances are to be deleted.
const DRAIN_LIMIT: Duration = seconds(400);
/// A manager that was told to leave its jobs leaves within this.
const LEAVE_LIMIT: Duration = seconds(120);

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) gitlab: GitLab,
    pub(crate) manager: Manager,
    pub(crate) witness: Witness,
    pub(crate) injector: Injector,
    pub(crate) ids: Vec<JobId>,
    pub(crate) lives: Vec<Life>,
    pub(crate) instances: Instances,
    /// Promises that were seen broken while it ran.
    pub(crate) violations: Vec<String>,
    pub(crate) begun: Instant,
    pub(crate) begun_at: SystemTime,
    pub(crate) took: Duration,
    /// From SIGQUIT to the end of the manager.
    pub(crate) drained: Duration,
    /// How often GitLab gave a job away again that nobody had acknowledged.
    pub(crate) requeued: usize,
}

/// One process of the manager.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) pid: i32,
    pub(crate) from: Instant,
    pub(crate) to: Option<Instant>,
}

/// The instances that were seen.
#[derive(Default)]
pub(crate) struct Instances {
    pub(crate) seen: BTreeSet<String>,
    pub(crate) most: usize,
}

/// A run that goes on.
struct Running {
    plan: Plan,
    ran: Ran,
    arrived: usize,
    struck: usize,
    canceled: BTreeSet<usize>,
    /// When somebody starts the manager again.
    restart: Option<Instant>,
    /// It was told to leave its jobs, at this time, and comes back after the other.
    leaving: Option<(Instant, Duration)>,
    looked: Instant,
}

pub(crate) fn run(plan: &Plan) -> Ran {
    let gitlab = GitLab::start();
    gitlab.set_update_interval(seconds(1));
    let runner = Runner::local(&gitlab)
        .max_instances(MAX_INSTANCES)
        .capacity(CAPACITY)
        .max_use_count(MAX_USE_COUNT)
        .set("request_concurrency", 4)
        .autoscaler("delete_instances_on_shutdown", true)
        .policy(json!({"periods": ["* * * * *"], "idle_count": 1, "idle_time": "2s"}));
    let (begun, begun_at) = (Instant::now(), SystemTime::now());
    let manager = Manager::setup()
        .runner(runner)
        .set("concurrent", MAX_INSTANCES * CAPACITY)
        .set("shutdown_timeout", 60)
        .log_level("debug")
        // What must be left behind is judged by the report.
        .tolerate_leftovers()
        .start();
    let ran = Ran {
        injector: Injector::new(Targets::new(manager.directory())),
        lives: vec![Life { pid: manager.pid(), from: begun, to: None }],
        gitlab,
        manager,
        witness: Witness::start(),
        ids: Vec::new(),
        instances: Instances::default(),
        violations: Vec::new(),
        begun,
        begun_at,
        took: Duration::ZERO,
        drained: Duration::ZERO,
        requeued: 0,
    };
    let running = Running {
        plan: plan.clone(),
        ran,
        arrived: 0,
        struck: 0,
        canceled: BTreeSet::new(),
        restart: None,
        leaving: None,
        looked: begun,
    };
    running.go_on()
}

impl Running {
    fn go_on(mut self) -> Ran {
        loop {
            let now = Instant::now();
            let since = now - self.ran.begun;
            self.jobs(since);
            self.mishaps(since);
            self.ran.injector.let_go(now);
            self.keep_a_manager(now);
            if now - self.looked >= LOOK_INTERVAL {
                self.looked = now;
                self.look_at_instances();
                if self.look_at_jobs(now) {
                    break;
                }
            }
            std::thread::sleep(STEP);
        }
        self.ran.took = self.ran.begun.elapsed();
        self.drain();
        self.ran
    }

    fn jobs(&mut self, since: Duration) {
        let port = self.ran.witness.port();
        while let Some(job) = self.plan.jobs.get(self.arrived).filter(|job| job.arrives <= since) {
            self.ran.ids.push(self.ran.gitlab.enqueue(job.spec(port)));
            self.arrived += 1;
        }
        for at in 0..self.arrived {
            let job = &self.plan.jobs[at];
            let is_due = job.canceled.is_some_and(|after| job.arrives + after <= since);
            if is_due && self.canceled.insert(at) {
                let id = self.ran.ids[at];
                if !self.ran.gitlab.audit(id).state.is_final() {
                    self.ran.gitlab.cancel(id);
                }
            }
        }
    }

    fn mishaps(&mut self, since: Duration) {
        while let Some(injection) = self.plan.injections.get(self.struck) {
            if injection.at > since {
                return;
            }
            self.struck += 1;
            let Ran { injector, manager, .. } = &mut self.ran;
            injector.strike(injection, manager);
            let hit = injector.strikes.last().is_some_and(|strike| !strike.target.is_empty());
            let now = Instant::now();
            match injection.kind {
                Kind::ManagerKilled if hit => {
                    self.ran.manager.kill();
                    self.leaving = None;
                    self.ended(now, injection.lasts);
                }
                Kind::ManagerTerminated if hit && self.leaving.is_none() => {
                    self.leaving = Some((now, injection.lasts));
                }
                _ => {}
            }
        }
    }

    fn ended(&mut self, now: Instant, pause: Duration) {
        if let Some(life) = self.ran.lives.last_mut() {
            life.to = Some(now);
        }
        self.restart = Some(now + pause);
    }

    fn start_again(&mut self) {
        let from = Instant::now();
        self.ran.manager.restart();
        self.ran.lives.push(Life { pid: self.ran.manager.pid(), from, to: None });
    }

    /// Starts the manager again where it ended, and complains where nobody had told it to.
    fn keep_a_manager(&mut self, now: Instant) {
        if let Some(at) = self.restart {
            if now >= at {
                self.restart = None;
                self.start_again();
            }
            return;
        }
        if self.ran.manager.is_running() {
            if let Some((since, pause)) = self.leaving
                && now - since > LEAVE_LIMIT
            {
                self.ran.violations.push(format!("the manager did not end by SIGTERM: {now:?}"));
                self.ran.manager.kill();
                self.leaving = None;
                self.ended(now, pause);
            }
            return;
        }
        let code = self.ran.manager.wait_for_exit(seconds(1)).code;
        // Told twice, it ends at once, and before it is up there is nothing to leave.
        let told = self.leaving.take();
        if told.is_none() || !matches!(code, Some(0 | 130)) {
            let excuse = self.plugin_was_hit();
            if !(excuse && code == Some(4)) {
                let since = (now - self.ran.begun).as_secs_f64();
                self.ran.violations.push(format!(
                    "the manager ended by itself with {code:?} at {since:.3} s (told: {})",
                    told.is_some()
                ));
            }
        }
        self.ended(now, told.map_or(Duration::from_millis(500), |(_, pause)| pause));
    }

    /// Whether a plugin was hit in this life of the manager: it needs one to start.
    fn plugin_was_hit(&self) -> bool {
        let from = self.ran.lives.last().map(|life| life.from);
        self.ran.injector.strikes.iter().any(|strike| {
            let kinds = [Kind::PluginKilled, Kind::PluginStopped, Kind::GuardKilled];
            kinds.contains(&strike.kind) && Some(strike.at) >= from
        })
    }

    fn look_at_instances(&mut self) {
        let there = self.ran.injector.targets.instances();
        self.ran.instances.most = self.ran.instances.most.max(there.len());
        self.ran.instances.seen.extend(there);
    }

    /// Does what GitLab does with jobs of which nobody says anything. Whether all jobs have
    /// ended, or never will.
    fn look_at_jobs(&mut self, now: Instant) -> bool {
        let audits = self.ran.gitlab.audits();
        let up_since = self.ran.lives.last().filter(|life| life.to.is_none()).map(|l| l.from);
        for audit in audits.iter().filter(|audit| !audit.state.is_final()) {
            let quiet = now - audit.events.last().map_or(now, |(at, _)| *at);
            let is_older = up_since.is_some_and(|up| taken(audit) < Some(up));
            let up = up_since.map_or(Duration::ZERO, |up| now - up);
            match audit.state {
                State::HandedOut if is_older && quiet.min(up) > REQUEUE_AFTER => {
                    self.ran.requeued += 1;
                    self.ran.gitlab.requeue(audit.job);
                }
                State::Running if quiet.min(up) > FORGOTTEN_AFTER => {
                    self.ran.violations.push(format!("job {} is forgotten: {audit}", audit.job));
                    self.ran.gitlab.drop_job(audit.job);
                }
                _ => {}
            }
        }
        let all_arrived = self.arrived == self.plan.jobs.len();
        if all_arrived && audits.iter().all(|audit| audit.state.is_final()) {
            return true;
        }
        let last_end = audits.iter().filter_map(Audit::ended).max().unwrap_or(self.ran.begun);
        let is_stuck = now - last_end > STUCK_AFTER;
        if is_stuck {
            let open = audits.iter().filter(|audit| !audit.state.is_final()).count();
            self.ran.violations.push(format!("no job ended for {STUCK_AFTER:?}, {open} are open"));
        }
        is_stuck
    }

    /// The orderly end: no jobs, so all instances go.
    fn drain(&mut self) {
        self.ran.injector.let_all_go();
        if !self.ran.manager.is_running() || self.leaving.is_some() {
            if self.leaving.is_some() {
                self.ran.manager.wait_for_exit(LEAVE_LIMIT);
            }
            let now = Instant::now();
            self.ended(now, Duration::ZERO);
            self.start_again();
        }
        self.ran.manager.wait_until_up();
        let asked = Instant::now();
        self.ran.manager.quit();
        let code = self.ran.manager.wait_for_exit(DRAIN_LIMIT).code;
        self.ran.drained = asked.elapsed();
        if code != Some(0) {
            self.ran.violations.push(format!("the manager did not drain: exit code {code:?}"));
        }
        if let Some(life) = self.ran.lives.last_mut() {
            life.to = Some(Instant::now());
        }
    }
}

/// When a job was handed out for the last time.
pub(crate) fn taken(audit: &Audit) -> Option<Instant> {
    let given = audit.events.iter().filter(|(_, event)| *event == support::Event::HandedOut);
    given.map(|(at, _)| *at).next_back()
}
