//! Chaos with real processes: jobs on local instances while manager, plugin, agents,
//! instances and connections are killed, stopped and cut at random.
//!
//! Each job must end exactly once with its true result and its whole log, byte for byte; a
//! job may be lost only where what ran it was killed, and then it says so. `make chaos
//! SEED=7` runs one seed whole. Without a wish two committed seeds are run again, with
//! their first jobs only. Time limits are wide: a run fails because a promise is broken.

#[path = "chaos/history.rs"]
mod history;
#[path = "chaos/inject.rs"]
mod inject;
#[path = "chaos/log.rs"]
mod log;
#[path = "chaos/oracle.rs"]
mod oracle;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/run.rs"]
mod run;
#[path = "chaos/script.rs"]
mod script;
#[path = "chaos/targets.rs"]
mod targets;
#[path = "chaos/witness.rs"]
mod witness;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use plan::{JOBS, Plan};
use serde_json::Value;

/// Which seeds to run whole: `7` or `1..50`.
const SEEDS: &str = "MAYFLY_CHAOS_SEEDS";
/// Set, it keeps the files of runs and tells each injection.
const KEEP: &str = "MAYFLY_CHAOS_KEEP";
/// Seeds that every test run repeats, and how many of their jobs.
const REPEATED: [u64; 2] = [7, 23];
const REPEATED_JOBS: usize = 120;

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("chaos/results")
}

fn result_file(seed: u64) -> PathBuf {
    results().join(format!("{seed:03}.json"))
}

fn say(text: &str) {
    // Not `println!`: the test runner keeps that to itself.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The seeds that someone asked for.
fn wished() -> Option<Vec<u64>> {
    let wish = std::env::var(SEEDS).ok().filter(|wish| !wish.is_empty())?;
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{SEEDS}: {text:?}"));
    Some(match wish.split_once("..") {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => wish.split(',').map(number).collect(),
    })
}

/// Runs a plan and judges it. Files of a run that broke a promise stay.
fn prove(plan: &Plan) -> Result<Value, String> {
    let mut ran = run::run(plan);
    let report = report::report(plan, &ran);
    if std::env::var_os(KEEP).is_some_and(|keep| !keep.is_empty()) {
        say(&format!("{}\n{}", ran.manager.keep_files().display(), report::strikes(&ran)));
    }
    if report.violations.is_empty() {
        return Ok(report.json);
    }
    let kept = ran.manager.keep_files();
    Err(format!(
        "seed {}: {} promises broken; logs, state and instances are in {}\n\n{}",
        plan.seed,
        report.violations.len(),
        kept.display(),
        report.violations.join("\n")
    ))
}

#[test]
fn every_job_ends_once_with_its_true_result_whatever_is_killed() {
    let mut broken = Vec::new();
    match wished() {
        Some(seeds) => {
            for seed in seeds {
                match prove(&Plan::of(seed, JOBS)) {
                    Ok(json) => {
                        say(&summary(&json));
                        let text = serde_json::to_string_pretty(&json).expect("JSON");
                        std::fs::write(result_file(seed), text + "\n").expect("it is written");
                    }
                    Err(why) => {
                        say(&why);
                        broken.push(format!("seed {seed}"));
                    }
                }
            }
        }
        None => {
            for seed in REPEATED {
                let plan = Plan::of(seed, REPEATED_JOBS);
                match prove(&plan) {
                    Ok(json) => {
                        say(&format!("the first {REPEATED_JOBS} jobs of {}", summary(&json)));
                    }
                    Err(why) => broken.push(why),
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

fn summary(json: &Value) -> String {
    format!(
        "seed {}: {} s, jobs {}, {} manager starts, injections {}, jobs hit {}, slowest recovery {} s",
        json["seed"],
        json["seconds"],
        json["jobs"],
        json["manager_starts"],
        json["injections"],
        json["jobs_hit"],
        json["slowest_recovery_seconds"]
    )
}

/// A plan is the same in every build, and its beginning is that of the whole.
#[test]
fn committed_results_are_of_these_plans_and_without_a_broken_promise() {
    for entry in std::fs::read_dir(results()).expect("results").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("readable");
        let result: Value = serde_json::from_str(&text).expect("JSON");
        let seed = result["seed"].as_u64().expect("a seed");
        assert_eq!(entry.path(), result_file(seed));
        let plan = Plan::of(seed, JOBS);
        assert_eq!(result["plan"], plan.fingerprint(), "seed {seed} is another plan now");
        assert_eq!(result["violations"], 0, "seed {seed}");
        let ended: u64 =
            result["jobs"].as_object().expect("jobs").values().flat_map(Value::as_u64).sum();
        assert_eq!(ended, JOBS as u64, "seed {seed}");
        let part = Plan::of(seed, REPEATED_JOBS);
        let beginning = Plan {
            jobs: plan.jobs[..REPEATED_JOBS].to_vec(),
            injections: plan.injections[..part.injections.len()].to_vec(),
            ..plan
        };
        assert_eq!(part.fingerprint(), beginning.fingerprint());
    }
}
