//! Pure. The top of the file: stages, defaults, variables, and which keys are jobs.

use super::{
    Variable,
    diagnostic::{Findings, quoted},
    fields,
    job::{self, Defaults, Draft},
    keywords::{self, Place},
    yaml::{Entry, Node},
};
use crate::coordinator::Executor;

/// Stages of a file that names none, without the two that every file has.
const DEFAULT_STAGES: &[&str] = &["build", "test", "deploy"];
/// GitLab's limit for a job's name, in characters.
const NAME_LIMIT: usize = 255;

/// A file as written.
pub(super) struct File {
    pub(super) stages: Vec<String>,
    pub(super) variables: Vec<Variable>,
    pub(super) jobs: Vec<Draft>,
}

/// Reads the whole file; what is wrong with it becomes findings.
pub(super) fn read(root: &Node, executor: Executor, findings: &mut Findings<'_>) -> File {
    let mut file = File { stages: with_ends(Vec::new()), variables: Vec::new(), jobs: Vec::new() };
    let Some(entries) = root.map() else {
        let message = format!("the file must be a mapping of jobs, found {}", root.kind());
        findings.error(root.span, message, Some("start with a job's name and a colon".into()));
        return file;
    };
    let named: Vec<(&str, &Entry)> = entries
        .iter()
        .filter_map(|entry| fields::key_text(entry, findings).map(|key| (key, entry)))
        .collect();
    let mut defaults = Defaults { executor, ..Defaults::default() };
    for (key, entry) in named.iter().filter(|(key, entry)| is_setting(key, entry)) {
        setting(key, entry, &mut file, &mut defaults, findings);
    }
    for (key, entry) in named.iter().filter(|(key, entry)| !is_setting(key, entry)) {
        if !key.starts_with('.') && is_job(key, entry, findings) {
            file.jobs.push(job::read(key, entry, &defaults, findings));
        }
    }
    file
}

/// Whether the key is a setting of the file. With a `script` below it, it was meant as a job.
fn is_setting(key: &str, entry: &Entry) -> bool {
    keywords::accepted(Place::Top).contains(&key) && !looks_like_job(key, &entry.value)
}

fn looks_like_job(key: &str, value: &Node) -> bool {
    let is_variable = |script: &Node| key == "variables" && script.list().is_none();
    value.get("script").is_some_and(|script| !is_variable(script))
}

fn setting(
    key: &str,
    entry: &Entry,
    file: &mut File,
    defaults: &mut Defaults,
    findings: &mut Findings<'_>,
) {
    let value = &entry.value;
    match key {
        "stages" => {
            if let Some(stages) = stages(value, findings) {
                file.stages = stages;
            }
        }
        "variables" => file.variables = fields::variables(value, Place::GlobalVariable, findings),
        "default" => {
            for (key, entry) in fields::keyed(value, "`default`", Place::Default, findings) {
                default(key, entry, defaults, findings);
            }
        }
        other => default(other, entry, defaults, findings),
    }
}

fn default(key: &str, entry: &Entry, defaults: &mut Defaults, findings: &mut Findings<'_>) {
    let node = &entry.value;
    let is_there = match key {
        "image" => defaults.containers.image.is_some(),
        "services" => defaults.containers.services.is_some(),
        "before_script" => defaults.before.is_some(),
        "after_script" => defaults.after.is_some(),
        _ => false,
    };
    if is_there {
        let hint = "keep the one under `default`";
        let message = format!("{} is there twice, at the top and in `default`", quoted(key));
        findings.error(entry.key.span, message, Some(hint.into()));
        return;
    }
    match key {
        "image" | "services" => defaults.containers.set(key, entry, defaults.executor, findings),
        "artifacts" => defaults.artifacts = Some(fields::artifacts(node, findings)),
        "timeout" => defaults.timeout = fields::timeout(node, findings),
        "tags" => job::tags(node, findings),
        "before_script" => defaults.before = fields::side_script(node, &quoted(key), findings),
        _ => defaults.after = fields::side_script(node, &quoted(key), findings),
    }
}

fn stages(node: &Node, findings: &mut Findings<'_>) -> Option<Vec<String>> {
    let stages = fields::texts(node, "`stages`", findings)?;
    if stages.is_empty() {
        findings.error(node.span, "`stages` is empty", Some("name one, or remove it".into()));
        return None;
    }
    Some(with_ends(stages))
}

fn with_ends(named: Vec<String>) -> Vec<String> {
    let named = if named.is_empty() {
        DEFAULT_STAGES.iter().map(|stage| stage.to_string()).collect()
    } else {
        named
    };
    let mut stages = vec![".pre".to_string()];
    for stage in named {
        if !stages.contains(&stage) && stage != ".post" {
            stages.push(stage);
        }
    }
    stages.push(".post".into());
    stages
}

/// Whether the entry can be read as a job; if not, says why.
fn is_job(key: &str, entry: &Entry, findings: &mut Findings<'_>) -> bool {
    let (span, value) = (entry.key.span, &entry.value);
    if keywords::RESERVED.contains(&key) {
        let as_job = key == "pages:deploy" || looks_like_job(key, value);
        let (message, hint) = if as_job {
            (format!("{} is a reserved word", quoted(key)), "give the job another name".into())
        } else {
            let (verb, hint) = keywords::explain(Place::Top, key);
            (format!("{} is {verb}", quoted(key)), hint)
        };
        findings.error(span, message, Some(hint));
        return false;
    }
    if key.is_empty() || key.chars().count() > NAME_LIMIT {
        let message = format!("a job's name has 1 to {NAME_LIMIT} characters");
        findings.error(span, message, None);
        return false;
    }
    let known = |entry: &Entry| {
        entry.key.text().is_some_and(|word| {
            keywords::accepted(Place::Job).contains(&word) || keywords::is_refused(word)
        })
    };
    let has_job_words = value.map().is_some_and(|entries| entries.iter().any(known));
    if !has_job_words {
        let reserved = keywords::RESERVED.iter().copied();
        let settings = keywords::accepted(Place::Top).iter().copied().chain(reserved);
        if let Some(similar) = keywords::similar(key, settings) {
            let hint = format!("did you mean `{similar}`?");
            findings.error(span, format!("unknown keyword {}", quoted(key)), Some(hint));
            return false;
        }
    }
    if value.map().is_none() {
        let message = format!("job {} must be a mapping, found {}", quoted(key), value.kind());
        findings.error(span, message, Some("give it a `script` on an indented line".into()));
        return false;
    }
    true
}
