//! Faults of the text itself, told as the operator sees them: what TOML's and serde's
//! readers say speaks of types.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A fault's message and what to do about it.
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: String,
}

/// The text is not TOML.
pub(super) fn syntax(message: &str) -> Fault {
    let (message, hint) = match message {
        "duplicate key" => (message, "keep one of the two"),
        _ if message.starts_with("invalid basic string, expected `\"`") => {
            ("a text has no closing quote", "put a quote at its end")
        }
        _ if message.starts_with("invalid float") => {
            ("a value is neither number, text, true nor false", "put texts in quotes")
        }
        _ => (message, "texts are written \"in quotes\", tables [name], lists of tables [[name]]"),
    };
    Fault { message: format!("this is not TOML: {message}"), hint: hint.into() }
}

/// A value that its key cannot have, found at a place.
pub(super) fn value(
    root: Option<&DeTable<'_>>,
    span: Option<Range<usize>>,
    message: &str,
) -> Fault {
    let Some((key, value)) = root.zip(span).and_then(|(root, span)| at(root, &span, "")) else {
        return Fault { message: message.into(), hint: String::new() };
    };
    let Some((_, expected)) = message.split_once(", expected ") else {
        return Fault { message: format!("{key}: {message}"), hint: String::new() };
    };
    let (expected, hint) = remedy(&key, value, expected);
    Fault { message: format!("{key}: is {}, expected {expected}", kind(value)), hint }
}

/// The innermost key whose value is at this place.
fn at<'t, 'a>(
    table: &'t DeTable<'a>,
    span: &Range<usize>,
    parent: &str,
) -> Option<(String, &'t DeValue<'a>)> {
    table.iter().find_map(|(name, item)| {
        let key = match parent {
            "" => name.get_ref().to_string(),
            parent => format!("{parent}.{}", name.get_ref()),
        };
        let inner = match item.get_ref() {
            DeValue::Table(inner) => at(inner, span, &key),
            DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
                let key = format!("{key}[{index}]");
                match item.get_ref() {
                    DeValue::Table(inner) => at(inner, span, &key),
                    value => (item.span() == *span).then_some((key, value)),
                }
            }),
            _ => None,
        };
        inner.or_else(|| (item.span() == *span).then_some((key, item.get_ref())))
    })
}

/// What serde expected, in the file's terms, and how it is written.
fn remedy(key: &str, value: &DeValue<'_>, expected: &str) -> (String, String) {
    let last = key.rsplit('.').next().unwrap_or(key);
    let whole_number = matches!(expected, "u64" | "i64" | "u32" | "i32" | "u16" | "usize");
    match (expected, value) {
        ("a sequence", DeValue::Table(_)) => (
            "a list of tables".into(),
            format!("write its header in double brackets: [[{}]]", header(key)),
        ),
        ("a sequence", _) => ("a list".into(), format!("put it in brackets: {last} = [ … ]")),
        ("a string", _) => ("a text".into(), format!("put it in quotes: {last} = \"…\"")),
        ("a text or a list of texts", _) => {
            (expected.into(), format!("put it in quotes: {last} = \"…\""))
        }
        ("a boolean", _) => {
            ("true or false".into(), format!("write: {last} = true, or {last} = false"))
        }
        (_, DeValue::String(text)) if whole_number && text.parse::<i64>().is_ok() => {
            ("a whole number".into(), format!("write it without quotes: {last} = {text}"))
        }
        _ if whole_number => ("a whole number".into(), format!("write for instance: {last} = 4")),
        ("f64" | "f32", _) => ("a number".into(), format!("write for instance: {last} = 1.5")),
        ("a map", _) => ("a table".into(), format!("write its keys below [{}]", header(key))),
        _ if expected.starts_with("struct ") => {
            ("a table".into(), format!("write its keys below [{}]", header(key)))
        }
        _ => (expected.into(), String::new()),
    }
}

/// The header of a table: its key without the places in lists.
fn header(key: &str) -> String {
    key.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The text for showing: values that may be secret are stars. Places stay the same.
pub(super) fn without_secrets(text: &str) -> String {
    const MARKS: [&str; 6] =
        ["token", "password", "secret", "credential", "environment", "private"];
    let shown = |line: &str| {
        let lower = line.to_ascii_lowercase();
        let names_secret = |key: &str| MARKS.iter().any(|mark| key.contains(mark));
        let value = lower.match_indices('=').map(|(at, _)| at).find(|&at| {
            let key = lower[..at].rsplit(['{', ',', '=']).next().unwrap_or_default();
            names_secret(key) && !key.contains("file") && !key.contains("path")
        });
        match value {
            Some(at) => {
                let value = line[at + 1..].trim_end_matches(['\r', '\n']);
                let hidden = value.bytes().map(|b| if b == b' ' { ' ' } else { '*' });
                let end = &line[at + 1 + value.len()..];
                format!("{}{}{end}", &line[..=at], hidden.collect::<String>())
            }
            None => line.to_owned(),
        }
    };
    text.split_inclusive('\n').map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_and_places_stay() {
        let cases = [
            ("token = \"glrt-ä\"\n", "token = *********\n"),
            ("  password=\"a\" # note", "  password=*** * ****"),
            (
                "c = { user = \"a\", Password = \"b\" }\r\n",
                "c = { user = \"a\", Password = *** *\r\n",
            ),
            ("name = \"a\"\n", "name = \"a\"\n"),
            ("token_file = \"a\"\n", "token_file = \"a\"\n"),
            ("environment = [\"A=1\"]", "environment = *******"),
            ("# a token here\nname = 1", "# a token here\nname = 1"),
        ];
        for (text, shown) in cases {
            assert_eq!(without_secrets(text), shown);
            assert_eq!(without_secrets(text).len(), text.len());
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key() {
        let text = "[[runners]]\n[runners.autoscaler.policy]\n";
        let table = DeTable::parse(text).expect("TOML");
        let start = text.find("[runners.autoscaler.policy]").expect("there");
        let span = start..start + "[runners.autoscaler.policy]".len();
        let fault =
            value(Some(table.get_ref()), Some(span), "invalid type: map, expected a sequence");
        assert_eq!(
            fault.message,
            "runners[0].autoscaler.policy: is a table, expected a list of tables"
        );
        assert!(fault.hint.contains("[[runners.autoscaler.policy]]"), "{}", fault.hint);
    }
}
