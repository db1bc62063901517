//! A deterministic simulation of the real scheduler: made-up clock, seeded faults, and
//! invariants at every step.
//!
//! `cargo test` lives a fixed number of seeds. `MAYFLY_SIM_SEED=n` replays one with its
//! whole story; `MAYFLY_SIM_SECONDS=n` lives fresh seeds on all cores for that long, and
//! `MAYFLY_SIM_SEEDS=n` that many from the first (`MAYFLY_SIM_FIRST=n`), without the burst.

mod burst;
mod cloud;
mod connections;
mod ending;
mod faults;
mod invariants;
mod jobs;
mod lists;
mod plans;
mod process;
mod run;
mod shell;

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use run::{Outcome, live};

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 1_500;
const PROGRESS: Duration = Duration::from_secs(10);

/// The sum of many seeds.
#[derive(Default)]
struct Report {
    seeds: u64,
    simulated_ms: u64,
    events: u64,
    rounds: u64,
    faults: BTreeMap<&'static str, u64>,
    broken: Vec<(u64, String)>,
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.simulated_ms += outcome.simulated;
        self.events += outcome.events;
        self.rounds += outcome.rounds;
        for (kind, n) in outcome.faults {
            *self.faults.entry(kind).or_default() += n;
        }
        if let Some(broken) = outcome.broken {
            println!("seed {seed} breaks {}", broken.lines().next().unwrap_or_default());
            self.broken.push((seed, broken));
        }
    }

    fn line(&self, begun: Instant) -> String {
        let seconds = begun.elapsed().as_secs_f64();
        format!(
            "{} seeds ({:.0}/s), {:.0} simulated hours, {} events, {} plans, {} faults, {} broken",
            self.seeds,
            self.seeds as f64 / seconds,
            self.simulated_ms as f64 / 3_600_000.0,
            self.events,
            self.rounds,
            self.faults.values().sum::<u64>(),
            self.broken.len()
        )
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.trim().parse().ok()
}

/// Which seeds are lived, and until when.
struct Task {
    first: u64,
    count: u64,
    until: Option<Instant>,
}

fn task() -> Task {
    let begun = Instant::now();
    if let Some(seconds) = number("MAYFLY_SIM_SECONDS") {
        let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let first = u64::try_from(fresh).unwrap_or_default() << 16;
        let until = Some(begun + Duration::from_secs(seconds));
        return Task { first: number("MAYFLY_SIM_FIRST").unwrap_or(first), count: u64::MAX, until };
    }
    let first = number("MAYFLY_SIM_FIRST").unwrap_or_default();
    Task { first, count: number("MAYFLY_SIM_SEEDS").unwrap_or(SEEDS), until: None }
}

fn live_many(task: &Task, begun: Instant) -> Report {
    let keep_going = number("MAYFLY_SIM_KEEP_GOING").is_some();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new((Report::default(), Instant::now()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number("MAYFLY_SIM_THREADS").and_then(|n| usize::try_from(n).ok());
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(cores) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let late = task.until.is_some_and(|until| Instant::now() >= until);
                    if number >= task.count || late {
                        return;
                    }
                    let seed = task.first.wrapping_add(number);
                    let outcome = live(seed, false);
                    if outcome.broken.is_some() && !keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.0.add(seed, outcome);
                    if report.1.elapsed() >= PROGRESS {
                        report.1 = Instant::now();
                        println!("{}", report.0.line(begun));
                    }
                }
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner).0
}

fn main() -> ExitCode {
    // What test harnesses are asked for lists.
    if env::args().any(|argument| argument == "--list") {
        println!("simulation: test");
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = number("MAYFLY_SIM_SEED") {
        let outcome = live(seed, true);
        println!("{}", outcome.broken.as_deref().unwrap_or("all invariants held"));
        return ExitCode::from(u8::from(outcome.broken.is_some()));
    }
    let begun = Instant::now();
    let report = live_many(&task(), begun);
    println!("{}", report.line(begun));
    // Whoever counts seeds is after them alone.
    let burst = number("MAYFLY_SIM_SEEDS").is_none().then(burst::live);
    if let Some(Ok(line) | Err(line)) = &burst {
        println!("{line}");
    }
    for (kind, n) in &report.faults {
        println!("  {n:>9} {kind}");
    }
    let mut broken: Vec<_> = report.broken.iter().collect();
    broken.sort_by_key(|(seed, _)| *seed);
    if number("MAYFLY_SIM_KEEP_GOING").is_some() {
        let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (seed, text) in &broken {
            kinds.entry(text.lines().next().unwrap_or_default()).or_default().push(*seed);
        }
        for (kind, seeds) in kinds {
            println!("BROKEN {} × {kind}: seeds {:?}", seeds.len(), &seeds[..seeds.len().min(8)]);
        }
    }
    if let Some((_, text)) = broken.first() {
        println!("BROKEN {text}");
    }
    ExitCode::from(u8::from(!broken.is_empty() || matches!(burst, Some(Err(_)))))
}
