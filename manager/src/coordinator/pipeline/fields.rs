//! Pure. The values that jobs and `default` share: scripts, variables, artifacts, durations.
//!
//! Each function takes a node and gives the value or records what is wrong with it and gives
//! `None`; none stops at the first finding.

use std::time::Duration;

use super::{
    Artifacts, ArtifactsWhen, Variable,
    diagnostic::{Findings, Span, quoted},
    duration,
    keywords::{self, Place},
    scalar,
    yaml::{Entry, Node, Value},
};

/// Depth to which GitLab flattens the lists in a script.
const SCRIPT_NESTING_LIMIT: usize = 10;
/// GitLab's upper limit for a job's timeout: one month.
const TIMEOUT_LIMIT: Duration = Duration::from_secs(31 * 86_400);

/// The entries of a mapping whose keys are all accepted at `place`.
pub(super) fn keyed<'n>(
    node: &'n Node,
    what: &str,
    place: Place,
    findings: &mut Findings<'_>,
) -> Vec<(&'n str, &'n Entry)> {
    let Some(entries) = node.map() else {
        mismatch(findings, node, what, "a mapping");
        return Vec::new();
    };
    let mut accepted = Vec::new();
    for entry in entries {
        let Some(key) = key_text(entry, findings) else { continue };
        if keywords::accepted(place).contains(&key) {
            accepted.push((key, entry));
        } else {
            unknown_key(entry, key, what, place, findings);
        }
    }
    accepted
}

fn unknown_key(entry: &Entry, key: &str, what: &str, place: Place, findings: &mut Findings<'_>) {
    let (verb, hint) = keywords::explain(place, key);
    let message = match verb {
        "unknown" => format!("unknown keyword {} in {what}", quoted(key)),
        verb => format!("{} is {verb}, in {what}", quoted(key)),
    };
    findings.error(entry.key.span, message, Some(hint));
}

/// The entry's key when it is text; `yes:`, `1:` and the like are findings.
pub(super) fn key_text<'n>(entry: &'n Entry, findings: &mut Findings<'_>) -> Option<&'n str> {
    let text = entry.key.text();
    if text.is_none() {
        let message = format!("a key must be text, found {}", entry.key.kind());
        let hint = scalar_hint(&entry.key, findings);
        findings.error(entry.key.span, message, hint);
    }
    text
}

/// Records that `what` should have been `expected`.
pub(super) fn mismatch(findings: &mut Findings<'_>, node: &Node, what: &str, expected: &str) {
    let hint = if expected.starts_with("text") { scalar_hint(node, findings) } else { None };
    findings.error(
        node.span,
        format!("{what} must be {expected}, found {}", node.kind()),
        hint.or_else(|| {
            (expected == "a list of text").then(|| "write it as a list: `[one, two]`".to_string())
        }),
    );
}

fn scalar_hint(node: &Node, findings: &Findings<'_>) -> Option<String> {
    let is_scalar = !matches!(node.value, Value::Null | Value::List(_) | Value::Map(_));
    is_scalar.then(|| format!("quote it: \"{}\"", findings.source.slice(node.span)))
}

