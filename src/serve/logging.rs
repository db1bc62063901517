//! The plugin's `tracing` events as hclog JSON lines on stderr, where hosts read them.

use std::fmt;
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::hclog;

/// Sends all events to stderr; the host filters by level. Libraries below `warn` are
/// left out: their traces would drown the plugin's own.
pub(super) fn init(module: &'static str) {
    // A second call can only come from a test that set a subscriber itself.
    let _ = tracing_subscriber::registry().with(HclogLayer { module }).try_init();
}

struct HclogLayer {
    module: &'static str,
}

impl<S: Subscriber> Layer<S> for HclogLayer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        const LIBRARIES: [&str; 7] =
            ["h2", "hyper", "hyper_util", "tonic", "tower", "russh", "mio"];
        let root = metadata.target().split("::").next().unwrap_or_default();
        let is_library = LIBRARIES.contains(&root) || root.starts_with("aws_");
        *metadata.level() <= tracing::Level::WARN || !is_library
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let line =
            hclog::render(jiff::Timestamp::now(), *event.metadata().level(), self.module, fields.0);
        // Where stderr is gone there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), Value::String(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}
