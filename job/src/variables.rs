//! A job's variables: order, precedence, expansion.
//!
//! Rules of GitLab Runner: of equal names the last one wins, for what it is (file,
//! masked, raw) as well as for its value; references are expanded once over all, as Go's
//! `os.Expand` reads them; raw ones are not expanded; a reference to a file variable is
//! its path; an unknown reference is empty; `$$` is a dollar sign.

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
            if variable.raw {
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
        self.get(name)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "t" | "1"))
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
    Variable { key: key.into(), value: value.into(), public: true, ..Variable::default() }
}

fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match reference(rest) {
            Reference::Name("$", after) => {
                out.push('$');
                rest = after;
            }
            Reference::Name(name, after) => {
                out.push_str(&lookup(name).unwrap_or_default());
                rest = after;
            }
            Reference::Broken(after) => rest = after,
            Reference::None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

/// What follows a dollar sign, and the text after it.
enum Reference<'a> {
    /// A name, or one of the shell's special parameters.
    Name(&'a str, &'a str),
    /// Braces that hold no name. Go drops them.
    Broken(&'a str),
    /// The dollar sign means itself.
    None,
}

fn reference(text: &str) -> Reference<'_> {
    let is_special = |c: char| "*#$@!?-0123456789".contains(c);
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.split_once('}') {
            Some(("", after)) => Reference::Broken(after),
            Some((name, after)) => Reference::Name(name, after),
            None => Reference::Broken(inner),
        };
    }
    if text.starts_with(is_special) {
        let (name, after) = text.split_at(1);
        return Reference::Name(name, after);
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match text.bytes().take_while(is_name).count() {
        0 => Reference::None,
        length => {
            let (name, after) = text.split_at(length);
            Reference::Name(name, after)
        }
    }
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
            ("$$A", "$A"),
            ("pa$$word", "pa$word"),
            ("$", "$"),
            ("${A", "A"),
            ("${}.", "."),
            ("$1.$@.$?", ".."),
            ("a$", "a$"),
            ("$ .", "$ ."),
            ("${A:-b}.", "."),
            ("$B", "$A"),
            ("é$A", "éx"),
        ];
        for (text, expected) in cases {
            let variables = resolve(&[("A", "x"), ("B", "$A"), ("C", text)]);
            assert_eq!(variables.get("C"), Some(expected), "{text}");
        }
    }

    #[test]
    fn switches_are_on_as_in_go() {
        for (value, on) in
            [("true", true), ("TRUE", true), ("t", true), ("1", true), ("yes", false), ("", false)]
        {
            assert_eq!(resolve(&[("A", value)]).is_on("A"), on, "{value}");
        }
    }

    #[test]
    fn raw_is_kept_and_a_file_is_its_path() {
        let variables = Variables::resolve(
            [
                Variable { raw: true, ..plain("RAW", "$A") },
                Variable { file: true, ..plain("FILE", "content $A") },
                plain("A", "at $FILE and $RAW"),
                Variable { raw: true, file: true, ..plain("RAW_FILE", "content $A") },
            ],
            |name| format!("/tmp/{name}"),
        );
        assert_eq!(variables.get("RAW"), Some("$A"));
        assert_eq!(variables.get("FILE"), Some("content at $FILE and $RAW"));
        assert_eq!(variables.get("A"), Some("at /tmp/FILE and $A"));
        assert_eq!(variables.get("RAW_FILE"), Some("content $A"));
    }
}
