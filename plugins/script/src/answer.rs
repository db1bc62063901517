//! What scripts answer, on stdout: one JSON object with known keys.
//!
//! An answer may have passwords and keys in it, so a complaint about it names keys and
//! places, never values.

use std::collections::BTreeSet;

use mayfly_plugin::{InstanceState, InstanceStatus};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Instances of one list.
const LIST_LIMIT: usize = 10_000;
const ID_LIMIT_BYTES: usize = 256;

/// The answer of `init`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Group {
    /// Identity of the group, where it is another than the configured name.
    pub(crate) id: Option<String>,
    /// The most instances that the provider takes.
    pub(crate) max_size: Option<u32>,
    /// Whether `suspend` and `resume` are offered.
    pub(crate) suspend: bool,
}

/// The answer of an operation on several instances: those that were accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) instances: Vec<String>,
    /// What stopped the rest.
    pub(crate) error: Option<String>,
}

impl Accepted {
    /// Reads an answer that has the instances under this key.
    pub(crate) fn read(mut answer: Map<String, Value>, key: &str) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::Answer { why };
        let instances =
            answer.remove(key).ok_or_else(|| wrong(format!("missing field `{key}`")))?;
        let instances: Vec<String> = serde_json::from_value(instances)
            .map_err(|error| wrong(format!("{key}: {}", why(&error))))?;
        for id in &instances {
            check_id(id).map_err(|error| wrong(format!("{key}: {error}")))?;
        }
        let error = match answer.remove("error") {
            None | Some(Value::Null) => None,
            Some(Value::String(error)) => Some(error),
            Some(_) => return Err(wrong("error: expected a string".into())),
        };
        match answer.keys().next() {
            Some(other) => {
                Err(wrong(format!("unknown field `{other}`, expected `{key}` or `error`")))
            }
            None => Ok(Self { instances, error }),
        }
    }
}

/// The answer of `heartbeat`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) healthy: bool,
    pub(crate) reason: Option<String>,
}

/// How to log in to an instance, as far as the script knows. No `Debug`: it has secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) address: Option<String>,
    pub(crate) external_address: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) key_path: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) os: Option<String>,
    pub(crate) arch: Option<String>,
    /// Unix time in seconds at which the credentials end.
    pub(crate) expires: Option<u64>,
}

/// One instance of a list.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) status: InstanceStatus,
    pub(crate) login: Login,
}

impl Entry {
    /// Whether it exists and is to stay. One that was given up may still exist.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.status.state, InstanceState::Deleting | InstanceState::Deleted)
    }
}

/// The answer of `list`.
pub(crate) struct List(pub(crate) Vec<Entry>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Plain {
            instances: Vec<Map<String, Value>>,
        }
        use serde::de::Error as _;
        let plain = Plain::deserialize(deserializer)?;
        if plain.instances.len() > LIST_LIMIT {
            return Err(D::Error::custom(format!("more than {LIST_LIMIT} instances")));
        }
        let mut ids = BTreeSet::new();
        let mut entries = Vec::with_capacity(plain.instances.len());
        for (place, instance) in plain.instances.into_iter().enumerate() {
            let entry = entry(instance)
                .map_err(|why| D::Error::custom(format!("instances[{place}]: {why}")))?;
            if !ids.insert(entry.status.id.clone()) {
                return Err(D::Error::custom(format!(
                    "instances[{place}]: {:?} is listed twice",
                    entry.status.id
                )));
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }
}

fn entry(mut instance: Map<String, Value>) -> Result<Entry, String> {
    let mut text = |key: &str| match instance.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{key} must be a string")),
        None => Err(format!("missing field `{key}`")),
    };
    let id = text("id")?;
    check_id(&id)?;
    let state = state(&text("state")?)?;
    let login = serde_json::from_value(instance.into()).map_err(|error| why(&error))?;
    Ok(Entry { status: InstanceStatus::new(id, state), login })
}

/// An id is a word that may stand in a log line and in an argument.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    if (1..=ID_LIMIT_BYTES).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("an id must have 1 to {ID_LIMIT_BYTES} bytes and no control characters"))
}

fn state(word: &str) -> Result<InstanceState, String> {
    Ok(match word {
        "creating" => InstanceState::Creating,
        "running" => InstanceState::Running,
        "deleting" => InstanceState::Deleting,
        "deleted" => InstanceState::Deleted,
        "timeout" => InstanceState::Timeout,
        "suspending" => InstanceState::Suspending,
        "suspended" => InstanceState::Suspended,
        "resuming" => InstanceState::Resuming,
        _ => {
            return Err("state must be creating, running, deleting, deleted, timeout, \
                        suspending, suspended or resuming"
                .into());
        }
    })
}

