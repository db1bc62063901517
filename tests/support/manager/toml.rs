//! Writes values as TOML: one `key = value` a line, tables inline.

use serde_json::{Map, Value};

/// Lines of a table.
pub(super) fn lines(table: &Map<String, Value>) -> String {
    table.iter().map(|(key, value)| format!("{} = {}\n", quote(key), inline(value))).collect()
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let fields =
                table.iter().map(|(key, value)| format!("{} = {}", quote(key), inline(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Null => panic!("TOML has no null: leave the key out"),
        // JSON's strings, numbers and booleans are TOML's.
        plain => plain.to_string(),
    }
}

fn quote(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_bare) {
        key.into()
    } else {
        Value::from(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_inline() {
        let table = json!({"a": [1, {"b": "x\"y\n"}], "c d": {"e": true, "f": 1.5}});
        let expected = "a = [1, { b = \"x\\\"y\\n\" }]\n\"c d\" = { e = true, f = 1.5 }\n";
        assert_eq!(lines(table.as_object().expect("a table")), expected);
    }
}
