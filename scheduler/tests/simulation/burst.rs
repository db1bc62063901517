//! 3,000 jobs at once on 1,000 instances that are yet to boot: how long after the boot time
//! the last job begins, where only the scheduler and its pace of looking cost time.

use std::time::Duration;

use scheduler::limits::{Limits, Throttle};
use scheduler::policy::Policy;

use crate::faults::{Behaviour, MINUTE, Ms, Pace, SECOND, Setup};
use crate::run::Sim;

const INSTANCES: u32 = 1_000;
const CAPACITY: u32 = 3;
const BOOT: Ms = 30 * SECOND;
/// Nobody could tell the difference on machines that boot for half a minute.
const AFTER_BOOT: Ms = 2 * SECOND;

/// Lives the burst; says what it came to, or why it is not good enough.
pub(crate) fn live() -> Result<String, String> {
    let mut sim = Sim::of(0, setup(), false);
    sim.run();
    if let Some(broken) = sim.watch.broken.take() {
        return Err(sim.report(&broken));
    }
    let jobs = INSTANCES * CAPACITY;
    let begun = sim.gitlab.jobs.iter().filter(|job| job.starts == 1 && job.finished).count();
    if begun != jobs as usize {
        return Err(format!("{begun} of {jobs} jobs began once and ended"));
    }
    let line = format!(
        "{jobs} jobs on {INSTANCES} instances: the last begins {} ms after their boot time",
        sim.watch.last_begin.saturating_sub(BOOT)
    );
    if sim.watch.last_begin > BOOT + AFTER_BOOT { Err(line) } else { Ok(line) }
}

/// A provider that answers as quickly as fleeting plugins do, on a day without faults.
fn setup() -> Setup {
    Setup {
        calm: true,
        limits: Limits {
            capacity: CAPACITY,
            max_use_count: 0,
            max_instances: INSTANCES,
            provider_max_size: INSTANCES,
            throttle: Throttle::Unlimited,
            boot_deadline: Duration::from_secs(600),
            prepare_deadline: Duration::from_secs(300),
            reconnect_deadline: Duration::from_secs(60),
            deletion_retry: Duration::from_secs(60),
        },
        policies: vec![Policy { idle_time: Duration::from_secs(600), ..Policy::default() }],
        wall_s: 1_767_225_600,
        update_interval: MINUTE,
        update_expecting: SECOND,
        acquire_timeout: 15 * MINUTE,
        // `request_concurrency`.
        loops: 10,
        behaviour: Behaviour::default(),
        pace: Pace {
            list: (20, 60),
            call: (20, 100),
            boot: (BOOT, BOOT),
            born: 0,
            shows: (0, 0),
            prepare: (100, 300),
            vanish: (SECOND, 2 * SECOND),
            shows_deleted: false,
        },
        timeline: Vec::new(),
        arrivals: vec![(0, MINUTE); (INSTANCES * CAPACITY) as usize],
        most_jobs: (INSTANCES * CAPACITY) as usize,
        heal_at: 10 * MINUTE,
        deletes_all: false,
        ends_early: false,
    }
}
