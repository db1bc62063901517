//! Pure. Puts the jobs together: stages, needs, cycles, and which jobs this run has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    AllowFailure, CompiledJob, Need, Variable, When,
    diagnostic::{Findings, quoted},
    file::File,
    job::{Draft, DraftNeed, DraftWhen},
    keywords,
};
use crate::coordinator::Executor;

/// Stage of a job that names none.
const DEFAULT_STAGE: &str = "test";
/// Timeout of a job that names none: a new project's in GitLab.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Checks what jobs say about each other and gives the jobs of this run in file order.
pub(super) fn link(
    file: File,
    executor: Executor,
    only: &[String],
    findings: &mut Findings<'_>,
) -> Option<(Vec<String>, Vec<CompiledJob>)> {
    let stages: Vec<Option<usize>> =
        file.jobs.iter().map(|job| stage(job, &file.stages, findings)).collect();
    let index_of: BTreeMap<&str, usize> =
        file.jobs.iter().enumerate().map(|(index, job)| (job.name.as_str(), index)).collect();
    check_needs(&file.jobs, &index_of, &stages, findings);
    check_cycles(&file.jobs, &index_of, findings);
    let named = named(&file.jobs, &index_of, only, findings);
    if !findings.is_clean() {
        return None;
    }
    let chosen = chosen(&file.jobs, &index_of, &named);
    say_what_is_left_out(&file.jobs, &chosen, &named, findings);
    if chosen.is_empty() {
        findings.error_without_place("no job is left to run", Some("all are `when: never`".into()));
        return None;
    }
    if executor == (Executor::Docker { has_image: false }) {
        check_images(&file.jobs, &chosen, findings);
        if !findings.is_clean() {
            return None;
        }
    }
    let compiled = file
        .jobs
        .iter()
        .enumerate()
        .filter(|(index, _)| chosen.contains(index))
        .map(|(index, draft)| {
            let runs = |name: &str| index_of.get(name).is_some_and(|job| chosen.contains(job));
            let mut job = lower(draft, &file.variables, named.contains(&index), runs);
            job.stage_index = stages[index].unwrap_or_default();
            job.stage = file.stages[job.stage_index].clone();
            job
        })
        .collect();
    Some((file.stages, compiled))
}

fn stage(job: &Draft, stages: &[String], findings: &mut Findings<'_>) -> Option<usize> {
    let name = job.stage.as_ref().map_or(DEFAULT_STAGE, |(name, _)| name.as_str());
    let found = stages.iter().position(|stage| stage == name);
    if found.is_none() {
        let known = || stages.iter().map(String::as_str);
        let list = known().filter(|stage| !stage.starts_with('.')).collect::<Vec<_>>().join(", ");
        let (span, hint) = match &job.stage {
            Some((name, span)) => {
                let similar = keywords::similar(name, known());
                let guess = similar.map(|stage| format!("did you mean `{stage}`?"));
                (*span, guess.unwrap_or(format!("the file's stages are: {list}")))
            }
            None => (job.span, format!("give the job one of the file's stages: {list}")),
        };
        let message = format!("job {} is in an unknown stage {}", quoted(&job.name), quoted(name));
        findings.error(span, message, Some(hint));
    }
    found
}

fn check_needs(
    jobs: &[Draft],
    index: &BTreeMap<&str, usize>,
    stages: &[Option<usize>],
    findings: &mut Findings<'_>,
) {
    for (position, job) in jobs.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for entry in job.needs.iter().flatten() {
            let name = entry.need.job.as_str();
            if !seen.insert(name) {
                let message = format!("job {} needs {} twice", quoted(&job.name), quoted(name));
                findings.error(entry.span, message, None);
                continue;
            }
            let Some(other) = index.get(name) else {
                unknown_need(job, entry, index, findings);
                continue;
            };
            if stages[*other] > stages[position] && stages[position].is_some() {
                let message =
                    format!("job {} needs {} of a later stage", quoted(&job.name), quoted(name));
                let hint = "needed jobs are in the same stage or an earlier one";
                findings.error(entry.span, message, Some(hint.into()));
            }
            if jobs[*other].when == DraftWhen::Never && !entry.optional {
                let message =
                    format!("job {} needs {}, which never runs", quoted(&job.name), quoted(name));
                findings.error(entry.span, message, Some("make the need `optional: true`".into()));
            }
        }
    }
}

fn unknown_need(
    job: &Draft,
    entry: &DraftNeed,
    index: &BTreeMap<&str, usize>,
    findings: &mut Findings<'_>,
) {
    let name = &entry.need.job;
    if entry.optional {
        return;
    }
    let hint = match keywords::similar(name, index.keys().copied()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if name.starts_with('.') => "a name that starts with a dot is a template".into(),
        None => "needed jobs must be in this file, or the need `optional: true`".into(),
    };
    let message = format!("job {} needs {}, which is no job", quoted(&job.name), quoted(name));
    findings.error(entry.span, message, Some(hint));
}

