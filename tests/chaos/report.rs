//! A run as numbers, for people and for the file that is committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Event, processes};

use crate::history;
use crate::inject::{Effect, Strike};
use crate::log::plain;
use crate::oracle::Case;
use crate::plan::{Kind, Plan};
use crate::run::{Life, MAX_INSTANCES, Ran};

/// What a run proved.
pub(crate) struct Report {
    pub(crate) json: Value,
    pub(crate) violations: Vec<String>,
}

/// Judges every job and every instance.
pub(crate) fn report(plan: &Plan, ran: &Ran) -> Report {
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut violations = ran.violations.clone();
    let mut log_bytes = 0;
    let is_cut =
        |strike: &&Strike| matches!(strike.kind, Kind::ConnectionCut | Kind::AllConnectionsCut);
    let cuts: Vec<Instant> = ran.injector.strikes.iter().filter(is_cut).map(|s| s.at).collect();
    for (at, id) in ran.ids.iter().enumerate() {
        let (audit, log) = (ran.gitlab.audit(*id), ran.gitlab.trace_bytes(*id));
        log_bytes += log.len();
        let strikes = |id: u64| {
            let hits = ran.injector.strikes.iter().flat_map(|strike| &strike.jobs);
            hits.filter(move |(job, _)| *job == id).map(|(_, effect)| *effect).collect()
        };
        let Ok(log) = String::from_utf8(log) else {
            violations.push(format!("job {id}: its log is no text"));
            continue;
        };
        let case = Case {
            job: &plan.jobs[at],
            audit: &audit,
            log: &log,
            heard: ran.witness.of(id.0),
            effects: strikes(id.0),
            cuts: cuts.clone(),
            lives: &ran.lives,
        };
        match case.judge() {
            Ok(outcome) => *outcomes.entry(outcome.name()).or_default() += 1,
            Err(why) => violations.push(story(plan, ran, &case, &why)),
        }
    }
    violations.extend(instances(ran));
    violations.extend(left_behind(ran));
    let json = numbers(plan, ran, (&outcomes, log_bytes), violations.len());
    Report { json, violations }
}

fn numbers(
    plan: &Plan,
    ran: &Ran,
    (outcomes, log_bytes): (&BTreeMap<&str, u64>, usize),
    violations: usize,
) -> Value {
    let hit: Vec<&Strike> = ran.injector.strikes.iter().filter(|s| !s.target.is_empty()).collect();
    let mut injections: BTreeMap<String, u64> = BTreeMap::new();
    for strike in &hit {
        *injections.entry(strike.kind.name()).or_default() += 1;
    }
    let touched =
        |effect| hit.iter().flat_map(|strike| &strike.jobs).filter(|(_, e)| *e == effect).count();
    json!({
        "seed": plan.seed,
        "plan": plan.fingerprint(),
        "jobs": outcomes,
        "log_bytes": log_bytes,
        "injections": injections,
        "injections_without_target": ran.injector.strikes.len() - hit.len(),
        "jobs_hit": {
            "lost": touched(Effect::Lost),
            "may_be_lost": touched(Effect::MayBeLost),
            "disturbed": touched(Effect::Disturbed),
        },
        "manager_starts": ran.lives.len(),
        "requeued": ran.requeued,
        "instances": ran.instances.seen.len(),
        "most_instances": ran.instances.most,
        "seconds": rounded(ran.took),
        "drain_seconds": rounded(ran.drained),
        "slowest_recovery_seconds": rounded(slowest_recovery(ran)),
        "violations": violations,
    })
}

/// Every injection, a line each.
pub(crate) fn strikes(ran: &Ran) -> String {
    let line = |strike: &Strike| {
        let at = (strike.at - ran.begun).as_secs_f64();
        format!("{at:8.3} s  {strike}\n")
    };
    ran.injector.strikes.iter().map(line).collect()
}

fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// What a person needs to understand a job that went wrong.
fn story(plan: &Plan, ran: &Ran, case: &Case<'_>, why: &str) -> String {
    let id = case.audit.job.0;
    let mut text = format!("seed {}, job {id}: {why}\n  it is {:?}\n", plan.seed, case.job);
    let seconds = |at: Instant| (at - ran.begun).as_secs_f64();
    let (from, to) = (case.audit.queued(), case.audit.ended().unwrap_or_else(Instant::now));
    let _ = writeln!(text, "  queued at {:.3} s; it said {:?}", seconds(from), case.heard);
    for strike in &ran.injector.strikes {
        let is_hit = strike.jobs.iter().any(|(job, _)| *job == id);
        let is_near = strike.at >= from && strike.at <= to;
        if is_hit || is_near {
            let _ = writeln!(text, "  {:.3} s: {strike}", seconds(strike.at));
        }
    }
    for life in &ran.lives {
        let ended = life.to.map_or("now".into(), |to| format!("{:.3} s", seconds(to)));
        if life.from <= to && life.to.is_none_or(|end| end >= from) {
            let _ = writeln!(text, "  a manager from {:.3} s to {ended}", seconds(life.from));
        }
    }
    let _ = writeln!(text, "  {}", case.audit);
    let log = plain(case.log);
    let shown: String = log.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
    let _ = writeln!(text, "  the end of its log: {shown:?}");
    text
}

fn instances(ran: &Ran) -> Vec<String> {
    let mut faults = history::check(ran);
    let most = ran.instances.most;
    if most > MAX_INSTANCES as usize {
        faults.push(format!("{most} instances at once, {MAX_INSTANCES} are allowed"));
    }
    faults
}

/// Processes, instances and sockets that are still there after the drain.
fn left_behind(ran: &Ran) -> Vec<String> {
    let directory = ran.manager.directory();
    let mut faults = Vec::new();
    for process in processes::mentioning(&directory.display().to_string()) {
        faults.push(format!("a process is left: {process}"));
    }
    for instance in ran.injector.targets.instances() {
        faults.push(format!("an instance is left: {instance}"));
    }
    let left_by_double_kills = left_by_double_kills(ran);
    let mut next = vec![directory.to_owned()];
    while let Some(path) = next.pop() {
        use std::os::unix::fs::FileTypeExt as _;
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !left_by_double_kills.contains(&entry.path())) {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_socket() {
                faults.push(format!("a socket is left: {}", entry.path().display()));
            } else if kind.is_dir() {
                next.push(entry.path());
            }
        }
    }
    let mut left = ran.manager.socket_directories();
    left.retain(|path| !left_by_double_kills.contains(path));
    faults.extend(left.iter().map(|path| format!("left for sockets: {}", path.display())));
    faults
}

/// Directories for plugins' sockets that nobody could remove: the guard that does it for a
/// manager that was killed had been killed, too.
fn left_by_double_kills(ran: &Ran) -> Vec<PathBuf> {
    let both = |life: &&Life| {
        let is_within = |at| at >= life.from && life.to.is_some_and(|to| at <= to);
        let hits = |kind| {
            ran.injector.strikes.iter().any(|strike| strike.kind == kind && is_within(strike.at))
        };
        hits(Kind::GuardKilled) && hits(Kind::ManagerKilled)
    };
    let names: Vec<String> =
        ran.lives.iter().filter(both).map(|life| format!("mayfly-{}-", life.pid)).collect();
    let run = ran.manager.directory().join("run");
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            names.iter().any(|prefix| name.starts_with(prefix.as_str()))
        })
        .map(|entry| entry.path())
        .collect()
}

/// The longest time from a start of the manager to its first word about a job that ran
/// when the one before ended.
fn slowest_recovery(ran: &Ran) -> Duration {
    let mut slowest = Duration::ZERO;
    for pair in ran.lives.windows(2) {
        let (Some(died), born) = (pair[0].to, pair[1].from) else { continue };
        for audit in ran.gitlab.audits() {
            let ran_then = audit.acknowledged().is_some_and(|at| at < died)
                && audit.ended().is_some_and(|at| at > died);
            if !ran_then {
                continue;
            }
            let is_word = |event: &Event| !matches!(event, Event::CancelAsked | Event::Queued);
            let first = audit.events.iter().find(|(at, event)| *at > born && is_word(event));
            let in_this_life = |at: &Instant| pair[1].to.is_none_or(|to| *at < to);
            if let Some((at, _)) = first.filter(|(at, _)| in_this_life(at)) {
                slowest = slowest.max(*at - born);
            }
        }
    }
    slowest
}
