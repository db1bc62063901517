//! A manager with instances of one kind, and what its process costs.

use std::time::{Duration, Instant, SystemTime};

use support::manager::Setup;
use support::{GitLab, JobId, Manager, Runner, Sshd, seconds, until};

/// Linux's clock tick, in which `/proc/PID/stat` counts: 100 a second on every
/// architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Process trees with our own SSH server.
    Local,
    /// Accounts behind Debian's OpenSSH server.
    OpenSsh,
}

impl Provider {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "local" => Some(Self::Local),
            "openssh" => Some(Self::OpenSsh),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::OpenSsh => "openssh",
        }
    }
}

/// A server, a manager and its machines.
pub(crate) struct Phase {
    // The manager first: it ends before what it uses.
    pub(crate) manager: Manager,
    pub(crate) gitlab: GitLab,
    pub(crate) sshd: Option<Sshd>,
    anchor: (Instant, SystemTime),
}

impl Phase {
    /// A manager of so many instances; `None`, with the reason printed, where this
    /// machine lacks something.
    pub(crate) fn start(
        provider: Provider,
        instances: u8,
        with: impl Fn(Runner) -> Runner,
    ) -> Option<Self> {
        let gitlab = GitLab::start();
        let (runner, sshd) = match provider {
            Provider::Local => (Runner::local(&gitlab).plugin_config("max_size", instances), None),
            Provider::OpenSsh => {
                let sshd = Sshd::setup().machines(instances).start()?;
                (Runner::openssh(&gitlab, &sshd), Some(sshd))
            }
        };
        // The intervals that an operator has who sets none.
        let runner = runner
            .max_instances(instances.into())
            .set("request_concurrency", 10)
            .autoscaler("update_interval", "1m")
            .autoscaler("update_interval_when_expecting", "2s");
        let setup = Manager::setup().set("concurrent", 200).runner(with(runner));
        Some(Self::of(setup, gitlab, sshd))
    }

    /// The manager of this set-up.
    pub(crate) fn of(setup: Setup, gitlab: GitLab, sshd: Option<Sshd>) -> Self {
        let mut manager = setup.start();
        manager.wait_until_up();
        Self { manager, gitlab, sshd, anchor: (Instant::now(), SystemTime::now()) }
    }

    /// Waits until so many instances became ready, and until the machine is calm.
    pub(crate) fn wait_for_instances(&self, n: usize) {
        let ready = || self.manager.log().matches("instance is ready").count() >= n;
        until("instances are ready", seconds(120), ready);
        std::thread::sleep(seconds(3));
    }

    /// The time that a job's script printed: the first number of its log.
    pub(crate) fn script_time(&self, job: JobId) -> Instant {
        let trace = self.gitlab.trace(job);
        let number = trace.lines().find_map(|line| line.split_once("now=")?.1.trim().parse().ok());
        let seconds: f64 = number.unwrap_or_else(|| panic!("job {job} printed no time:\n{trace}"));
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        let (instant, at) = self.anchor;
        match wall.duration_since(at) {
            Ok(later) => instant + later,
            Err(earlier) => instant - earlier.duration(),
        }
    }

    /// The clocks are compared again.
    pub(crate) fn anchor(&mut self) {
        self.anchor = (Instant::now(), SystemTime::now());
    }

    /// Seconds of CPU that the manager has used.
    pub(crate) fn cpu(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.manager.pid());
        let stat = std::fs::read_to_string(path).expect("the manager runs");
        let (_, fields) = stat.rsplit_once(") ").expect("proc(5)");
        // utime and stime are the fields 14 and 15, and those before the name were 2.
        let ticks =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS_PER_SECOND
    }

    /// Resident memory of the manager, KB.
    pub(crate) fn rss(&self) -> f64 {
        let path = format!("/proc/{}/status", self.manager.pid());
        let status = std::fs::read_to_string(path).expect("the manager runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        number.expect("proc(5) has VmRSS")
    }
}

/// How long after `begun` it was what `date +%s.%N` printed.
pub(crate) fn printed_after(begun: SystemTime, text: &str) -> Duration {
    let at = Duration::from_secs_f64(text.trim().parse().expect("date prints seconds"));
    (SystemTime::UNIX_EPOCH + at).duration_since(begun).unwrap_or_default()
}
