//! What was found: one outcome per check, told as it is known.

use std::collections::BTreeMap;

use super::Check;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should be.
    Passed,
    /// What is wrong.
    Failed(String),
    /// Why it could not be judged.
    Skipped(String),
    /// Why it does not concern this plugin.
    NotApplicable(String),
}

/// Told each outcome as it is known.
type Tell<'a> = Box<dyn FnMut(Check, &Outcome) + 'a>;

/// The outcomes so far.
pub(crate) struct Findings<'a> {
    outcomes: BTreeMap<Check, Outcome>,
    tell: Tell<'a>,
    secrets: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(tell: impl FnMut(Check, &Outcome) + 'a) -> Self {
        Self { outcomes: BTreeMap::new(), tell: Box::new(tell), secrets: Vec::new() }
    }

    /// All that is known by now.
    pub(crate) fn outcomes(&self) -> &BTreeMap<Check, Outcome> {
        &self.outcomes
    }

    /// Whether this check failed.
    pub(crate) fn has_failed(&self, check: Check) -> bool {
        matches!(self.outcomes.get(&check), Some(Outcome::Failed(_)))
    }

    /// Text that no outcome may contain from now on.
    pub(super) fn hide(&mut self, secret: String) {
        self.secrets.push(secret);
    }

    pub(super) fn pass(&mut self, check: Check) {
        self.note(check, Outcome::Passed);
    }

    pub(super) fn fail(&mut self, check: Check, what: impl Into<String>) {
        self.note(check, Outcome::Failed(what.into()));
    }

    pub(super) fn skip(&mut self, checks: &[Check], reason: &str) {
        for check in checks {
            self.note(*check, Outcome::Skipped(reason.to_owned()));
        }
    }

    pub(super) fn not_applicable(&mut self, checks: &[Check], reason: &str) {
        for check in checks {
            self.note(*check, Outcome::NotApplicable(reason.to_owned()));
        }
    }

    /// Passed, or failed with these words.
    pub(super) fn judge(&mut self, check: Check, result: Result<(), String>) {
        match result {
            Ok(()) => self.pass(check),
            Err(what) => self.fail(check, what),
        }
    }

    /// Skips all that is not known yet.
    pub(super) fn skip_rest(&mut self, reason: &str) {
        let rest: Vec<Check> =
            Check::all().filter(|check| !self.outcomes.contains_key(check)).collect();
        self.skip(&rest, reason);
    }

    /// The first outcome of a check counts.
    fn note(&mut self, check: Check, outcome: Outcome) {
        if self.outcomes.contains_key(&check) {
            return;
        }
        let clean = |text: String| {
            self.secrets.iter().fold(text, |text, secret| text.replace(secret, "[secret]"))
        };
        let outcome = match outcome {
            Outcome::Passed => Outcome::Passed,
            Outcome::Failed(text) => Outcome::Failed(clean(text)),
            Outcome::Skipped(text) => Outcome::Skipped(clean(text)),
            Outcome::NotApplicable(text) => Outcome::NotApplicable(clean(text)),
        };
        (self.tell)(check, &outcome);
        self.outcomes.insert(check, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_once_and_without_secrets() {
        let mut told = Vec::new();
        let mut findings =
            Findings::new(|check, outcome: &Outcome| told.push((check, outcome.clone())));
        findings.hide("hunter2".into());
        findings.fail(Check::Init, "no: hunter2 is wrong");
        findings.pass(Check::Init);
        assert!(findings.has_failed(Check::Init));
        drop(findings);
        assert_eq!(told, [(Check::Init, Outcome::Failed("no: [secret] is wrong".into()))]);
    }
}
