//! A burst on many machines that boot: how long after their boot time the last job begins.
//!
//! Machines are those of `fleeting-plugin-sim`: a fixed boot time, then a process with an SSH
//! server each, so that preparing them and running jobs there is real work, done by this very
//! machine beside the manager's.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use support::{GitLab, JobSpec, Manager, Runner, State, seconds};

use crate::figure::{Report, Target};
use crate::phase::Phase;

/// Jobs on each machine at once.
const CAPACITY: u32 = 3;
const BOOT_S: u32 = 20;

pub(crate) fn measure(machines: u32, report: &mut Report) {
    let gitlab = GitLab::start();
    let config = serde_json::json!({ "boot": format!("{BOOT_S}s"), "max_size": machines });
    let runner = Runner::sim(&gitlab, config)
        .max_instances(machines)
        .capacity(CAPACITY)
        .set("request_concurrency", 10)
        .autoscaler("update_interval", "1m")
        .autoscaler("update_interval_when_expecting", "2s");
    let jobs = machines * CAPACITY;
    let setup = Manager::setup().set("concurrent", i64::from(jobs)).runner(runner);
    let phase = Phase::of(setup, gitlab, None);
    let before = phase.cpu();
    let spec = JobSpec::script(["echo now=$(date +%s.%N)", "sleep 1"]);
    let begun = Instant::now();
    let load = Load::watch();
    let jobs = phase.gitlab.enqueue_many(jobs as usize, &spec);
    let audits = phase.gitlab.wait_for_all(&jobs, seconds(900));
    assert!(audits.iter().all(|audit| audit.state == State::Success), "a job failed");
    let starts = jobs.iter().map(|job| phase.script_time(*job).saturating_duration_since(begun));
    let last = starts.max().unwrap_or_default();
    let boot = Duration::from_secs(BOOT_S.into());
    let busy = load.between(begun + boot, begun + last) * 100.0;
    let last = last.as_secs_f64();
    let name = format!("{} jobs on {machines} booting machines", jobs.len());
    let after = last - f64::from(BOOT_S);
    report.add(format!("{name}: last start"), after, "s", Target::AtMost(2.0));
    // What was at hand to all: machines, their agents and jobs, the server, the manager.
    report.add(format!("{name}: processors busy until then"), busy, "%", Target::None);
    let cpu = phase.cpu() - before;
    report.add(format!("{name}: manager CPU"), cpu, "s", Target::None);
    report.add(format!("{name}: manager RSS"), phase.rss() / 1024.0, "MB", Target::None);
}

/// How much of this machine's processors was in use, looked at by a thread.
struct Load {
    samples: Receiver<(Instant, Ticks)>,
}

/// Of all processors, since the machine started.
#[derive(Clone, Copy)]
struct Ticks {
    busy: f64,
    all: f64,
}

impl Load {
    fn watch() -> Self {
        let (sender, samples): (Sender<(Instant, Ticks)>, _) = channel();
        std::thread::spawn(move || {
            while sender.send((Instant::now(), Ticks::now())).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { samples }
    }

    /// The part that was in use between two moments of the past, 0 to 1.
    fn between(&self, from: Instant, to: Instant) -> f64 {
        let within = self.samples.try_iter().filter(|(at, _)| *at >= from && *at <= to);
        let ticks: Vec<Ticks> = within.map(|(_, ticks)| ticks).collect();
        let (Some(first), Some(last)) = (ticks.first(), ticks.last()) else { return 0.0 };
        (last.busy - first.busy) / (last.all - first.all).max(1.0)
    }
}

impl Ticks {
    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let fields: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let all = fields.iter().sum();
        let idle: f64 = fields.get(3..5).unwrap_or_default().iter().sum();
        Self { busy: all - idle, all }
    }
}
