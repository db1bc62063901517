//! Replaces secret phrases by `[MASKED]`, wherever writes are split.
//!
//! An automaton with failure links (Aho-Corasick) follows all phrases at once. It holds
//! back no more than the longest ending that could still become a phrase, so what a
//! script prints is seen at once unless it begins like a secret. Matches that overlap
//! are masked as one: no part of any phrase is ever shown.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const MASKED: &[u8] = b"[MASKED]";
const ROOT: usize = 0;

/// All phrases, ready to be followed byte by byte.
#[derive(Debug)]
pub(super) struct Phrases {
    nodes: Vec<Node>,
    /// Bytes that begin a phrase: all others need no look at the nodes.
    starts: [bool; 256],
}

#[derive(Debug, Default)]
struct Node {
    next: BTreeMap<u8, usize>,
    fail: usize,
    /// Bytes from the root to here.
    depth: usize,
    /// Length of the longest phrase that ends here; 0 if none.
    phrase: usize,
}

impl Phrases {
    /// Empty phrases are ignored.
    pub(super) fn new<'a>(phrases: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all = Self { nodes: vec![Node::default()], starts: [false; 256] };
        for phrase in phrases {
            all.insert(phrase);
        }
        all.link();
        all
    }

    fn insert(&mut self, phrase: &[u8]) {
        let mut at = ROOT;
        for byte in phrase {
            let depth = self.nodes[at].depth + 1;
            at = match self.nodes[at].next.get(byte) {
                Some(next) => *next,
                None => {
                    self.nodes.push(Node { depth, ..Node::default() });
                    let new = self.nodes.len() - 1;
                    self.nodes[at].next.insert(*byte, new);
                    new
                }
            };
        }
        self.nodes[at].phrase = phrase.len();
        if let Some(first) = phrase.first() {
            self.starts[usize::from(*first)] = true;
        }
    }

    /// Gives each node, breadth first, the node of its longest proper ending.
    fn link(&mut self) {
        let mut queue = VecDeque::from([ROOT]);
        while let Some(at) = queue.pop_front() {
            let children: Vec<(u8, usize)> =
                self.nodes[at].next.iter().map(|(byte, child)| (*byte, *child)).collect();
            for (byte, child) in children {
                let fail = if at == ROOT { ROOT } else { self.step(self.nodes[at].fail, byte) };
                self.nodes[child].fail = fail;
                if self.nodes[child].phrase == 0 {
                    self.nodes[child].phrase = self.nodes[fail].phrase;
                }
                queue.push_back(child);
            }
        }
    }

    /// The node after one more byte.
    pub(super) fn step(&self, mut at: usize, byte: u8) -> usize {
        loop {
            if at == ROOT && !self.starts[usize::from(byte)] {
                return ROOT;
            }
            if let Some(next) = self.nodes[at].next.get(&byte) {
                return *next;
            }
            if at == ROOT {
                return ROOT;
            }
            at = self.nodes[at].fail;
        }
    }

    /// Length of the longest phrase that ends at this node; 0 if none.
    pub(super) fn ends(&self, at: usize) -> usize {
        self.nodes[at].phrase
    }
}

/// Masks one stream.
#[derive(Clone, Debug)]
pub(super) struct Masker {
    phrases: Arc<Phrases>,
    at: usize,
    /// Bytes whose fate is open.
    pending: Vec<u8>,
    /// Masked ranges of `pending`, ascending, never overlapping.
    masked: VecDeque<(usize, usize)>,
    /// The first masked range goes on from one that was already shown as `[MASKED]`.
    shown: bool,
}

