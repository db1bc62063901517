//! Pure. References between variables: `$NAME`, `${NAME}` and `%NAME%` in values.
//!
//! What GitLab's server does before a runner sees them, so that chains of any length resolve:
//! an unknown name, and one of a raw variable, is left for the runner; with a circle nothing
//! is expanded. Several variables may have one name; the last one counts, and may refer to
//! the one it replaces.

use std::collections::BTreeMap;

use super::wire::Variable;

/// Longest value expansion may make, in bytes: doubling chains end here, unexpanded.
const VALUE_LIMIT: usize = 1 << 20;

/// Expands all values and leaves one variable for each name.
pub(super) fn expand(variables: Vec<Variable>) -> Vec<Variable> {
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let mut replaced: Vec<Option<usize>> = Vec::new();
    for (index, variable) in variables.iter().enumerate() {
        replaced.push(last.insert(variable.key.clone(), index));
    }
    let mut expansion = Expansion {
        values: vec![None; variables.len()],
        under_way: vec![false; variables.len()],
        variables: &variables,
        last: &last,
        replaced: &replaced,
    };
    let all: Option<Vec<String>> =
        (0..variables.len()).map(|index| expansion.value(index, 0)).collect();
    let values = all.unwrap_or_else(|| variables.iter().map(|v| v.value.clone()).collect());
    let is_last = |(index, variable): &(usize, Variable)| last.get(&variable.key) == Some(index);
    let expanded = variables.into_iter().zip(values);
    let expanded = expanded.map(|(variable, value)| Variable { value, ..variable });
    expanded.enumerate().filter(is_last).map(|(_, variable)| variable).collect()
}

struct Expansion<'a> {
    variables: &'a [Variable],
    values: Vec<Option<String>>,
    under_way: Vec<bool>,
    last: &'a BTreeMap<String, usize>,
    replaced: &'a [Option<usize>],
}

impl Expansion<'_> {
    /// The expanded value; `None` when a circle was found, or a chain too long or too large.
    fn value(&mut self, index: usize, depth: usize) -> Option<String> {
        const DEPTH_LIMIT: usize = 500;
        if let Some(value) = &self.values[index] {
            return Some(value.clone());
        }
        if self.under_way[index] || depth > DEPTH_LIMIT {
            return None;
        }
        let variable = &self.variables[index];
        let mut value = variable.value.clone();
        if !variable.raw && !variable.file {
            self.under_way[index] = true;
            value = self.text(&variable.value, index, depth)?;
            self.under_way[index] = false;
        }
        self.values[index] = Some(value.clone());
        Some(value)
    }

    fn text(&mut self, text: &str, index: usize, depth: usize) -> Option<String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(['$', '%']) {
            expanded.push_str(&rest[..start]);
            let (length, name) = reference(&rest[start..]);
            let written = &rest[start..start + length];
            rest = &rest[start + length..];
            let target = name.and_then(|name| self.last.get(name)).copied();
            let target = if target == Some(index) { self.replaced[index] } else { target };
            let known = target
                .filter(|target| !self.variables[*target].raw && !self.variables[*target].file);
            match known {
                Some(target) => expanded.push_str(&self.value(target, depth + 1)?),
                None => expanded.push_str(written),
            }
            if expanded.len() > VALUE_LIMIT {
                return None;
            }
        }
        expanded.push_str(rest);
        Some(expanded)
    }
}

/// The length of what stands at the start of `text`, and the name if it is a reference.
fn reference(text: &str) -> (usize, Option<&str>) {
    let (sign, rest) = text.split_at(1);
    if rest.starts_with(sign) {
        return (2, None);
    }
    let braced = rest.strip_prefix('{').filter(|_| sign == "$");
    let body = braced.unwrap_or(rest);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = body.find(|c| !is_name(c)).unwrap_or(body.len());
    let name = &body[..end];
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return (1, None);
    }
    let closing = match (sign, braced) {
        ("%", _) => Some('%'),
        (_, Some(_)) => Some('}'),
        _ => None,
    };
    match closing {
        None => (1 + end, Some(name)),
        Some(closing) if body[end..].starts_with(closing) => {
            (text.len() - body.len() + end + 1, Some(name))
        }
        Some(_) => (1, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let variables = pairs.iter().map(|(key, value)| Variable {
            key: key.trim_end_matches('!').into(),
            value: value.to_string(),
            public: true,
            file: false,
            masked: false,
            raw: key.ends_with('!'),
        });
        let expanded = expand(variables.collect());
        expanded.into_iter().map(|variable| (variable.key, variable.value)).collect()
    }

    fn last(pairs: &[(&str, &str)]) -> String {
        expanded(pairs).pop().expect("one").1
    }

    #[test]
    fn references() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("A", "1"), ("B", "${A}x$A-%A%")], "1x1-1"),
            (&[("B", "$C"), ("C", "$D"), ("D", "d"), ("A", "$B")], "d"),
            (&[("A", "$UNKNOWN ${}")], "$UNKNOWN ${}"),
            (&[("A", "1"), ("B", "$$A %%A% 100%")], "$$A %%A% 100%"),
            (&[("R!", "$A"), ("A", "1"), ("B", "$R")], "$R"),
            (&[("A", "1"), ("R!", "$A")], "$A"),
            (&[("P", "a"), ("P", "$P:b")], "a:b"),
            (&[("P", "$P:b")], "$P:b"),
            (&[("A", "$B"), ("B", "$A"), ("C", "$D"), ("D", "d")], "d"),
            (&[("A", "x"), ("B", "${A")], "${A"),
            (&[("A", "x"), ("B", "$A$")], "x$"),
        ];
        for (pairs, value) in table {
            assert_eq!(&last(pairs), value, "{pairs:?}");
        }
        assert_eq!(expanded(&[("A", "$B"), ("B", "$A"), ("C", "$A")])[2].1, "$A", "a circle");
        assert_eq!(expanded(&[("P", "a"), ("P", "b")]).len(), 1);
    }

    #[test]
    fn doubling_chains_end() {
        let names: Vec<(String, String)> =
            (1..64).map(|n| (format!("A{n}"), format!("$A{m}$A{m}", m = n - 1))).collect();
        let mut pairs = vec![("A0", "xx")];
        pairs.extend(names.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        assert_eq!(last(&pairs), "$A62$A62");
        let deep: Vec<(String, String)> =
            (0..5000).map(|n| (format!("A{n}"), format!("$A{}", n + 1))).collect();
        let pairs: Vec<_> = deep.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(expanded(&pairs).len(), 5000);
    }
}
