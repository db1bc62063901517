//! The part of JSON Schema that the plugin's schemas use. A keyword that is not known
//! here is refused, so that nothing is believed to be checked that is not.

use std::path::Path;

use serde_json::Value;

/// The schema of an operation's `request` or `response`.
pub(crate) fn of(operation: &str, half: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{operation}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let mut schema = super::parse(&text);
    schema["properties"][half].take()
}

/// What is wrong with a value, with the place; nothing if it fits.
pub(crate) fn check(schema: &Value, value: &Value) -> Result<(), String> {
    at("$", schema, value)
}

fn at(place: &str, schema: &Value, value: &Value) -> Result<(), String> {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{place}: no schema: {schema}"));
    for (keyword, rule) in keywords {
        let fits = match keyword.as_str() {
            "description" | "title" => true,
            "type" => is_of_type(rule.as_str().expect("a type"), value),
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_u64().is_none_or(|n| n >= rule.as_u64().expect("a number")),
            "maximum" => value.as_u64().is_none_or(|n| n <= rule.as_u64().expect("a number")),
            "minLength" => {
                value.as_str().is_none_or(|s| s.len() as u64 >= rule.as_u64().expect("n"))
            }
            "maxLength" => {
                value.as_str().is_none_or(|s| s.len() as u64 <= rule.as_u64().expect("n"))
            }
            "maxItems" => {
                value.as_array().is_none_or(|l| l.len() as u64 <= rule.as_u64().expect("n"))
            }
            "required" => rule
                .as_array()
                .expect("a list")
                .iter()
                .all(|key| value.get(key.as_str().expect("a key")).is_some()),
            "additionalProperties" => {
                assert_eq!(rule, &Value::Bool(false), "{place}: only false is known");
                let known = &keywords["properties"];
                value
                    .as_object()
                    .is_none_or(|object| object.keys().all(|key| known.get(key).is_some()))
            }
            "properties" => {
                for (key, schema) in rule.as_object().expect("a table") {
                    if let Some(value) = value.get(key) {
                        at(&format!("{place}.{key}"), schema, value)?;
                    }
                }
                true
            }
            "items" => {
                for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                    at(&format!("{place}[{n}]"), rule, value)?;
                }
                true
            }
            other => panic!("{place}: the keyword {other} is not known"),
        };
        if !fits {
            return Err(format!("{place}: {keyword} = {rule} does not hold for {value}"));
        }
    }
    Ok(())
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        other => panic!("the type {other} is not known"),
    }
}
