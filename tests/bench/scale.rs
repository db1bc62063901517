//! A burst on many machines that boot: how long after their boot time the last job begins.
//!
//! Machines are those of `fleeting-plugin-sim`: a fixed boot time, then a process with an SSH
//! server each, so that preparing them and running jobs there is real work, done by this very
//! machine beside the manager's.

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
    let begun = std::time::Instant::now();
    let jobs = phase.gitlab.enqueue_many(jobs as usize, &spec);
    let audits = phase.gitlab.wait_for_all(&jobs, seconds(900));
    assert!(audits.iter().all(|audit| audit.state == State::Success), "a job failed");
    let starts = jobs.iter().map(|job| phase.script_time(*job).saturating_duration_since(begun));
    let last = starts.max().unwrap_or_default().as_secs_f64();
    let name = format!("{} jobs on {machines} booting machines", jobs.len());
    let after = last - f64::from(BOOT_S);
    report.add(format!("{name}: last start"), after, "s", Target::AtMost(2.0));
    let cpu = phase.cpu() - before;
    report.add(format!("{name}: manager CPU"), cpu, "s", Target::None);
    report.add(format!("{name}: manager RSS"), phase.rss() / 1024.0, "MB", Target::None);
}
