//! Pure. YAML text to a tree in which every node knows its place in the file.
//!
//! Hides the event parser. Aliases are resolved by sharing, merge keys (`<<`) as Ruby's Psych
//! does it: in the order of the file, so a merge after a key overrides that key. A tree whose
//! expansion would be absurdly large is refused, so walking it is always cheap. Comments are
//! absent; duplicate keys are findings.

use std::{collections::BTreeMap, rc::Rc};

use serde_saphyr::granit_parser::{
    self, BorrowedInput, Event, Marker, Parser, ScalarStyle, ScanError, Tag,
};

use super::{
    diagnostic::{Findings, Span, quoted},
    scalar::{self, Scalar},
};

/// Nesting allowed in the file; GitLab's own schema needs less than ten.
const NESTING_LIMIT: usize = 64;
/// Nodes the tree may have once all aliases are expanded.
const EXPANSION_LIMIT: u64 = 500_000;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
    weight: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Date,
    Text(Rc<str>),
    List(Rc<[Node]>),
    Map(Rc<[Entry]>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Node,
    pub(super) value: Node,
}

impl Node {
    /// What kind of thing this is, for "expected a list, found …".
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Date => "a date",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Node]> {
        if let Value::List(items) = &self.value { Some(items) } else { None }
    }

    pub(super) fn map(&self) -> Option<&[Entry]> {
        if let Value::Map(entries) = &self.value { Some(entries) } else { None }
    }

    /// The value under `key`, when this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.map()?.iter().find(|entry| entry.key.text() == Some(key))?;
        Some(&entry.value)
    }
}

/// The file's one document. Syntax errors, unknown tags and duplicate keys become findings;
/// `None` when there is nothing to go on with.
pub(super) fn parse(findings: &mut Findings<'_>) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: NESTING_LIMIT,
        block_nesting_limit: NESTING_LIMIT,
    };
    let parser = Parser::new_from_str_with_options(findings.source.text(), options);
    let mut builder = Builder { parser, findings, anchors: BTreeMap::new() };
    match builder.document() {
        Ok(root) => root,
        Err(Stop::Syntax(error)) => {
            syntax_error(findings, &error);
            None
        }
        Err(Stop::Reported) => None,
    }
}

enum Stop {
    Syntax(ScanError),
    Reported,
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self::Syntax(error)
    }
}

struct Builder<'f, 's, 'input, I: BorrowedInput<'input>> {
    parser: Parser<'input, I>,
    findings: &'f mut Findings<'s>,
    anchors: BTreeMap<usize, Node>,
}