impl Masker {
    pub(super) fn new<'a>(phrases: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self {
            phrases: Arc::new(Phrases::new(phrases)),
            at: ROOT,
            pending: Vec::new(),
            masked: VecDeque::new(),
            shown: false,
        }
    }

    /// Takes bytes, appends to `out` what is decided.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.pending.push(*byte);
            self.at = self.phrases.step(self.at, *byte);
            let length = self.phrases.ends(self.at);
            if length > 0 {
                self.mask(self.pending.len() - length, self.pending.len());
            }
        }
        let open = self.phrases.nodes[self.at].depth;
        self.release(self.pending.len() - open, out);
    }

    /// Ends the stream: what was held back was no phrase.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.release(self.pending.len(), out);
        self.at = ROOT;
    }

    fn mask(&mut self, mut start: usize, end: usize) {
        while let Some((last_start, last_end)) = self.masked.back().copied() {
            if last_end <= start {
                break;
            }
            start = start.min(last_start);
            self.masked.pop_back();
        }
        self.masked.push_back((start, end));
    }

    /// Appends everything before `until`, where no phrase can begin any more.
    fn release(&mut self, until: usize, out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some((start, end)) = self.masked.front().copied() {
            if start >= until {
                break;
            }
            out.extend_from_slice(&self.pending[at..start]);
            if !std::mem::take(&mut self.shown) {
                out.extend_from_slice(MASKED);
            }
            self.masked.pop_front();
            at = end.min(until);
            if end > until {
                // A phrase that overlaps this one may still come.
                self.masked.push_front((until, end));
                self.shown = true;
                break;
            }
        }
        out.extend_from_slice(&self.pending[at..until]);
        self.pending.drain(..until);
        for (start, end) in &mut self.masked {
            *start -= until;
            *end -= until;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(phrases: &[&[u8]], writes: &[&[u8]]) -> String {
        let mut masker = Masker::new(phrases.iter().copied());
        let mut out = Vec::new();
        for write in writes {
            masker.push(write, &mut out);
        }
        masker.flush(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn phrases_are_masked_whole_and_split() {
        type Texts<'a> = &'a [&'a [u8]];
        let cases: [(Texts<'_>, Texts<'_>, &str); 10] = [
            (&[b"secret"], &[b"a secret b"], "a [MASKED] b"),
            (&[b"secret"], &[b"a sec", b"ret b"], "a [MASKED] b"),
            (&[b"secret"], &[b"secre"], "secre"),
            (&[b"abc"], &[b"abcabc"], "[MASKED][MASKED]"),
            // Splits that leak in GitLab Runner 19.4.
            (&[b"aab"], &[b"aa", b"ab"], "a[MASKED]"),
            (&[b"ababc"], &[b"abab", b"abc"], "ab[MASKED]"),
            (&[b"1121"], &[b"11", b"121"], "1[MASKED]"),
            // The longer of two, and overlapping ones as one.
            (&[b"ab", b"abcd"], &[b"abc", b"d abx"], "[MASKED] [MASKED]x"),
            (&[b"abc", b"cde"], &[b"abcde"], "[MASKED]"),
            (&[b""], &[b"abc"], "abc"),
        ];
        for (phrases, writes, expected) in cases {
            assert_eq!(mask(phrases, writes), expected, "{writes:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_phrase_is_seen_at_once() {
        let mut masker = Masker::new([b"secret".as_slice()]);
        let mut out = Vec::new();
        masker.push(b"password: ", &mut out);
        assert_eq!(out, b"password: ");
        masker.push(b"se", &mut out);
        assert_eq!(out, b"password: ");
    }

    #[test]
    fn an_endless_overlap_needs_no_memory() {
        let mut masker = Masker::new([b"aa".as_slice()]);
        let mut out = Vec::new();
        for _ in 0..10_000 {
            masker.push(b"a", &mut out);
            assert!(masker.pending.len() < 4, "{}", masker.pending.len());
        }
        masker.flush(&mut out);
        assert_eq!(out, b"[MASKED]");
    }

    /// Positions covered by any phrase, found the slow way.
    fn naive(phrases: &[Vec<u8>], text: &[u8]) -> String {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for start in 0..text.len() {
            for phrase in phrases.iter().filter(|p| !p.is_empty() && text[start..].starts_with(p)) {
                ranges.push((start, start + phrase.len()));
            }
        }
        ranges.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        let mut out = Vec::new();
        let mut at = 0;
        for (start, end) in merged {
            out.extend_from_slice(&text[at..start]);
            out.extend_from_slice(MASKED);
            at = end;
        }
        out.extend_from_slice(&text[at..]);
        String::from_utf8_lossy(&out).into_owned()
    }

    proptest! {
        #[test]
        fn every_split_masks_the_same(
            phrases in prop::collection::vec(prop::collection::vec(b'a'..b'd', 0..6), 0..5),
            writes in prop::collection::vec(prop::collection::vec(b'a'..b'd', 0..9), 0..9),
        ) {
            let text = writes.concat();
            let phrase_refs: Vec<&[u8]> = phrases.iter().map(Vec::as_slice).collect();
            let write_refs: Vec<&[u8]> = writes.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(mask(&phrase_refs, &write_refs), naive(&phrases, &text));
        }
    }
}