/// Walks depth first; a need that leads back onto the path under way closes a cycle.
fn check_cycles(jobs: &[Draft], index: &BTreeMap<&str, usize>, findings: &mut Findings<'_>) {
    let targets: Vec<Vec<(usize, &DraftNeed)>> = jobs
        .iter()
        .map(|job| {
            let needs = job.needs.iter().flatten();
            needs.filter_map(|need| Some((*index.get(need.need.job.as_str())?, need))).collect()
        })
        .collect();
    let mut visits = vec![Visit::None; jobs.len()];
    for start in 0..jobs.len() {
        let mut path = Vec::new();
        if visits[start] == Visit::None {
            visits[start] = Visit::UnderWay;
            path.push((start, 0));
        }
        while let Some((job, next)) = path.last_mut() {
            let Some((target, need)) = targets[*job].get(*next) else {
                visits[*job] = Visit::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match visits[*target] {
                Visit::Done => {}
                Visit::None => {
                    visits[*target] = Visit::UnderWay;
                    path.push((*target, 0));
                }
                Visit::UnderWay => {
                    let round = path.iter().skip_while(|(job, _)| job != target);
                    let names = round.map(|(job, _)| *job).chain([*target]);
                    let names = names.map(|job| quoted(&jobs[job].name)).collect::<Vec<_>>();
                    let message = format!("jobs need each other: {}", names.join(" → "));
                    let hint = "take one of these needs away";
                    findings.error(need.span, message, Some(hint.into()));
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    None,
    UnderWay,
    Done,
}

/// The jobs named on the command line.
fn named(
    jobs: &[Draft],
    index: &BTreeMap<&str, usize>,
    only: &[String],
    findings: &mut Findings<'_>,
) -> BTreeSet<usize> {
    let mut named = BTreeSet::new();
    for name in only {
        if let Some(job) = index.get(name.as_str()) {
            if jobs[*job].when == DraftWhen::Never {
                let message = format!("job {} is `when: never`", quoted(name));
                findings.error_without_place(message, None);
            }
            named.insert(*job);
            continue;
        }
        let hint = match keywords::similar(name, index.keys().copied()) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None if name.starts_with('.') => "a name that starts with a dot is a template".into(),
            None => {
                let all = index.keys().take(20).copied().collect::<Vec<_>>().join(", ");
                format!("the file's jobs are: {all}")
            }
        };
        let message = format!("the file has no job {}", quoted(name));
        findings.error_without_place(message, Some(hint));
    }
    named
}

/// The named jobs and all they need, or every job when none is named.
fn chosen(
    jobs: &[Draft],
    index: &BTreeMap<&str, usize>,
    named: &BTreeSet<usize>,
) -> BTreeSet<usize> {
    let mut open: Vec<usize> =
        if named.is_empty() { (0..jobs.len()).collect() } else { named.iter().copied().collect() };
    let mut chosen = BTreeSet::new();
    while let Some(job) = open.pop() {
        if jobs[job].when == DraftWhen::Never || !chosen.insert(job) {
            continue;
        }
        let needs = jobs[job].needs.iter().flatten();
        open.extend(needs.filter_map(|need| index.get(need.need.job.as_str())));
    }
    chosen
}

fn check_images(jobs: &[Draft], chosen: &BTreeSet<usize>, findings: &mut Findings<'_>) {
    for job in chosen.iter().map(|index| &jobs[*index]) {
        if job.containers.image.is_none() {
            let hint = "give it an `image`, or name one for all such jobs with `--image NAME`";
            let message = format!("job {} names no image for its container", quoted(&job.name));
            findings.error(job.span, message, Some(hint.into()));
        }
    }
}

fn say_what_is_left_out(
    jobs: &[Draft],
    chosen: &BTreeSet<usize>,
    named: &BTreeSet<usize>,
    findings: &mut Findings<'_>,
) {
    for index in chosen.difference(named) {
        if jobs[*index].when == DraftWhen::Runs(When::Manual) {
            let name = quoted(&jobs[*index].name);
            let blocks = jobs[*index].allow_failure == Some(AllowFailure::Never);
            let more =
                if blocks { "; the stages after it wait for it and are skipped" } else { "" };
            findings.note(format!("job {name} is `when: manual`: name it to run it{more}"));
        }
    }
    let by_stage = named.iter().filter(|index| jobs[**index].needs.is_none());
    for index in by_stage.filter(|_| chosen.len() < jobs.len()) {
        let name = quoted(&jobs[*index].name);
        findings.note(format!(
            "job {name} has no `needs`: jobs of earlier stages, and their artifacts, are left out \
             unless you name them too"
        ));
    }
}

fn lower(
    draft: &Draft,
    global: &[Variable],
    named: bool,
    runs: impl Fn(&str) -> bool,
) -> CompiledJob {
    let written = match draft.when {
        DraftWhen::Runs(when) => when,
        DraftWhen::Never => When::OnSuccess,
    };
    let when = if named && written == When::Manual { When::OnSuccess } else { written };
    let needs = draft.needs.as_ref().map(|needs| -> Vec<Need> {
        let needs = needs.iter().map(|entry| &entry.need);
        needs.filter(|need| runs(&need.job)).cloned().collect()
    });
    let by_hand = if when == When::Manual { AllowFailure::Always } else { AllowFailure::Never };
    CompiledJob {
        name: draft.name.clone(),
        stage: String::new(),
        stage_index: 0,
        needs,
        scripts: draft.scripts.clone(),
        image: draft.containers.image.clone(),
        services: draft.containers.services.clone().unwrap_or_default(),
        variables: merged(global, &draft.variables),
        artifacts: draft.artifacts.clone(),
        allow_failure: draft.allow_failure.clone().unwrap_or(by_hand),
        when,
        timeout: draft.timeout.unwrap_or(DEFAULT_TIMEOUT),
    }
}

fn merged(global: &[Variable], own: &[Variable]) -> Vec<Variable> {
    let mut merged: Vec<Variable> = global.to_vec();
    for variable in own {
        match merged.iter_mut().find(|known| known.name == variable.name) {
            Some(known) => *known = variable.clone(),
            None => merged.push(variable.clone()),
        }
    }
    merged
}
