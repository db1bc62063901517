//! Outcomes of checks as text of at most 80 columns, and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::conformance::{Check, Options, Outcome};

const COLUMNS: usize = 80;
const INDENT: usize = 8;
type Outcomes = BTreeMap<Check, Outcome>;

/// A line for a check that is fine, several for one that is not.
pub(super) fn lines(check: Check, outcome: &Outcome) -> String {
    let (word, reason) = match outcome {
        Outcome::Passed => ("ok", None),
        Outcome::Failed(what) => ("FAILED", Some(what)),
        Outcome::Skipped(reason) => ("skipped", Some(reason)),
        Outcome::NotApplicable(reason) => ("-", Some(reason)),
    };
    let mut text = cut(&format!("{word:<INDENT$}{:<18}{}", check.id(), check.title()));
    text.push('\n');
    match (outcome, reason) {
        (Outcome::Failed(what), _) => {
            text += &wrapped("", what);
            text += &wrapped("Why: ", check.why());
            text += &wrapped("Change: ", check.change());
        }
        (_, Some(reason)) => text += &wrapped("", reason),
        _ => {}
    }
    text
}

/// How many of each.
pub(super) fn summary(outcomes: &Outcomes, is_done: bool) -> String {
    let count = |is: fn(&Outcome) -> bool| outcomes.values().filter(|outcome| is(outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let not_applicable = count(|outcome| matches!(outcome, Outcome::NotApplicable(_)));
    let stopped = if is_done { "" } else { " It was stopped before its end." };
    format!(
        "\n{passed} passed, {failed} failed, {skipped} skipped, {not_applicable} not applicable.\
         {stopped}\n"
    )
}

/// Whether no check failed.
pub(super) fn is_good(outcomes: &Outcomes) -> bool {
    !outcomes.values().any(|outcome| matches!(outcome, Outcome::Failed(_)))
}

/// All of it as one document.
pub(super) fn document(
    options: &Options,
    outcomes: &Outcomes,
    is_done: bool,
    left: Option<&str>,
) -> Value {
    let checks: Vec<Value> =
        outcomes.iter().map(|(check, outcome)| object(*check, outcome)).collect();
    json!({
        "plugin": options.binary,
        "create": options.create,
        "done": is_done,
        "passed": is_done && is_good(outcomes),
        "left": left,
        "checks": checks,
    })
}

fn object(check: Check, outcome: &Outcome) -> Value {
    let (word, what) = match outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(what) => ("failed", Some(what)),
        Outcome::Skipped(reason) => ("skipped", Some(reason)),
        Outcome::NotApplicable(reason) => ("not_applicable", Some(reason)),
    };
    json!({
        "id": check.id(),
        "group": check.group(),
        "title": check.title(),
        "outcome": word,
        "what": what,
        "why": check.why(),
        "change": check.change(),
    })
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(COLUMNS) {
        Some(_) => line.chars().take(COLUMNS - 1).chain(['…']).collect(),
        None => line.to_owned(),
    }
}

/// Indented lines; a word that is longer than a line stands on one of its own.
fn wrapped(lead: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = format!("{:INDENT$}{lead}", "");
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines += line.trim_end();
            lines.push('\n');
            line = " ".repeat(INDENT);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines += line.trim_end();
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_a_terminal() {
        for check in Check::all() {
            for outcome in [Outcome::Passed, Outcome::Failed("word ".repeat(60))] {
                let text = lines(check, &outcome);
                assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
            }
        }
    }

    #[test]
    fn long_text_is_wrapped_and_whole() {
        let text = wrapped("Why: ", &"abcd ".repeat(40));
        assert!(text.lines().count() > 1);
        assert_eq!(text.matches("abcd").count(), 40);
    }

    #[test]
    fn one_failure_is_enough() {
        let mut outcomes = Outcomes::from([(Check::Init, Outcome::Passed)]);
        assert!(is_good(&outcomes));
        outcomes.insert(Check::Ids, Outcome::Failed("twice".into()));
        assert!(!is_good(&outcomes));
        assert_eq!(
            summary(&outcomes, true),
            "\n1 passed, 1 failed, 0 skipped, 0 not applicable.\n"
        );
    }
}
