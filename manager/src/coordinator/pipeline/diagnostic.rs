//! Pure. What is wrong with a pipeline file, where, and what to do about it.
//!
//! Hides the rendering: a finding is shown with the source lines around it and a caret,
//! wrapped for a terminal of 80 columns. Findings leave here in file order and without
//! repeats, because one anchored node can be reached from many jobs.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// Width the rendering is meant for, in columns.
const WIDTH: usize = 80;
/// Width left for a hint beside five digits of a line number.
const HINT_WIDTH: usize = WIDTH - "      = help: ".len();
/// Source lines shown before and after the one that is pointed at.
const CONTEXT_LINES: usize = 1;
/// Most carets under one finding.
const CARET_LIMIT: usize = 50;
/// Longest part of a source line that is rendered, in bytes: a minified file stays readable.
const LINE_LIMIT: usize = 2000;

/// A place in the file: line and column, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Position {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
}

/// One finding. `Display` is the full rendering, several lines, without a final newline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Diagnostic {
    /// The file's name as the caller gave it.
    pub(crate) file: String,
    /// Where; absent (in JSON too) for what no line is to blame for.
    #[serde(flatten)]
    pub(crate) position: Option<Position>,
    /// What is wrong, one sentence without a full stop.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The message, the source lines with a caret, and the hint, for a terminal of 80 columns.
    pub(crate) rendering: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendering)
    }
}

/// A byte range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The file's text with an index of its lines.
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts =
            std::iter::once(0).chain(after_breaks.map(|(index, _)| index + 1)).collect();
        Self { name, text, line_starts }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start..span.end).unwrap_or("")
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        let index = self.line_index(offset);
        let start = self.line_starts[index];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        Position { line: index + 1, column: column + 1 }
    }

    /// The end of the line that `offset` is on, without its line break.
    pub(super) fn line_end(&self, offset: usize) -> usize {
        let rest = &self.text[offset.min(self.text.len())..];
        let length = rest.find('\n').unwrap_or(rest.len());
        offset + rest[..length].trim_end_matches('\r').len()
    }

    fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn render(&self, span: Span, message: &str, hint: Option<&str>) -> String {
        let index = self.line_index(span.start);
        let first = index.saturating_sub(CONTEXT_LINES);
        let from = self.line_starts[first];
        let last = self.line_starts.get(index + CONTEXT_LINES + 1);
        let to = last.map_or(self.text.len(), |start| start - 1);
        let window = &self.text[from..to.max(from)];
        if window.len() > LINE_LIMIT {
            let Position { line, column } = self.position(span.start);
            return without_lines(message, &format!("\n --> {}:{line}:{column}", self.name), hint);
        }
        let limit = self.text[span.start..].char_indices().nth(CARET_LIMIT);
        let limit = limit.map_or(self.text.len(), |(length, _)| span.start + length);
        let end = span.end.min(self.line_end(span.start)).min(limit).max(span.start);
        let caret = AnnotationKind::Primary.span(span.start - from..end - from);
        let snippet = Snippet::source(window)
            .path(self.name)
            .line_start(first + 1)
            .fold(false)
            .annotation(caret);
        let message = wrap(message, WIDTH - "error: ".len());
        let mut group = Group::with_title(Level::ERROR.primary_title(message)).element(snippet);
        if let Some(hint) = hint {
            group = group.element(Level::HELP.message(wrap(hint, HINT_WIDTH)));
        }
        printable(&Renderer::plain().term_width(WIDTH).render(&[group]))
    }
}

/// Collects findings and notes while the file is read.
pub(super) struct Findings<'a> {
    pub(super) source: Source<'a>,
    found: Vec<(usize, Diagnostic)>,
    notes: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self { source, found: Vec::new(), notes: Vec::new() }
    }

    /// Records an error at `span`.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        let message = printable(&message.into());
        let hint = hint.map(|hint| printable(&hint));
        let rendering = self.source.render(span, &message, hint.as_deref());
        let diagnostic = Diagnostic {
            file: self.source.name.to_string(),
            position: Some(self.source.position(span.start)),
            message,
            hint,
            rendering,
        };
        self.found.push((span.start, diagnostic));
    }

    /// Records an error that no line is to blame for; such errors come first.
    pub(super) fn error_without_place(&mut self, message: impl Into<String>, hint: Option<String>) {
        let message = message.into();
        let rendering = without_lines(&message, "", hint.as_deref());
        let file = self.source.name.to_string();
        self.found.push((0, Diagnostic { file, position: None, message, hint, rendering }));
    }

    /// Records something the user should know although it stops nothing.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// All findings in file order, or the notes when there are none.
    pub(super) fn into_result(mut self) -> Result<Vec<String>, Vec<Diagnostic>> {
        if self.found.is_empty() {
            return Ok(self.notes);
        }
        self.found.sort_by_key(|(offset, diagnostic)| (diagnostic.position.is_some(), *offset));
        let mut findings: Vec<_> = self.found.into_iter().map(|(_, found)| found).collect();
        findings.dedup();
        Err(findings)
    }
}

/// A name from the file in backticks, cut to a readable length, control characters escaped.
pub(super) fn quoted(name: &str) -> String {
    const LIMIT: usize = 60;
    let escaped: String = name
        .chars()
        .take(LIMIT)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    let rest = if name.chars().count() > LIMIT { "…" } else { "" };
    format!("`{escaped}{rest}`")
}

fn without_lines(message: &str, place: &str, hint: Option<&str>) -> String {
    let mut text = format!("error: {}{place}", wrap(message, WIDTH - "error: ".len()));
    if let Some(hint) = hint {
        let hint = wrap(hint, HINT_WIDTH).replace('\n', "\n          ");
        text.push_str(&format!("\n  = help: {hint}"));
    }
    text
}

/// `text` without characters that could command a terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

fn wrap(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_counts_characters() {
        let source = Source::new("f.yml", "a: b\nü: ß x\n");
        let offset = source.text().find('x').expect("is there");
        assert_eq!(source.position(offset), Position { line: 2, column: 6 });
    }

    #[test]
    fn rendering_fits_and_points() {
        let text = "build:\n  scrpt: [make]\n";
        let mut findings = Findings::new(Source::new(".gitlab-ci.yml", text));
        let hint = "a long hint that goes on and on, so that it has to be wrapped: once at least";
        findings.error(Span { start: 9, end: 14 }, "unknown keyword", Some(hint.into()));
        let found = findings.into_result().expect_err("one finding");
        let rendering = found[0].to_string();
        assert!(rendering.contains(".gitlab-ci.yml:2:3"), "{rendering}");
        assert!(rendering.contains("^^^^^"), "{rendering}");
        assert!(rendering.lines().all(|line| line.chars().count() <= WIDTH), "{rendering}");
    }

    #[test]
    fn json_has_line_and_column_at_the_top() {
        let mut findings = Findings::new(Source::new("f.yml", "a: 1\n"));
        findings.error(Span { start: 3, end: 4 }, "wrong", None);
        findings.error_without_place("no job", None);
        let found = findings.into_result().expect_err("two findings");
        let json = serde_json::to_value(&found).expect("serialises");
        assert_eq!(json[0].get("line"), None);
        assert_eq!((&json[1]["line"], &json[1]["column"]), (&1.into(), &4.into()));
    }

    #[test]
    fn quoted_escapes_and_cuts() {
        assert_eq!(quoted("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert!(quoted(&"x".repeat(300)).chars().count() < 70);
    }
}
