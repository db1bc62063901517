//! Pure. One job of the file, before it is known whether its stage and needs exist.

use std::time::Duration;

use super::{
    AllowFailure, Artifacts, Need, Scripts, Variable, When,
    containers::Containers,
    diagnostic::{Findings, Span, quoted},
    fields::{self, put},
    keywords::Place,
    yaml::{Entry, Node, Value},
};
use crate::coordinator::Executor;

/// Keywords that say how a job runs without a `script`: their own finding is enough.
const INSTEAD_OF_SCRIPT: &[&str] = &["extends", "trigger", "run", "pages", "release"];

/// A job as written. Absent values are `None`, so that defaults can be told from them.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) stage: Option<(String, Span)>,
    pub(super) needs: Option<Vec<DraftNeed>>,
    pub(super) scripts: Scripts,
    pub(super) containers: Containers,
    pub(super) variables: Vec<Variable>,
    pub(super) artifacts: Option<Artifacts>,
    pub(super) allow_failure: Option<AllowFailure>,
    pub(super) when: DraftWhen,
    pub(super) timeout: Option<Duration>,
}

/// One entry of `needs`.
pub(super) struct DraftNeed {
    pub(super) need: Need,
    pub(super) optional: bool,
    pub(super) span: Span,
}

/// `when` as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DraftWhen {
    Runs(When),
    Never,
}

/// What `default`, the top of the file and the run give to every job.
#[derive(Default)]
pub(super) struct Defaults {
    pub(super) executor: Executor,
    pub(super) containers: Containers,
    pub(super) before: Option<Vec<String>>,
    pub(super) after: Option<Vec<String>>,
    pub(super) artifacts: Option<Artifacts>,
    pub(super) timeout: Option<Duration>,
}

/// Reads the job `name`.
pub(super) fn read(
    name: &str,
    entry: &Entry,
    defaults: &Defaults,
    findings: &mut Findings<'_>,
) -> Draft {
    let mut draft = Draft {
        name: name.to_string(),
        span: entry.key.span,
        stage: None,
        needs: None,
        scripts: Scripts {
            before: defaults.before.clone().unwrap_or_default(),
            script: Vec::new(),
            after: defaults.after.clone().unwrap_or_default(),
        },
        containers: defaults.containers.clone(),
        variables: Vec::new(),
        artifacts: defaults.artifacts.clone(),
        allow_failure: None,
        when: DraftWhen::Runs(When::OnSuccess),
        timeout: defaults.timeout,
    };
    let what = format!("job {}", quoted(name));
    for (key, entry) in fields::keyed(&entry.value, &what, Place::Job, findings) {
        match key {
            "image" | "services" => draft.containers.set(key, entry, defaults.executor, findings),
            _ => set(&mut draft, key, &entry.value, findings),
        }
    }
    let has = |key: &&str| entry.value.get(key).is_some();
    if !has(&"script") && !INSTEAD_OF_SCRIPT.iter().any(has) {
        let hint = "every job runs a `script`; a name that starts with a dot makes a template";
        findings.error(draft.span, format!("{what} has no `script`"), Some(hint.into()));
    }
    draft
}

fn set(draft: &mut Draft, key: &str, node: &Node, findings: &mut Findings<'_>) {
    match key {
        "stage" => {
            draft.stage = fields::text(node, "`stage`", findings).map(|stage| (stage, node.span));
        }
        "script" => put(&mut draft.scripts.script, fields::script(node, findings)),
        "before_script" => {
            let lines = fields::side_script(node, "`before_script`", findings);
            put(&mut draft.scripts.before, lines);
        }
        "after_script" => {
            let lines = fields::side_script(node, "`after_script`", findings);
            put(&mut draft.scripts.after, lines);
        }
        "variables" => draft.variables = fields::variables(node, Place::JobVariable, findings),
        "needs" => draft.needs = needs(node, findings),
        "artifacts" => draft.artifacts = Some(fields::artifacts(node, findings)),
        "allow_failure" => draft.allow_failure = allow_failure(node, findings),
        "when" => put(&mut draft.when, when(node, findings)),
        "timeout" => draft.timeout = fields::timeout(node, findings),
        _ => tags(node, findings),
    }
}