pub(super) fn text(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<String> {
    if node.text().is_none() {
        mismatch(findings, node, what, "text");
    }
    node.text().map(str::to_string)
}

pub(super) fn boolean(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<bool> {
    if let Value::Bool(value) = node.value {
        return Some(value);
    }
    mismatch(findings, node, what, "true or false");
    None
}

/// A list of texts; a single text is not one, as in GitLab.
pub(super) fn texts(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<Vec<String>> {
    let Some(items) = node.list() else {
        mismatch(findings, node, what, "a list of text");
        return None;
    };
    let entry = format!("an entry of {what}");
    let read: Vec<_> = items.iter().map(|item| text(item, &entry, findings)).collect();
    read.into_iter().collect()
}

/// Stores what was read; after a finding the slot keeps its default, nobody will see it.
pub(super) fn put<T>(slot: &mut T, read: Option<T>) {
    if let Some(value) = read {
        *slot = value;
    }
}

/// The commands of `script`: a text or a list, lists in it flattened; never empty.
pub(super) fn script(node: &Node, findings: &mut Findings<'_>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    match &node.value {
        Value::Text(line) => lines.push(line.to_string()),
        Value::List(_) => flatten(node, "`script`", 0, &mut lines, findings)?,
        _ => {
            mismatch(findings, node, "`script`", "a list of commands or one text");
            return None;
        }
    }
    if lines.iter().all(|line| line.trim().is_empty()) {
        findings.error(node.span, "`script` is empty", Some("give it a command".into()));
        return None;
    }
    Some(lines)
}

/// The commands of `before_script` or `after_script`: a list, possibly empty.
pub(super) fn side_script(
    node: &Node,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<Vec<String>> {
    if node.list().is_none() {
        let message = format!("{what} must be a list of commands, found {}", node.kind());
        findings.error(node.span, message, Some("write it as a list: `- command`".into()));
        return None;
    }
    let mut lines = Vec::new();
    flatten(node, what, 0, &mut lines, findings)?;
    Some(lines)
}

fn flatten(
    node: &Node,
    what: &str,
    depth: usize,
    lines: &mut Vec<String>,
    findings: &mut Findings<'_>,
) -> Option<()> {
    let mut sound = Some(());
    for item in node.list().unwrap_or_default() {
        match &item.value {
            Value::Text(line) => lines.push(line.to_string()),
            Value::List(_) if depth < SCRIPT_NESTING_LIMIT => {
                if flatten(item, what, depth + 1, lines, findings).is_none() {
                    sound = None;
                }
            }
            _ => {
                command_mismatch(item, what, findings);
                sound = None;
            }
        }
    }
    sound
}

fn command_mismatch(item: &Node, what: &str, findings: &mut Findings<'_>) {
    if item.list().is_some() {
        let message = format!("{what} has lists nested deeper than {SCRIPT_NESTING_LIMIT} levels");
        findings.error(item.span, message, None);
    } else if item.map().is_some() {
        let hint = "a colon followed by a blank makes a mapping: quote the whole line";
        let message = format!("a command of {what} must be text, found a mapping");
        findings.error(item.span, message, Some(hint.into()));
    } else {
        mismatch(findings, item, &format!("a command of {what}"), "text");
    }
}

/// `variables` of the file or of a job, in file order.
pub(super) fn variables(node: &Node, place: Place, findings: &mut Findings<'_>) -> Vec<Variable> {
    let Some(entries) = node.map() else {
        mismatch(findings, node, "`variables`", "a mapping of names to values");
        return Vec::new();
    };
    entries.iter().filter_map(|entry| variable(entry, place, findings)).collect()
}

fn variable(entry: &Entry, place: Place, findings: &mut Findings<'_>) -> Option<Variable> {
    let name = match &entry.key.value {
        Value::Integer(number) => number.to_string(),
        _ => key_text(entry, findings)?.to_string(),
    };
    if name.is_empty() || name.contains(['=', '\0']) {
        let message = format!("{} cannot be the name of a variable", quoted(&name));
        findings.error(entry.key.span, message, None);
        return None;
    }
    let what = format!("variable {}", quoted(&name));
    if entry.value.map().is_none() {
        let value = variable_value(&entry.value, &what, findings)?;
        return Some(Variable { name, value, raw: false });
    }
    let mut variable = Variable { name, value: String::new(), raw: false };
    for (key, field) in keyed(&entry.value, &what, place, findings) {
        match key {
            "value" => put(&mut variable.value, variable_value(&field.value, &what, findings)),
            "expand" => {
                variable.raw = boolean(&field.value, "`expand`", findings) == Some(false);
            }
            "description" => drop(text(&field.value, "`description`", findings)),
            _ => drop(texts(&field.value, "`options`", findings)),
        }
    }
    Some(variable)
}

fn variable_value(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<String> {
    let value = match &node.value {
        Value::Text(text) => return Some(text.to_string()),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => scalar::float_text(*value),
        _ => {
            mismatch(findings, node, what, "text, a number or a boolean");
            return None;
        }
    };
    let written = findings.source.slice(node.span);
    if written != value {
        let line = findings.source.position(node.span.start).line;
        findings.note(format!(
            "line {line}: {what} becomes `{value}`, as in GitLab; write \"{written}\" to keep it"
        ));
    }
    Some(value)
}

/// A job's `timeout`.
pub(super) fn timeout(node: &Node, findings: &mut Findings<'_>) -> Option<Duration> {
    let duration = match &node.value {
        Value::Text(text) => duration::parse(text),
        Value::Integer(seconds) => {
            let line = findings.source.position(node.span.start).line;
            findings.note(format!("line {line}: GitLab wants `timeout` as text: \"{seconds}\""));
            u64::try_from(*seconds).ok().filter(|s| *s > 0).map(Duration::from_secs)
        }
        _ => {
            mismatch(findings, node, "`timeout`", "a text such as 1h 30m");
            return None;
        }
    };
    if duration.is_some_and(|duration| duration <= TIMEOUT_LIMIT) {
        return duration;
    }
    let (message, hint) = match duration {
        Some(_) => ("`timeout` is longer than a month", "GitLab allows no more than that"),
        None => ("`timeout` is not a duration", "write it like `90 minutes` or `1h 30m`"),
    };
    findings.error(node.span, message, Some(hint.into()));
    None
}

/// `artifacts` of a job or of `default`.
pub(super) fn artifacts(node: &Node, findings: &mut Findings<'_>) -> Artifacts {
    let mut artifacts = Artifacts::default();
    for (key, entry) in keyed(node, "`artifacts`", Place::Artifacts, findings) {
        let value = &entry.value;
        match key {
            "paths" => put(&mut artifacts.paths, texts(value, "`paths`", findings)),
            "exclude" => put(&mut artifacts.exclude, texts(value, "`exclude`", findings)),
            "name" => artifacts.name = text(value, "`name`", findings),
            "untracked" => put(&mut artifacts.untracked, boolean(value, "`untracked`", findings)),
            "expire_in" => artifacts.expire_in = expire_in(value, findings),
            _ => put(&mut artifacts.when, artifacts_when(value, findings)),
        }
    }
    artifacts
}

fn expire_in(node: &Node, findings: &mut Findings<'_>) -> Option<String> {
    let text = text(node, "`expire_in`", findings)?;
    if text.trim() == "never" || duration::parse(&text).is_some() {
        return Some(text);
    }
    let hint = "write it like `1 week` or `never`";
    findings.error(node.span, "`expire_in` is not a duration", Some(hint.into()));
    None
}

fn artifacts_when(node: &Node, findings: &mut Findings<'_>) -> Option<ArtifactsWhen> {
    let text = text(node, "`when`", findings)?;
    let when = match text.as_str() {
        "on_success" => ArtifactsWhen::OnSuccess,
        "on_failure" => ArtifactsWhen::OnFailure,
        "always" => ArtifactsWhen::Always,
        _ => {
            one_of(node.span, "`when`", &["on_success", "on_failure", "always"], findings);
            return None;
        }
    };
    Some(when)
}

/// Records that the text at `span` is none of the words allowed for `what`.
pub(super) fn one_of(span: Span, what: &str, words: &[&str], findings: &mut Findings<'_>) {
    let written = findings.source.slice(span).trim_matches(['"', '\'']);
    let message = format!("{what} cannot be {}", quoted(written));
    let hint = match keywords::similar(written, words.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("one of: {}", words.join(", ")),
    };
    findings.error(span, message, Some(hint));
}
