//! What is wrong with a configuration, shown with file, line, key and remedy.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The configuration is refused.
    Error,
    /// It is used, and the operator should know.
    Warning,
}

/// One thing that is wrong or odd.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Path of the key, such as `runners[0].autoscaler.policy[1].periods`.
    pub(crate) key: String,
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn error(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, key, message.into(), hint.into());
    }

    pub(crate) fn warn(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, key, message.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, key: &str, message: String, hint: String) {
        self.0.push(Finding { severity, key: key.to_owned(), message, hint });
    }
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its content is wrong. Every fault is shown at once.
    Faulty {
        /// Each one ready to be shown.
        errors: Vec<String>,
        /// What is odd beside that.
        warnings: Vec<String>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(
                f,
                "error: cannot read the configuration {}: {source}\n\
                 help: name the file with --config, or create it",
                path.display()
            ),
            Self::Faulty { errors, warnings } => {
                for text in warnings.iter().chain(errors) {
                    writeln!(f, "{text}\n")?;
                }
                let count = errors.len();
                let faults = if count == 1 { "1 error" } else { &format!("{count} errors") };
                write!(f, "the configuration is not used: {faults}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Shows a message at its place in the text.
pub(crate) fn render(
    severity: Severity,
    (path, text): (&str, &str),
    span: Option<Range<usize>>,
    message: &str,
    hint: &str,
) -> String {
    let level = match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group =
        level.primary_title(message).elements(Vec::<annotate_snippets::Element<'_>>::new());
    match span {
        Some(span) => {
            let snippet = Snippet::source(text)
                .path(path)
                .fold(true)
                .annotation(AnnotationKind::Primary.span(span));
            group = group.element(snippet);
        }
        None => group = group.element(annotate_snippets::Origin::path(path)),
    }
    if !hint.is_empty() {
        group = group.element(Level::HELP.message(hint));
    }
    Renderer::plain().term_width(80).render(&[group])
}