/// Checks `tags` and says that they change nothing here.
pub(super) fn tags(node: &Node, findings: &mut Findings<'_>) {
    if fields::texts(node, "`tags`", findings).is_some() {
        let note = "`tags` are ignored: every job runs on the machines of this run";
        findings.note(note.into());
    }
}

fn needs(node: &Node, findings: &mut Findings<'_>) -> Option<Vec<DraftNeed>> {
    let items = match &node.value {
        Value::List(items) => &items[..],
        Value::Map(_) => std::slice::from_ref(node),
        _ => {
            fields::mismatch(findings, node, "`needs`", "a list of jobs");
            return None;
        }
    };
    Some(items.iter().filter_map(|item| need(item, findings)).collect())
}

fn need(item: &Node, findings: &mut Findings<'_>) -> Option<DraftNeed> {
    if let Some(job) = item.text() {
        let need = Need { job: job.to_string(), artifacts: true };
        return Some(DraftNeed { need, optional: false, span: item.span });
    }
    if item.map().is_none() {
        fields::mismatch(findings, item, "an entry of `needs`", "a job's name or a mapping");
        return None;
    }
    let mut job = None;
    let (mut artifacts, mut optional) = (true, false);
    for (key, entry) in fields::keyed(item, "`needs`", Place::Need, findings) {
        let value = &entry.value;
        match key {
            "job" => {
                job = fields::text(value, "`job`", findings).map(|name| (name, value.span));
            }
            "artifacts" => put(&mut artifacts, fields::boolean(value, "`artifacts`", findings)),
            _ => put(&mut optional, fields::boolean(value, "`optional`", findings)),
        }
    }
    if item.get("job").is_none() && item.get("pipeline").is_none() {
        findings.error(item.span, "an entry of `needs` names no `job`", None);
    }
    let (job, span) = job?;
    Some(DraftNeed { need: Need { job, artifacts }, optional, span })
}

fn allow_failure(node: &Node, findings: &mut Findings<'_>) -> Option<AllowFailure> {
    match &node.value {
        Value::Bool(true) => Some(AllowFailure::Always),
        Value::Bool(false) => Some(AllowFailure::Never),
        Value::Map(_) => {
            let entries = fields::keyed(node, "`allow_failure`", Place::AllowFailure, findings);
            let Some((_, entry)) = entries.first() else {
                if findings.is_clean() {
                    findings.error(node.span, "`allow_failure` has no `exit_codes`", None);
                }
                return None;
            };
            exit_codes(&entry.value, findings).map(AllowFailure::ExitCodes)
        }
        _ => {
            let expected = "true, false or a mapping with `exit_codes`";
            fields::mismatch(findings, node, "`allow_failure`", expected);
            None
        }
    }
}

fn exit_codes(node: &Node, findings: &mut Findings<'_>) -> Option<Vec<i32>> {
    let items = node.list().unwrap_or(std::slice::from_ref(node));
    let mut codes = Vec::new();
    for item in items {
        let Value::Integer(code) = item.value else {
            fields::mismatch(findings, item, "an exit code", "a whole number");
            continue;
        };
        match i32::try_from(code) {
            Ok(code) => codes.push(code),
            Err(_) => findings.error(item.span, "this is no exit code", None),
        }
    }
    Some(codes)
}

fn when(node: &Node, findings: &mut Findings<'_>) -> Option<DraftWhen> {
    const WORDS: &[&str] = &["on_success", "on_failure", "always", "manual", "never"];
    let text = fields::text(node, "`when`", findings)?;
    match text.as_str() {
        "on_success" => Some(DraftWhen::Runs(When::OnSuccess)),
        "on_failure" => Some(DraftWhen::Runs(When::OnFailure)),
        "always" => Some(DraftWhen::Runs(When::Always)),
        "manual" => Some(DraftWhen::Runs(When::Manual)),
        "never" => {
            let line = findings.source.position(node.span.start).line;
            findings.note(format!("line {line}: GitLab takes `when: never` only under `rules`"));
            Some(DraftWhen::Never)
        }
        "delayed" => {
            let hint = "make it `when: manual` and name the job on the command line";
            let message = "`when: delayed` is not supported yet";
            findings.error(node.span, message, Some(hint.into()));
            None
        }
        _ => {
            fields::one_of(node.span, "`when`", WORDS, findings);
            None
        }
    }
}
