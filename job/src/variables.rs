//! A job's variables: order, precedence, expansion.
//!
//! Rules of GitLab Runner: of equal names the last one wins, for what it is (file,
//! masked, raw) as well as for its value; `$NAME` and `${NAME}` are expanded once over
//! all; raw ones are not expanded; a reference to a file variable is its path; an
//! unknown reference is empty; `$$` stays as it is for the shell.

use std::collections::BTreeMap;

use crate::payload::Variable;

/// The variables of one job, expanded, in the order of first appearance.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    all: Vec<Variable>,
    index: BTreeMap<String, usize>,
}

impl Variables {
    /// Merges and expands. `file_path` gives the path where a file variable of that name
    /// will be.
    pub fn resolve(
        variables: impl IntoIterator<Item = Variable>,
        file_path: impl Fn(&str) -> String,
    ) -> Self {
        let mut merged = Self::default();
        for variable in variables {
            merged.set(variable);
        }
        let expanded = merged.all.iter().map(|variable| {
            if variable.raw || variable.file {
                return variable.clone();
            }
            let value = expand(&variable.value, |name| match merged.entry(name) {
                Some(found) if found.file => Some(file_path(name)),
                Some(found) => Some(found.value.clone()),
                None => None,
            });
            Variable { value, ..variable.clone() }
        });
        let all = expanded.collect();
        Self { all, index: merged.index }
    }

    /// The value of one variable; of a file variable, its content.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|variable| variable.value.as_str())
    }

    /// The value as a switch: GitLab's words for yes.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.all.iter()
    }

    /// `text` with references replaced by values.
    pub fn expand(&self, text: &str) -> String {
        expand(text, |name| self.get(name).map(str::to_owned))
    }

    fn set(&mut self, variable: Variable) {
        match self.index.get(&variable.key) {
            Some(&at) => self.all[at] = variable,
            None => {
                self.index.insert(variable.key.clone(), self.all.len());
                self.all.push(variable);
            }
        }
    }

    fn entry(&self, name: &str) -> Option<&Variable> {
        self.index.get(name).map(|&at| &self.all[at])
    }
}

/// A public variable that the runner itself defines.
pub fn plain(key: &str, value: impl Into<String>) -> Variable {
    Variable { key: key.into(), value: value.into(), ..Variable::default() }
}

fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push_str("$$");
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            out.push_str(&lookup(name).unwrap_or_default());
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Splits `NAME…` or `{NAME}…` into the name and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let name_bytes = |text: &str| {
        text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
    };
    if let Some(inner) = text.strip_prefix('{') {
        let length = name_bytes(inner);
        let after = inner[length..].strip_prefix('}')?;
        return (length > 0).then(|| (&inner[..length], after));
    }
    let length = name_bytes(text);
    (length > 0 && !text.starts_with(|c: char| c.is_ascii_digit())).then(|| text.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(variables: &[(&str, &str)]) -> Variables {
        let variables = variables.iter().map(|(key, value)| plain(key, *value));
        Variables::resolve(variables, |name| format!("/tmp/{name}"))
    }

    #[test]
    fn the_last_of_equal_names_wins_at_the_place_of_the_first() {
        let variables = resolve(&[("A", "1"), ("B", "2"), ("A", "3")]);
        let all: Vec<_> = variables.iter().map(|v| (v.key.as_str(), v.value.as_str())).collect();
        assert_eq!(all, [("A", "3"), ("B", "2")]);
    }

    #[test]
    fn references_are_expanded_once() {
        let cases = [
            ("$A", "x"),
            ("${A}y", "xy"),
            ("$A$A", "xx"),
            ("$NONE.", "."),
            ("$$A", "$$A"),
            ("$", "$"),
            ("${A", "${A"),
            ("${}", "${}"),
            ("$1", "$1"),
            ("a$", "a$"),
            ("${A:-b}", "${A:-b}"),
            ("$B", "$A"),
            ("é$A", "éx"),
        ];
        for (text, expected) in cases {
            let variables = resolve(&[("A", "x"), ("B", "$A"), ("C", text)]);
            assert_eq!(variables.get("C"), Some(expected), "{text}");
        }
    }

    #[test]
    fn raw_is_kept_and_a_file_is_its_path() {
        let variables = Variables::resolve(
            [
                Variable { raw: true, ..plain("RAW", "$A") },
                Variable { file: true, ..plain("FILE", "content $A") },
                plain("A", "at $FILE and $RAW"),
            ],
            |name| format!("/tmp/{name}"),
        );
        assert_eq!(variables.get("RAW"), Some("$A"));
        assert_eq!(variables.get("FILE"), Some("content $A"));
        assert_eq!(variables.get("A"), Some("at /tmp/FILE and $A"));
    }
}
