//! Does what the plan says to what is there, and writes down whom it hit.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::Manager;
use support::processes::Process;

use crate::plan::{Injection, Kind};
use crate::targets::{Agent, Progress, Targets, connections, cut};

/// What an injection did.
#[derive(Clone, Debug)]
pub(crate) struct Strike {
    pub(crate) at: Instant,
    pub(crate) kind: Kind,
    pub(crate) lasts: Duration,
    /// Who was hit; empty where there was nobody.
    pub(crate) target: String,
    /// The jobs that were touched, and what that means for them.
    pub(crate) jobs: Vec<(u64, Effect)>,
}

/// What a strike means for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It ran, and what ran it is gone: it can only be lost.
    Lost,
    /// What it was about to begin with, or its result, may be gone: it may be lost.
    MayBeLost,
    /// It is disturbed; that must not be seen.
    Disturbed,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nobody = if self.target.is_empty() { "nobody" } else { &self.target };
        write!(f, "{} of {nobody}, {} ms", self.kind.name(), self.lasts.as_millis())?;
        self.jobs.iter().try_for_each(|(job, effect)| write!(f, ", job {job} {effect:?}"))
    }
}

/// Hits, and lets go again of what it stopped.
pub(crate) struct Injector {
    pub(crate) targets: Targets,
    pub(crate) strikes: Vec<Strike>,
    stopped: Vec<(Instant, Process)>,
}

impl Injector {
    pub(crate) fn new(targets: Targets) -> Self {
        Self { targets, strikes: Vec::new(), stopped: Vec::new() }
    }

    /// Carries an injection out. The manager itself is only signaled: its end and its next
    /// start are the caller's.
    pub(crate) fn strike(&mut self, injection: &Injection, manager: &mut Manager) {
        let lasts = injection.lasts;
        let mut strike = Strike {
            at: Instant::now(),
            kind: injection.kind,
            lasts,
            target: String::new(),
            jobs: Vec::new(),
        };
        let pick = usize::try_from(injection.pick >> 16).unwrap_or_default();
        match injection.kind {
            Kind::ManagerKilled | Kind::ManagerTerminated | Kind::ManagerStopped => {
                self.hit_manager(&mut strike, manager);
            }
            Kind::PluginKilled | Kind::PluginStopped => {
                let plugin = manager.plugins().first().cloned();
                self.hit(&mut strike, plugin.map(|process| ("plugin".into(), process)));
            }
            Kind::GuardKilled => {
                let is_guard = |process: &Process| {
                    process.args.get(1).is_some_and(|role| role == "plugin-guard")
                };
                let guard = manager.plugin_processes().into_iter().find(is_guard);
                self.hit(&mut strike, guard.map(|process| ("guard".into(), process)));
            }
            Kind::AgentKilled | Kind::AgentStopped => self.hit_agent(&mut strike, pick, true),
            Kind::WaitingAgentKilled | Kind::WaitingAgentStopped => {
                self.hit_agent(&mut strike, pick, false);
            }
            Kind::ConnectionCut | Kind::AllConnectionsCut => {
                cut_connections(&mut strike, pick, manager);
            }
            Kind::InstanceKilled | Kind::ServerKilled | Kind::ServerStopped => {
                self.hit_instance(&mut strike, pick);
            }
        }
        self.strikes.push(strike);
    }

    fn hit_manager(&mut self, strike: &mut Strike, manager: &mut Manager) {
        let process = manager.is_running().then(|| Process::read(manager.pid())).flatten();
        if let Some(process) = process {
            match strike.kind {
                Kind::ManagerTerminated => {
                    // A manager that is stopped would not hear it.
                    process.signal(Signal::CONT);
                    manager.terminate();
                    strike.target = "manager".into();
                }
                _ => self.hit(strike, Some(("manager".into(), process))),
            }
        }
    }

