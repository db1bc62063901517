//! What scripts say on stderr: line by line in the plugin's log, bounded, without secrets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is kept of a line while it is looked through for secrets.
const LINE_LIMIT_BYTES: usize = 64 * 1024;
/// What is shown of it.
const SHOWN_LIMIT_BYTES: usize = 2 * 1024;
/// Lines of one run that are shown.
const LINES_LIMIT: usize = 500;
/// Secrets of instances that are remembered; the latest ones.
const RECENT_LIMIT: usize = 2000;
const MASK: &str = "[masked]";
/// Shorter lines of a key are no secrets.
const KEY_LINE_MINIMUM_BYTES: usize = 16;

/// Texts that must be in no log and no message. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    texts: Arc<Mutex<Texts>>,
}

#[derive(Default)]
struct Texts {
    /// The operator's.
    lasting: Vec<String>,
    /// Those of instances, which come and go.
    recent: VecDeque<String>,
}

impl Secrets {
    /// Hides a secret of the operator's for good.
    pub(crate) fn add(&self, secret: &str) {
        self.texts().lasting.extend(parts(secret).map(str::to_owned));
    }

    /// Hides a secret of an instance, until many others have come.
    pub(crate) fn add_recent(&self, secret: &str) {
        let mut texts = self.texts();
        for part in parts(secret) {
            if texts.recent.iter().any(|known| known == part) {
                continue;
            }
            if texts.recent.len() == RECENT_LIMIT {
                texts.recent.pop_front();
            }
            texts.recent.push_back(part.to_owned());
        }
    }

    fn hide(&self, text: &str) -> String {
        let texts = self.texts();
        let all = texts.lasting.iter().chain(&texts.recent);
        let mut found: Vec<&String> = all.filter(|secret| text.contains(secret.as_str())).collect();
        // The longest first: one secret may be a part of another.
        found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        found.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A password or token is one part; of a key each line is, but its frame.
fn parts(secret: &str) -> impl Iterator<Item = &str> {
    let is_key = secret.trim().contains('\n');
    secret.lines().map(str::trim).filter(move |line| {
        let is_frame = line.starts_with("-----") || line.len() < KEY_LINE_MINIMUM_BYTES;
        !line.is_empty() && (!is_key || !is_frame)
    })
}

/// The listener of one run.
pub(crate) struct Speech {
    operation: &'static str,
    secrets: Secrets,
    line: Vec<u8>,
    lines: usize,
    last: Option<String>,
}

impl Speech {
    pub(crate) fn new(operation: &'static str, secrets: Secrets) -> Self {
        Self { operation, secrets, line: Vec::new(), lines: 0, last: None }
    }

    /// The last line that was not empty.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Listens until nobody holds the other end.
    pub(crate) async fn listen(&mut self, mut stderr: impl AsyncRead + Unpin) {
        let mut chunk = [0; 4096];
        loop {
            match stderr.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => self.hear(&chunk[..n]),
            }
        }
        self.end_line();
    }

    fn hear(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE_LIMIT_BYTES - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < part.len() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = self.secrets.hide(text.trim());
        if text.is_empty() {
            return;
        }
        let text = shown(&text);
        self.lines += 1;
        if self.lines <= LINES_LIMIT {
            tracing::info!(operation = self.operation, line = text, "script says");
        } else if self.lines == LINES_LIMIT + 1 {
            tracing::warn!(operation = self.operation, "script says more than is shown");
        }
        self.last = Some(text);
    }
}

/// The beginning, in one line.
fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN_LIMIT_BYTES);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_of(secrets: &[&str], chunks: &[&str]) -> Option<String> {
        let known = Secrets::default();
        secrets.iter().for_each(|secret| known.add(secret));
        let mut speech = Speech::new("list", known);
        chunks.iter().for_each(|chunk| speech.hear(chunk.as_bytes()));
        speech.end_line();
        speech.last().map(str::to_owned)
    }

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        assert_eq!(last_of(&[], &["a\nquo", "ta\n\n  \n"]).as_deref(), Some("quota"));
        assert_eq!(last_of(&[], &["no end"]).as_deref(), Some("no end"));
        assert_eq!(last_of(&[], &["\n"]), None);
        assert_eq!(last_of(&[], &["a\tb\r\n"]).as_deref(), Some("a b"));
    }

    #[test]
    fn secrets_are_masked_even_across_reads_and_at_the_limit() {
        let said = last_of(&["hunter22"], &["+ login hun", "ter22 done"]);
        assert_eq!(said.as_deref(), Some("+ login [masked] done"));
        let key = "-----BEGIN KEY-----\nAAAABBBBCCCCDDDDEEEE\n-----END KEY-----\n";
        let said = last_of(&[key], &["key AAAABBBBCCCCDDDDEEEE"]);
        assert_eq!(said.as_deref(), Some("key [masked]"));
        let before = "x".repeat(SHOWN_LIMIT_BYTES - 4);
        let said = last_of(&["hunter22"], &[&before, "hunter22"]).expect("a line");
        assert!(said.len() <= SHOWN_LIMIT_BYTES && !said.contains("hunt"), "{said}");
        assert_eq!(last_of(&["abcdefgh", "abcdefghij"], &["abcdefghij"]).as_deref(), Some(MASK));
    }
}
