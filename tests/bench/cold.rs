//! Jobs that find no instance: one is created, reached, gets the agent, and is thrown
//! away after the job.

use support::{JobSpec, seconds};

use crate::figure::{Report, Sample, Target};
use crate::phase::{Phase, Provider};

const INSTANCES: u8 = 4;
const JOBS: usize = 50;

/// From the queue to the time that the script prints, one job at a time.
pub(crate) fn measure(provider: Provider, report: &mut Report) {
    let fresh = |runner: support::Runner| runner.max_use_count(1).idle_time(seconds(0));
    let Some(mut phase) = Phase::start(provider, INSTANCES, fresh) else { return };
    phase.gitlab.wait_for_requests(1, seconds(30));
    let mut starts = Vec::new();
    for _ in 0..JOBS {
        phase.anchor();
        let job = phase.gitlab.enqueue(JobSpec::script(["echo now=$(date +%s.%N)"]));
        let audit = phase.gitlab.wait_for_all(&[job], seconds(60)).remove(0);
        starts.push(phase.script_time(job).saturating_duration_since(audit.queued()));
        phase.gitlab.wait_for_requests(1, seconds(30));
        forget(&phase);
    }
    let (starts, name) = (Sample::new(starts), provider.name());
    report.add(
        format!("cold start {name}, p50"),
        starts.quantile(0.5),
        "ms",
        Target::AtMost(500.0),
    );
    report.add(format!("cold start {name}, max"), starts.max(), "ms", Target::None);
}

/// Accounts are used again, unlike machines: what was left in them goes.
fn forget(phase: &Phase) {
    for machine in phase.sshd.iter().flat_map(support::Sshd::machines) {
        support::until("the machine is left", seconds(10), || machine.processes().is_empty());
        for entry in std::fs::read_dir(machine.home()).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                std::fs::remove_dir_all(entry.path()).expect("it goes");
            }
        }
    }
}