    /// Kills or stops one process, as the kind says.
    fn hit(&mut self, strike: &mut Strike, target: Option<(String, Process)>) {
        let Some((name, process)) = target else {
            return;
        };
        strike.target = name;
        let is_stop = matches!(
            strike.kind,
            Kind::ManagerStopped
                | Kind::PluginStopped
                | Kind::AgentStopped
                | Kind::WaitingAgentStopped
                | Kind::ServerStopped
        );
        if is_stop {
            process.signal(Signal::STOP);
            self.stopped.push((strike.at + strike.lasts, process));
        } else {
            process.kill();
        }
    }

    fn hit_agent(&mut self, strike: &mut Strike, pick: usize, with_job: bool) {
        let mut agents = self.targets.agents();
        agents.retain(|agent| agent.job.is_some() == with_job);
        if agents.is_empty() {
            return;
        }
        let agent = agents.swap_remove(pick % agents.len());
        let stops = matches!(strike.kind, Kind::AgentStopped | Kind::WaitingAgentStopped);
        if !stops && let Some((job, progress)) = freeze(&agent) {
            strike.jobs.push((job, effect_of_kill(progress)));
        } else if let Some(job) = agent.job {
            strike.jobs.push((job, Effect::Disturbed));
        }
        self.hit(strike, Some((format!("agent on {}", agent.instance), agent.process)));
    }

    fn hit_instance(&mut self, strike: &mut Strike, pick: usize) {
        let instances: Vec<String> = self.targets.instances().into_iter().collect();
        if instances.is_empty() {
            return;
        }
        let instance = &instances[pick % instances.len()];
        let mut keepers = self.targets.keepers(instance);
        let servers = strike.kind != Kind::InstanceKilled;
        keepers.retain(|(role, _)| (role == "sshd") == servers);
        if keepers.is_empty() {
            return;
        }
        let (role, process) = keepers.swap_remove((pick >> 8) % keepers.len());
        let ends = strike.kind != Kind::ServerStopped;
        // Frozen first: what they have on disk then is what they leave.
        let agents = self.targets.agents();
        if ends {
            agents.iter().filter(|agent| agent.instance == *instance).for_each(|agent| {
                freeze(agent);
            });
        }
        let effect = |progress| match progress {
            _ if !ends => Effect::Disturbed,
            Progress::Runs => Effect::Lost,
            Progress::Armed | Progress::Ended => Effect::MayBeLost,
        };
        let jobs = self.targets.jobs(instance);
        strike.jobs = jobs.into_iter().map(|(job, progress)| (job, effect(progress))).collect();
        self.hit(strike, Some((format!("{role} of {instance}"), process)));
    }

    /// Continues what was stopped long enough.
    pub(crate) fn let_go(&mut self, now: Instant) {
        self.stopped.retain(|(until, process)| {
            let is_over = now >= *until;
            // Another process may have its id by now.
            if is_over && process.is_alive() {
                process.signal(Signal::CONT);
            }
            !is_over
        });
    }

    /// Continues everything that is stopped.
    pub(crate) fn let_all_go(&mut self) {
        self.let_go(Instant::now() + Duration::from_secs(3600));
    }
}

/// Stops an agent for a look at its job.
fn freeze(agent: &Agent) -> Option<(u64, Progress)> {
    if agent.process.is_alive() {
        agent.process.signal(Signal::STOP);
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.process.pid));
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            (state.is_empty() || state.starts_with(['T', 'Z', 'X'])).then_some(())
        };
        support::wait::look_until(Duration::from_secs(5), is_stopped);
    }
    Some((agent.job?, agent.progress()?))
}

fn effect_of_kill(progress: Progress) -> Effect {
    match progress {
        Progress::Runs => Effect::Lost,
        // `go` may be on its way.
        Progress::Armed => Effect::MayBeLost,
        // The result is on disk.
        Progress::Ended => Effect::Disturbed,
    }
}

fn cut_connections(strike: &mut Strike, pick: usize, manager: &mut Manager) {
    if !manager.is_running() {
        return;
    }
    let mut found = connections(manager.pid());
    if strike.kind == Kind::ConnectionCut && !found.is_empty() {
        found = vec![found[pick % found.len()]];
    }
    let done = found.iter().filter(|fd| cut(manager.pid(), **fd).is_ok()).count();
    if done > 0 {
        strike.target = format!("{done} connections");
    }
}
