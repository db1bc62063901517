//! What the manager keeps in memory: alone, and with many jobs running.

use support::{JobSpec, State, seconds};

use crate::figure::{Report, Target};
use crate::phase::{Phase, Provider};

const JOBS: u8 = 60;

pub(crate) fn memory(provider: Provider, report: &mut Report) {
    let none_idle = |runner: support::Runner| runner.idle_time(seconds(600));
    let Some(phase) = Phase::start(provider, JOBS, none_idle) else { return };
    phase.gitlab.wait_for_requests(1, seconds(30));
    std::thread::sleep(seconds(3));
    let idle = phase.rss();
    let spec = JobSpec::script(["echo here", "sleep 20"]);
    let jobs = phase.gitlab.enqueue_many(JOBS.into(), &spec);
    for job in &jobs {
        phase.gitlab.wait_for(*job, State::Running, seconds(60));
        phase.gitlab.wait_for_trace(*job, "here", seconds(60));
    }
    let busy = phase.rss();
    phase.gitlab.wait_for_all(&jobs, seconds(60));
    let name = provider.name();
    report.add(format!("manager RSS idle, {name}"), idle / 1024.0, "MB", Target::AtMost(15.0));
    report.add(format!("manager RSS, {JOBS} jobs, {name}"), busy / 1024.0, "MB", Target::None);
    let each = (busy - idle) / f64::from(JOBS);
    report.add(format!("manager RSS per running job, {name}"), each, "KB", Target::AtMost(100.0));
}
