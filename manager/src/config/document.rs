//! The TOML text: parsed once with all its places, read into the mirror of GitLab's keys.
//!
//! Go's TOML matches keys in any case, so keys are folded to lower case before they are
//! read, in place: a place in the folded text is the same in the file.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::faults::{self, Fault};
use super::file::File;
use super::report::{ConfigError, Findings, Severity, render};

/// Tables whose keys are the user's own: their case is kept.
const FREE_TABLES: [&str; 12] = [
    "plugin_config",
    "nesting_config",
    "labels",
    "feature_flags",
    "container_labels",
    "sysctls",
    "tmpfs",
    "services_tmpfs",
    "services_devices",
    "ulimit",
    "log_options",
    "volume_driver_ops",
];

/// Tables of executors and features that GitLab Runner knows and this manager does not
/// use. Their keys are not looked at.
const NOT_USED: [&str; 13] = [
    "session_server",
    "kubernetes",
    "custom",
    "ssh",
    "parallels",
    "virtualbox",
    "machine",
    "monitoring",
    "experimental",
    "cache",
    "instance",
    "vm_isolation",
    "state_storage",
];

pub(crate) struct Document {
    path: String,
    /// The text as it may be shown.
    shown: String,
    folded: String,
}

impl Document {
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut document = Self {
            path: path.display().to_string(),
            shown: faults::without_secrets(text),
            folded: String::new(),
        };
        match DeTable::parse(text) {
            Ok(table) => document.folded = fold_keys(text, table.get_ref()),
            Err(error) => {
                return Err(document.refuse(error.span(), &faults::syntax(error.message())));
            }
        }
        Ok(document)
    }

    fn refuse(&self, span: Option<Range<usize>>, fault: &Fault) -> ConfigError {
        let place = (self.path.as_str(), self.shown.as_str());
        let text = render(Severity::Error, place, span, &fault.message, &fault.hint);
        ConfigError::Faulty { errors: vec![text], warnings: Vec::new() }
    }

    /// The keys, and a finding for each that is unknown.
    pub(crate) fn read(&self) -> Result<(File, Findings), ConfigError> {
        let mut findings = Findings::default();
        let mut unknown = |path: serde_ignored::Path<'_>| {
            let key = key_path(&path);
            let last = key.rsplit('.').next().unwrap_or(&key).to_owned();
            if !key
                .split('.')
                .any(|part| NOT_USED.contains(&part.split('[').next().unwrap_or(part)))
            {
                let message = format!("the key {last:?} is unknown, and ignored");
                findings.warn(&key, message, "is it misspelled, or in the wrong table?");
            }
        };
        let result = toml::de::Deserializer::parse(&self.folded)
            .and_then(|decoder| serde_ignored::deserialize(decoder, &mut unknown));
        match result {
            Ok(file) => {
                findings.0.retain(|finding| !is_without_use(&file, &finding.key));
                Ok((file, findings))
            }
            Err(error) => {
                let root = DeTable::parse(&self.folded).ok();
                let root = root.as_ref().map(toml::Spanned::get_ref);
                Err(self.refuse(error.span(), &faults::value(root, error.span(), error.message())))
            }
        }
    }

    /// Findings as texts: errors and warnings.
    pub(crate) fn render(&self, findings: Findings) -> (Vec<String>, Vec<String>) {
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for finding in findings.0 {
            let span = self.place(&finding.key);
            let message = if finding.key.is_empty() {
                finding.message
            } else {
                format!("{}: {}", finding.key, finding.message)
            };
            let place = (self.path.as_str(), self.shown.as_str());
            let text = render(finding.severity, place, span, &message, &finding.hint);
            match finding.severity {
                Severity::Error => errors.push(text),
                Severity::Warning => warnings.push(text),
            }
        }
        (errors, warnings)
    }

    /// Where a key is; where it is absent, the nearest table around it.
    fn place(&self, key: &str) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.folded).ok()?;
        let mut table = root.get_ref();
        let mut span = None;
        for part in key.split('.').filter(|part| !part.is_empty()) {
            let (name, index) = match part.split_once('[') {
                Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let Some((found, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
                break;
            };
            let item = match (value.get_ref(), index) {
                (DeValue::Array(items), Some(index)) => items.get(index)?,
                _ => value,
            };
            match item.get_ref() {
                DeValue::Table(inner) => {
                    let whole = if index.is_some() { item.span() } else { found.span() };
                    span = Some(first_line(&self.folded, whole));
                    table = inner;
                }
                DeValue::Array(_) => return Some(found.span()),
                _ => return Some(found.span().start..item.span().end),
            }
        }
        span
    }
}

/// Whether a key is in `[runners.docker]` of an entry that runs no containers: GitLab Runner
/// does not look at it there.
fn is_without_use(file: &File, key: &str) -> bool {
    file.runners.iter().enumerate().any(|(index, entry)| {
        !entry.runs_containers() && key.starts_with(&format!("runners[{index}].docker."))
    })
}

/// A table's place is all of its text; its first line is enough to show.
fn first_line(text: &str, span: Range<usize>) -> Range<usize> {
    let shown = text.get(span.clone()).unwrap_or_default();
    let length = shown.find('\n').unwrap_or(shown.len());
    span.start..span.start + length
}

fn fold_keys(text: &str, table: &DeTable<'_>) -> String {
    let mut spans = Vec::new();
    collect_keys(table, &mut spans);
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        bytes[span].make_ascii_lowercase();
    }
    // Only ASCII letters were changed.
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn collect_keys(table: &DeTable<'_>, spans: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        spans.push(key.span());
        let name = key.get_ref().to_ascii_lowercase();
        if !FREE_TABLES.contains(&name.as_str()) {
            collect_values(value.get_ref(), spans);
        }
    }
}

fn collect_values(value: &DeValue<'_>, spans: &mut Vec<Range<usize>>) {
    match value {
        DeValue::Table(table) => collect_keys(table, spans),
        DeValue::Array(items) => {
            for item in items {
                collect_values(item.get_ref(), spans);
            }
        }
        _ => {}
    }
}

/// `runners[0].autoscaler.plugin`.
fn key_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", key_path(parent)),
        Path::Map { parent, key } => match key_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => key_path(parent),
    }
}
