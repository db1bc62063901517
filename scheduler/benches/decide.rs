//! One round of decisions on fleets of growing size: it must stay linear, and far below
//! the time between two rounds.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use scheduler::fleet::{InstanceId, Seen};
use scheduler::limits::Throttle;
use scheduler::policy::Policy;
use scheduler::time::Moment;
use scheduler::{Fleet, Limits, Now, decide};

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const JOBS: u32 = 500;
/// The target of 10,000 instances.
const LIMIT: Duration = Duration::from_millis(1);

fn now(seconds: u64) -> Now {
    Now { moment: Moment(Duration::from_secs(seconds)), wall: jiff::Timestamp::UNIX_EPOCH }
}

/// Ready instances, some of which run jobs.
fn fleet(size: u32, limits: &Limits) -> Fleet {
    let mut fleet = Fleet::default();
    let start = now(0).moment;
    let list: Vec<_> =
        (0..size).map(|n| (InstanceId(format!("i-{n:08}")), Seen::Running)).collect();
    fleet.listed(&[], start, start);
    let ask = fleet.asked(size, limits, start);
    fleet.ask_accepted(ask, size, start);
    fleet.listed(&list, start, start);
    for (id, _) in &list {
        fleet.preparing(id, start);
        fleet.prepared(id, BTreeSet::new(), start);
    }
    for _ in 0..JOBS {
        fleet.acquire(limits, &[]).expect("a free slot");
    }
    fleet
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    println!("{:>10} {:>14} {:>14}", "instances", "steady", "all idle go");
    for size in SIZES {
        let limits =
            Limits { max_instances: size, throttle: Throttle::Unlimited, ..Limits::default() };
        let fleet = fleet(size, &limits);
        let keep = Policy { idle_count: size, ..Policy::default() };
        let steady = median(|| drop(black_box(decide(&fleet, &keep, &limits, now(60)))));
        let none = Policy { idle_count: 0, idle_time: Duration::ZERO, ..Policy::default() };
        let all_go = median(|| drop(black_box(decide(&fleet, &none, &limits, now(60)))));
        println!("{size:>10} {steady:>14.1?} {all_go:>14.1?}");
        if size == 10_000 && steady > LIMIT {
            println!("           the target is {LIMIT:?}: MISSED");
        }
    }
}
