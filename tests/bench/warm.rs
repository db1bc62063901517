//! Jobs on instances that wait for them: how soon they start, how many in a second.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use support::{JobSpec, seconds};

use crate::figure::{Report, Sample, Target};
use crate::phase::{Phase, Provider, printed_after};

const INSTANCES: u8 = 60;
const JOBS: usize = 500;
/// Four jobs a second.
const PAUSE: Duration = Duration::from_millis(250);
const BURST: usize = 300;

/// Both on one pool of instances.
pub(crate) fn measure(provider: Provider, starts: bool, burst: bool, report: &mut Report) {
    let pool = |runner: support::Runner| runner.idle_count(INSTANCES.into());
    let Some(mut phase) = Phase::start(provider, INSTANCES, pool) else { return };
    phase.wait_for_instances(INSTANCES.into());
    phase.gitlab.wait_for_requests(1, seconds(30));
    if starts {
        warm(provider, &mut phase, report);
    }
    if burst {
        bursts(provider, &phase, report);
    }
}

/// From the moment the server hands a job out to the time that its script prints.
fn warm(provider: Provider, phase: &mut Phase, report: &mut Report) {
    let name = provider.name();
    phase.anchor();
    let before = phase.cpu();
    let (mut jobs, mut floor) = (Vec::new(), Vec::new());
    let mut next = Instant::now();
    for _ in 0..JOBS {
        jobs.push(phase.gitlab.enqueue(JobSpec::script(["echo now=$(date +%s.%N)"])));
        std::thread::sleep((next + PAUSE / 2).saturating_duration_since(Instant::now()));
        floor.push(bash());
        next += PAUSE;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let audits = phase.gitlab.wait_for_all(&jobs, seconds(60));
    let cpu_ms = (phase.cpu() - before) * 1e3;
    let starts = audits.iter().map(|audit| {
        let handed_out = audit.handed_out().expect("it ran");
        phase.script_time(audit.job).saturating_duration_since(handed_out)
    });
    let (starts, floor) = (Sample::new(starts.collect()), Sample::new(floor));
    report.add(format!("warm start {name}, p50"), starts.quantile(0.5), "ms", Target::AtMost(8.0));
    report.add(format!("warm start {name}, p90"), starts.quantile(0.9), "ms", Target::None);
    report.add(
        format!("warm start {name}, p99"),
        starts.quantile(0.99),
        "ms",
        Target::AtMost(50.0),
    );
    report.add(format!("warm start {name}, max"), starts.max(), "ms", Target::None);
    report.add("bash -c date beside it, p50", floor.quantile(0.5), "ms", Target::None);
    report.add("bash -c date beside it, p99", floor.quantile(0.99), "ms", Target::None);
    let ratio = starts.quantile(0.5) / floor.quantile(0.5);
    report.add(format!("warm start {name} / bash, p50"), ratio, "x", Target::None);
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let per_job = cpu_ms / JOBS as f64;
    report.add(format!("manager CPU per job, {name}"), per_job, "ms", Target::AtMost(2.0));
}

/// Jobs that do nothing, all at once.
fn bursts(provider: Provider, phase: &Phase, report: &mut Report) {
    let begun = Instant::now();
    let jobs = phase.gitlab.enqueue_many(BURST, &JobSpec::script(["true"]));
    let audits = phase.gitlab.wait_for_all(&jobs, seconds(120));
    let ended = audits.iter().filter_map(support::Audit::ended).max().expect("jobs ended");
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let rate = BURST as f64 / (ended - begun).as_secs_f64();
    let name = provider.name();
    report.add(format!("burst of {BURST} jobs, {name}"), rate, "jobs/s", Target::AtLeast(100.0));
}

/// What it costs to start a shell and `date` without any manager.
fn bash() -> Duration {
    let begun = SystemTime::now();
    let output = Command::new("bash").args(["-c", "date +%s.%N"]).output().expect("bash");
    printed_after(begun, &String::from_utf8_lossy(&output.stdout))
}
