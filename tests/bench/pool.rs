//! What the manager keeps in memory: alone, and with many jobs running.

use support::{JobId, JobSpec, State, seconds};

use crate::figure::{Report, Target};
use crate::phase::{Phase, Provider};

const JOBS: u8 = 60;
/// The first ones bring code and the agent into memory, which further ones share.
const FIRST: u8 = 10;

pub(crate) fn memory(provider: Provider, report: &mut Report) {
    let none_idle = |runner: support::Runner| runner.idle_time(seconds(600));
    let Some(phase) = Phase::start(provider, JOBS, none_idle) else { return };
    phase.gitlab.wait_for_requests(1, seconds(30));
    std::thread::sleep(seconds(3));
    let idle = phase.rss();
    let mut jobs = run(&phase, FIRST);
    let few = phase.rss();
    jobs.extend(run(&phase, JOBS - FIRST));
    let many = phase.rss();
    phase.gitlab.wait_for_all(&jobs, seconds(90));
    let name = provider.name();
    report.add(format!("manager RSS idle, {name}"), idle / 1024.0, "MB", Target::AtMost(15.0));
    report.add(format!("manager RSS, {FIRST} jobs, {name}"), few / 1024.0, "MB", Target::None);
    report.add(format!("manager RSS, {JOBS} jobs, {name}"), many / 1024.0, "MB", Target::None);
    let each = (many - few) / f64::from(JOBS - FIRST);
    report.add(format!("manager RSS per further job, {name}"), each, "KB", Target::AtMost(100.0));
}

/// So many jobs that run, all of them.
fn run(phase: &Phase, jobs: u8) -> Vec<JobId> {
    let spec = JobSpec::script(["echo here", "sleep 40"]);
    let jobs = phase.gitlab.enqueue_many(jobs.into(), &spec);
    for job in &jobs {
        phase.gitlab.wait_for(*job, State::Running, seconds(60));
        phase.gitlab.wait_for_trace(*job, "here", seconds(60));
    }
    // Until the last log is with the server.
    std::thread::sleep(seconds(5));
    jobs
}
