//! What a plugin prints: the handshake line, and log lines for the rest of its life.
//!
//! Both pipes are drained until they end, whatever comes: a full pipe would stop the
//! plugin. Memory is bounded by a line and by the tail kept for error messages.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tracing::Level;

use crate::hclog;

/// Longest line that is looked at as one; the rest comes as further lines. go-plugin
/// reads with a buffer of the same size.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// How much of stderr is kept for error messages: a Go panic with its goroutines.
const TAIL_BYTES: usize = 64 * 1024;
/// How many lines of it an error shows, and how many characters of each.
const SHOWN_LINES: usize = 8;
const SHOWN_CHARS: usize = 300;

/// The end of a plugin's stderr.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self::of(TAIL_BYTES)
    }
}

impl Tail {
    /// Keeps so many bytes.
    pub(super) fn of(limit: usize) -> Self {
        Self { kept: Arc::default(), limit }
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(self.limit)..]);
        let surplus = tail.len().saturating_sub(self.limit);
        tail.drain(..surplus);
    }

    /// All that is kept.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The last few lines as text; of a Go panic the first, which say what it was.
    pub(super) fn text(&self) -> String {
        let tail = self.bytes();
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.len().saturating_sub(SHOWN_LINES);
        let panic = lines.iter().rposition(|line| hclog::begins_panic(line));
        let start = panic.map_or(last, |panic| panic.min(last));
        let shown = lines[start..].iter().take(SHOWN_LINES).map(|line| cut(line));
        shown.collect::<Vec<_>>().join("\n")
    }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Reads the first line. `Err` holds what came if the stream ended, or the line grew
/// beyond [`MAX_LINE_BYTES`], before a newline.
pub(super) struct FirstLine {
    pub(super) bytes: Vec<u8>,
}

impl FirstLine {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Reads on; resolves with the line's end, `None` for the stream's end. Cancel-safe.
    pub(super) async fn read(&mut self, stdout: &mut (impl AsyncRead + Unpin)) -> Option<usize> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                return Some(end);
            }
            if self.bytes.len() >= MAX_LINE_BYTES {
                return Some(MAX_LINE_BYTES);
            }
            match stdout.read_buf(&mut self.bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// Throws away what a plugin prints on stdout after its handshake.
pub(super) async fn discard(mut stdout: impl AsyncRead + Unpin) {
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
}

/// Keeps what a plugin prints on stdout after its handshake.
pub(super) async fn keep(mut stdout: impl AsyncRead + Unpin, tail: Tail) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stdout.read_buf(&mut bytes).await {
        tail.push(&bytes);
        bytes.clear();
    }
}

/// Forwards stderr to the log, line by line, until it ends.
pub(super) async fn forward(mut stderr: impl AsyncRead + Unpin, plugin: Arc<str>, tail: Tail) {
    let mut reader = hclog::Reader::default();
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let before = pending.len();
        match stderr.read_buf(&mut pending).await {
            Ok(0) | Err(_) => break,
            Ok(_) => tail.push(&pending[before..]),
        }
        let mut start = 0;
        while let Some(length) = pending[start..].iter().position(|byte| *byte == b'\n') {
            log(&plugin, &reader.read(&pending[start..start + length]));
            start += length + 1;
        }
        pending.drain(..start);
        if pending.len() >= MAX_LINE_BYTES {
            log(&plugin, &reader.read(&pending));
            pending.clear();
        }
    }
    if !pending.is_empty() {
        log(&plugin, &reader.read(&pending));
    }
}

fn log(plugin: &str, line: &hclog::Line) {
    let hclog::Line { level, message, fields } = line;
    macro_rules! emit {
        ($level:expr) => {
            if fields.is_empty() {
                tracing::event!(target: "plugin", $level, plugin, "{message}")
            } else {
                tracing::event!(target: "plugin", $level, plugin, fields, "{message}")
            }
        };
    }
    match *level {
        Level::ERROR => emit!(Level::ERROR),
        Level::WARN => emit!(Level::WARN),
        Level::INFO => emit!(Level::INFO),
        Level::DEBUG => emit!(Level::DEBUG),
        _ => emit!(Level::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_without_a_newline_is_bounded() {
        let tail = Tail::default();
        let flood = vec![b'x'; 10 * MAX_LINE_BYTES];
        forward(flood.as_slice(), "p".into(), tail.clone()).await;
        assert_eq!(tail.bytes().len(), TAIL_BYTES);
        assert_eq!(tail.text().chars().count(), SHOWN_CHARS + 1);
    }

    #[tokio::test]
    async fn the_first_line_may_come_in_pieces() {
        let (mut theirs, mut ours) = tokio::io::duplex(3);
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            theirs.write_all(b"1|0|unix\nmore").await.expect("reader is there");
        });
        let mut line = FirstLine::new();
        assert_eq!(line.read(&mut ours).await, Some(8));
    }
}
