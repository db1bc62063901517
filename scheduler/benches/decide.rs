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
/// What one instance among the most would cost, in those of one among the fewest, if each
/// looked at all others. What leaves the processor's caches costs some more too.
const QUADRATIC: f64 = 100.0;
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

fn each(time: Duration, size: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(size)
}

fn main() {
    println!("{:>10} {:>12} {:>9} {:>12} {:>9}", "instances", "steady", "each", "all go", "each");
    let mut per_instance = Vec::new();
    for size in SIZES {
        let limits =
            Limits { max_instances: size, throttle: Throttle::Unlimited, ..Limits::default() };
        let fleet = fleet(size, &limits);
        let keep = Policy { idle_count: size, ..Policy::default() };
        let steady = median(|| drop(black_box(decide(&fleet, &keep, &limits, now(60)))));
        let none = Policy { idle_count: 0, idle_time: Duration::ZERO, ..Policy::default() };
        let all_go = median(|| drop(black_box(decide(&fleet, &none, &limits, now(60)))));
        let nanoseconds = [each(steady, size), each(all_go, size)];
        let [one, other] = nanoseconds;
        println!("{size:>10} {steady:>12.1?} {one:>6.0} ns {all_go:>12.1?} {other:>6.0} ns");
        if size == 10_000 && steady > LIMIT {
            println!("           the target is {LIMIT:?}: MISSED");
        }
        per_instance.push(nanoseconds);
    }
    let (first, last) = (per_instance[0], per_instance[per_instance.len() - 1]);
    for (what, grown) in ["steady", "all go"].iter().zip([last[0] / first[0], last[1] / first[1]]) {
        let verdict = if grown < QUADRATIC / 5.0 { "linear" } else { "NOT LINEAR" };
        println!(
            "{what}: {QUADRATIC:.0} times the instances cost {grown:.1} times as much each ({verdict}; quadratic were {QUADRATIC:.0})"
        );
    }
}