/// Reads one JSON value and nothing after it.
pub(crate) fn parse<T: DeserializeOwned>(output: &[u8]) -> Result<T, Failure> {
    if output.trim_ascii().is_empty() {
        return Err(Failure::Answer { why: "nothing was printed on stdout".into() });
    }
    serde_json::from_slice(output).map_err(|error| Failure::Answer { why: why(&error) })
}

/// What is wrong, without any value of the answer.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // serde quotes the value that does not fit, which may be a password.
    let quotes_value = ["invalid type", "invalid value", "invalid length"];
    let at = match error.line() {
        0 => String::new(),
        line => format!(" at line {line} column {}", error.column()),
    };
    match quotes_value.iter().any(|begin| text.contains(begin)) {
        true => match text.rsplit_once("expected ") {
            Some((_, expected)) if expected.contains(" at line ") => format!("expected {expected}"),
            Some((_, expected)) => format!("expected {expected}{at}"),
            None => format!("a value of the wrong type{at}"),
        },
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint<T: DeserializeOwned>(output: &str) -> String {
        match parse::<T>(output.as_bytes()) {
            Err(failure) => failure.to_string(),
            Ok(_) => panic!("{output} was accepted"),
        }
    }

    #[test]
    fn a_list_is_read_with_all_that_is_known() {
        let text = r#"{"instances":[
            {"id":"a","state":"running","address":"10.0.0.1:22","user":"ci","expires":5},
            {"id":"b","state":"deleting"}]}"#;
        let List(entries) = parse(text.as_bytes()).expect("fine");
        assert_eq!(entries[0].status, InstanceStatus::new("a", InstanceState::Running));
        assert_eq!(entries[0].login.address.as_deref(), Some("10.0.0.1:22"));
        assert_eq!(entries.iter().map(Entry::is_alive).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn complaints_say_where_and_quote_no_value() {
        for (text, part) in [
            ("", "nothing was printed"),
            ("pod/x created", "line 1"),
            ("{} {}", "missing field `instances`"),
            (r#"{"instances":[]} trailing"#, "trailing characters"),
            (r#"{"instances":{}}"#, "expected a sequence"),
            (r#"{"instances":[{"state":"running"}]}"#, "instances[0]: missing field `id`"),
            (r#"{"instances":[{"id":"a","state":"up"}]}"#, "state must be creating"),
            (r#"{"instances":[{"id":"","state":"running"}]}"#, "an id must have"),
            (r#"{"instances":[{"id":"a","state":"running","adress":"x"}]}"#, "`adress`"),
            (r#"{"instances":[{"id":"a","state":"running","port":"hunter22"}]}"#, "expected u16"),
            (
                r#"{"instances":[{"id":"a","state":"running"},{"id":"a","state":"running"}]}"#,
                "listed twice",
            ),
        ] {
            let complaint = complaint::<List>(text);
            assert!(complaint.contains(part), "{text}: {complaint}");
            assert!(!complaint.contains("hunter") && !complaint.contains('\n'), "{complaint}");
        }
        let complaint = complaint::<Login>(r#"{"password":["hunter22"]}"#);
        assert!(complaint.contains("expected a string"), "{complaint}");
    }

    #[test]
    fn what_was_accepted_stands_under_the_operations_key() {
        let read = |text: &str| {
            let answer = parse(text.as_bytes()).expect("an object");
            Accepted::read(answer, "created").map_err(|failure| failure.to_string())
        };
        let some = read(r#"{"created":["a"],"error":"quota"}"#).expect("partial");
        assert_eq!((some.instances, some.error), (vec!["a".into()], Some("quota".into())));
        for (text, part) in [
            (r#"{"deleted":["a"]}"#, "missing field `created`"),
            (r#"{"created":["a"],"deleted":[]}"#, "unknown field `deleted`"),
            (r#"{"created":"hunter22"}"#, "expected a sequence"),
            (r#"{"created":["a\n"]}"#, "control characters"),
            (r#"{"created":[],"error":["hunter22"]}"#, "expected a string"),
        ] {
            let complaint = read(text).expect_err(text);
            assert!(complaint.contains(part) && !complaint.contains("hunter"), "{complaint}");
        }
    }
}
