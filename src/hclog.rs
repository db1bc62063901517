//! Log lines in hclog's JSON, which go-plugin hosts and plugins exchange on stderr.

use serde_json::{Map, Value};
use tracing::Level;

/// One log line of a plugin.
#[derive(Clone, Debug, PartialEq)]
#[cfg(any(feature = "host", test))]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) message: String,
    /// Remaining keys, in their order, as `key=value` pairs; empty when there are none.
    pub(crate) fields: String,
}

/// Reads stderr line by line. A Go panic turns all later plain lines into errors, as
/// the stock host does it.
#[derive(Debug, Default)]
#[cfg(any(feature = "host", test))]
pub(crate) struct Reader {
    panicking: bool,
}

#[cfg(any(feature = "host", test))]
impl Reader {
    /// Reads one line without its newline. Never fails: what is not hclog is text.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Line {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches('\r');
        if let Ok(Value::Object(object)) = serde_json::from_str(text)
            && let Some(line) = from_json(object)
        {
            return line;
        }
        self.plain(text)
    }

    fn plain(&mut self, text: &str) -> Line {
        const PREFIXES: [(&str, Level); 5] = [
            ("[TRACE]", Level::TRACE),
            ("[DEBUG]", Level::DEBUG),
            ("[INFO]", Level::INFO),
            ("[WARN]", Level::WARN),
            ("[ERROR]", Level::ERROR),
        ];
        if begins_panic(text) {
            self.panicking = true;
        }
        let prefixed = PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix));
        let (level, message) = match prefixed {
            Some((prefix, level)) => (*level, text[prefix.len()..].trim_start()),
            None if self.panicking => (Level::ERROR, text),
            None => (Level::DEBUG, text),
        };
        Line { level, message: message.to_owned(), fields: String::new() }
    }
}

/// Whether this is how Go's runtime begins to tell why it ends the program.
#[cfg(any(feature = "host", test))]
pub(crate) fn begins_panic(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ")
}

/// A JSON line is hclog's if it has a level; keys of another type than text are shown
/// as they are instead of being refused.
#[cfg(any(feature = "host", test))]
fn from_json(mut object: Map<String, Value>) -> Option<Line> {
    let level = match object.remove("@level")?.as_str()? {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "info" => Level::INFO,
        "warn" => Level::WARN,
        "error" => Level::ERROR,
        _ => return None,
    };
    let message = match object.remove("@message") {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    object.remove("@timestamp");
    let pairs: Vec<String> = object
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) if !text.contains([' ', '"', '=']) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    Some(Line { level, message, fields: pairs.join(" ") })
}

/// Writes one event as hclog JSON with a newline. `@` keys are text, the timestamp has
/// six fraction digits: anything else would upset the stock host.
#[cfg(any(feature = "serve", test))]
pub(crate) fn render(
    now: jiff::Timestamp,
    level: Level,
    module: &str,
    fields: Map<String, Value>,
) -> String {
    let mut object = Map::new();
    let mut text = |key: &str, value: String| object.insert(key.into(), Value::String(value));
    text("@level", level.as_str().to_ascii_lowercase());
    text("@module", module.into());
    text("@timestamp", format!("{now:.6}"));
    let mut message = String::new();
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("message", Value::String(words)) => message = words,
            (_, value) => {
                object.insert(key, value);
            }
        }
    }
    object.insert("@message".into(), Value::String(message));
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Line {
        Reader::default().read(text.as_bytes())
    }

    #[test]
    fn a_stock_line_keeps_level_message_and_fields() {
        let line = read(
            r#"{"@level":"debug","@message":"plugin address","@timestamp":"2026-11-22T03:54:51.166735Z","address":"/tmp/p","network":"unix"}"#,
        );
        assert_eq!(line.level, Level::DEBUG);
        assert_eq!(line.message, "plugin address");
        assert_eq!(line.fields, "address=/tmp/p network=unix");
    }

    #[test]
    fn odd_lines_lose_nothing() {
        assert_eq!(read(r#"{"@level":"info","@message":7,"a":"b c"}"#).message, "7");
        assert_eq!(read(r#"{"@level":"info","@message":"m","a":"b c"}"#).fields, r#"a="b c""#);
        let without_level = read(r#"{"a":1}"#);
        assert_eq!(
            (without_level.level, without_level.message.as_str()),
            (Level::DEBUG, r#"{"a":1}"#)
        );
        assert_eq!(read("[WARN]  disk").message, "disk");
        assert_eq!(read("[WARN]  disk").level, Level::WARN);
        assert_eq!(Reader::default().read(b"\xff\xfe").message, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_panic_makes_what_follows_an_error() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(b"goroutine 1").level, Level::DEBUG);
        assert_eq!(reader.read(b"panic: nil").level, Level::ERROR);
        assert_eq!(reader.read(b"goroutine 1").level, Level::ERROR);
    }

    #[test]
    fn our_line_is_what_stock_hosts_read() {
        let now = "2026-11-22T03:54:51.1Z".parse().expect("a timestamp");
        let fields = serde_json::json!({"message": "created", "instance": "i-1", "n": 2});
        let Value::Object(fields) = fields else { unreachable!("an object") };
        let line = render(now, Level::INFO, "local", fields);
        assert!(line.ends_with('\n'));
        assert!(line.contains(r#""@timestamp":"2026-11-22T03:54:51.100000Z""#), "{line}");
        let read = read(line.trim_end());
        assert_eq!(read.message, "created");
        assert_eq!(read.fields, "@module=local instance=i-1 n=2");
    }
}