impl<'input, I: BorrowedInput<'input>> Builder<'_, '_, 'input, I> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        while let Some(next) = self.parser.next() {
            let (event, span) = next?;
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let hint = "`spec` headers and several documents are not supported yet";
                    let start = offset(&span.start);
                    let place = Span { start, end: self.findings.source.line_end(start) };
                    self.findings.error(place, "a second YAML document", Some(hint.into()));
                    return Err(Stop::Reported);
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, span)?),
            }
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'input>, span: granit_parser::Span) -> Result<Node, Stop> {
        let start = offset(&span.start);
        match event {
            Event::Alias(anchor) => self.alias(anchor, Span { start, end: offset(&span.end) }),
            Event::Scalar(text, style, anchor, tag) => {
                let end = offset(&span.end);
                let span = Span { start, end: end.min(self.findings.source.line_end(start)) };
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = if plain {
                    scalar_value(&text)
                } else {
                    self.tag(tag.as_deref(), span)?;
                    Value::Text(text.as_ref().into())
                };
                Ok(self.anchored(anchor, Node { span, value, weight: 1 }))
            }
            Event::SequenceStart(_, anchor, tag) => {
                let span = Span { start, end: self.findings.source.line_end(start) };
                self.tag(tag.as_deref(), span)?;
                let items = self.items()?;
                let weight = total(items.iter());
                self.affordable(weight, span)?;
                Ok(self.anchored(anchor, Node { span, value: Value::List(items.into()), weight }))
            }
            Event::MappingStart(_, anchor, tag) => {
                let span = Span { start, end: self.findings.source.line_end(start) };
                self.tag(tag.as_deref(), span)?;
                let entries = self.entries()?;
                let weight = total(entries.iter().flat_map(|entry| [&entry.key, &entry.value]));
                self.affordable(weight, span)?;
                Ok(self.anchored(anchor, Node { span, value: Value::Map(entries.into()), weight }))
            }
            _ => Err(Stop::Reported),
        }
    }

    fn items(&mut self) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        while let Some(next) = self.parser.next() {
            match next? {
                (Event::SequenceEnd, _) => break,
                (event, span) => items.push(self.node(event, span)?),
            }
        }
        Ok(items)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Stop> {
        let mut entries = Entries::default();
        while let Some(next) = self.parser.next() {
            let (event, span) = next?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span)?;
            let Some(next) = self.parser.next() else { break };
            let (event, span) = next?;
            let value = self.node(event, span)?;
            if key.text() == Some("<<") {
                self.merge(&mut entries, &key, &value);
            } else if let Some(first) = entries.own(&key) {
                let hint = format!("its first place is line {}", self.line(first));
                let name = quoted(self.findings.source.slice(key.span));
                self.findings.error(key.span, format!("{name} is there twice"), Some(hint));
            } else {
                entries.insert(Entry { key, value }, true);
            }
        }
        Ok(entries.list)
    }

    fn merge(&mut self, entries: &mut Entries, key: &Node, value: &Node) {
        let maps: Vec<&Node> = match &value.value {
            Value::Map(_) => vec![value],
            Value::List(items) => items.iter().rev().collect(),
            _ => Vec::new(),
        };
        if maps.is_empty() || maps.iter().any(|map| map.map().is_none()) {
            let message = format!("`<<` merges mappings, found {}", value.kind());
            let hint = "write `<<: *name`, or `<<: [*one, *two]`";
            self.findings.error(key.span, message, Some(hint.into()));
            return;
        }
        for entry in maps.into_iter().filter_map(Node::map).flatten() {
            if entries.own(&entry.key).is_some() {
                let name = quoted(self.findings.source.slice(entry.key.span));
                let line = self.line(key.span);
                self.findings.note(format!(
                    "line {line}: `<<` comes after {name}, so the merged {name} wins, \
                     as in GitLab; put `<<` first to keep your own"
                ));
            }
            entries.insert(entry.clone(), false);
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        if let Some(node) = self.anchors.get(&anchor) {
            return Ok(node.clone());
        }
        self.findings.error(span, "this alias stands inside the node it refers to", None);
        Err(Stop::Reported)
    }

    fn anchored(&mut self, anchor: usize, node: Node) -> Node {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }

    /// Only `!!str` and the core tags of collections are known; others stop the file.
    fn tag(&mut self, tag: Option<&Tag>, span: Span) -> Result<(), Stop> {
        let Some(tag) = tag else { return Ok(()) };
        if tag.core_suffix().is_some_and(|core| matches!(core, "str" | "map" | "seq")) {
            return Ok(());
        }
        let name = tag.original();
        let (message, hint) = if name == "!reference" {
            let hint = "use a YAML anchor: `.setup: &setup [..]` and `script: [*setup, ..]`";
            ("`!reference` is not supported yet".to_string(), Some(hint.to_string()))
        } else {
            (format!("the tag {} is not supported", quoted(&name)), None)
        };
        self.findings.error(span, message, hint);
        if name == "!reference" { Ok(()) } else { Err(Stop::Reported) }
    }

    fn affordable(&mut self, weight: u64, span: Span) -> Result<(), Stop> {
        if weight <= EXPANSION_LIMIT {
            return Ok(());
        }
        let message = format!("aliases expand to more than {EXPANSION_LIMIT} nodes");
        self.findings.error(span, message, None);
        Err(Stop::Reported)
    }

    fn line(&self, span: Span) -> usize {
        self.findings.source.position(span.start).line
    }
}

/// The entries of a mapping in the making; keys written out and keys merged in are told apart.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    index: BTreeMap<String, (usize, bool)>,
}

impl Entries {
    /// Where the key was written out before, if it was.
    fn own(&self, key: &Node) -> Option<Span> {
        let (index, own) = self.index.get(&identity(key))?;
        own.then(|| self.list[*index].key.span)
    }

    fn insert(&mut self, entry: Entry, own: bool) {
        match self.index.get_mut(&identity(&entry.key)) {
            Some((index, is_own)) => {
                *is_own |= own;
                self.list[*index] = entry;
            }
            None => {
                self.index.insert(identity(&entry.key), (self.list.len(), own));
                self.list.push(entry);
            }
        }
    }
}

fn identity(key: &Node) -> String {
    match &key.value {
        Value::Text(text) => format!("text {text}"),
        Value::List(_) | Value::Map(_) => format!("collection at {}", key.span.start),
        other => format!("{other:?}"),
    }
}

fn scalar_value(text: &str) -> Value {
    match scalar::resolve(text) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Integer(value) => Value::Integer(value),
        Scalar::Float(value) => Value::Float(value),
        Scalar::Date => Value::Date,
        Scalar::Text => Value::Text(text.into()),
    }
}

fn total<'a>(nodes: impl Iterator<Item = &'a Node>) -> u64 {
    nodes.fold(1, |sum, node| sum.saturating_add(node.weight))
}

fn offset(marker: &Marker) -> usize {
    marker.byte_offset().unwrap_or(0)
}

fn syntax_error(findings: &mut Findings<'_>, error: &ScanError) {
    let text = findings.source.text();
    let start = offset(error.marker()).min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |index| index + 1);
    let indent = &text[line_start..findings.source.line_end(line_start)];
    let indent = &indent[..indent.len() - indent.trim_start().len()];
    let hint = if indent.contains('\t') {
        Some("YAML allows no tabs in the indentation: use spaces")
    } else if error.info().contains("mapping values are not allowed") {
        Some("check the indentation, and quote text that contains `: `")
    } else {
        None
    };
    let end = text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
    let message = format!("not valid YAML: {}", error.info());
    findings.error(Span { start, end }, message, hint.map(Into::into));
}
