//! The job's log, from what scripts print to the bytes that GitLab stores.
//!
//! Order, as in GitLab Runner: masked phrases, URL parameters, token prefixes, invalid
//! UTF-8, time headers, size limit. Size and checksum are those of the bytes given out.
//! Pure: the caller says what time it is, and where the bytes go.

pub mod colour;
mod mask;
mod stamp;
mod token;
mod utf8;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::plan::TraceOptions;
use colour::{BOLD_YELLOW, CLEAR, RESET};
use mask::Masker;
use stamp::{Stamper, Stream};
use token::Follower;
use utf8::Cleaner;

/// The log of one job.
#[derive(Debug)]
pub struct Trace {
    runner: Filters,
    /// Of each output that is open: what two of them print at once would cut each other's
    /// secrets.
    work: BTreeMap<u64, Filters>,
    blank: Filters,
    stamper: Option<Stamper>,
    sections: bool,
    limit: Limit,
    checksum: crc32fast::Hasher,
}

impl Trace {
    /// An empty log; the preamble is the caller's to write.
    pub fn new(options: &TraceOptions) -> Self {
        Self {
            runner: Filters::new(options),
            work: BTreeMap::new(),
            blank: Filters::new(options),
            stamper: options.timestamps.then(Stamper::default),
            sections: options.sections,
            limit: Limit { bytes: options.limit_bytes, used: 0, exceeded: false },
            checksum: crc32fast::Hasher::new(),
        }
    }

    /// What the job prints to one of its outputs; appends the log's next bytes to `out`. What
    /// may become a secret is held back until the output says more, or is closed.
    pub fn work(&mut self, output: u64, bytes: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        let mut clean = Vec::with_capacity(bytes.len());
        let filters = self.work.entry(output).or_insert_with(|| self.blank.clone());
        filters.push(bytes, &mut clean);
        self.append(Stream::Work, &clean, now, out);
    }

    /// Nothing more comes from an output.
    pub fn close(&mut self, output: u64, now: SystemTime, out: &mut Vec<u8>) {
        if let Some(mut filters) = self.work.remove(&output) {
            let mut clean = Vec::new();
            filters.flush(&mut clean);
            self.append(Stream::Work, &clean, now, out);
        }
    }

    /// What the runner says.
    pub fn runner(&mut self, text: &str, now: SystemTime, out: &mut Vec<u8>) {
        let mut clean = Vec::with_capacity(text.len());
        self.runner.push(text.as_bytes(), &mut clean);
        self.runner.flush(&mut clean);
        self.append(Stream::Runner, &clean, now, out);
    }

    /// Opens a section that the server folds.
    pub fn section_start(&mut self, name: &str, now: SystemTime, out: &mut Vec<u8>) {
        self.section("start", name, now, out);
    }

    /// Closes a section.
    pub fn section_end(&mut self, name: &str, now: SystemTime, out: &mut Vec<u8>) {
        self.section("end", name, now, out);
    }

    /// Ends the log, and all outputs.
    pub fn end(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        while let Some(output) = self.work.keys().next().copied() {
            self.close(output, now, out);
        }
        if let Some(stamper) = &mut self.stamper {
            let mut stamped = Vec::new();
            stamper.flush(&mut stamped);
            self.count(&stamped, out);
        }
    }

    /// Bytes given out so far.
    pub fn len(&self) -> u64 {
        self.limit.used
    }

    /// Whether nothing was given out yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// CRC-32 of the bytes given out so far.
    pub fn checksum(&self) -> u32 {
        self.checksum.clone().finalize()
    }

    fn section(&mut self, edge: &str, name: &str, now: SystemTime, out: &mut Vec<u8>) {
        if self.sections {
            let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.runner(&format!("section_{edge}:{seconds}:{name}\r{CLEAR}"), now, out);
        }
    }

    fn append(&mut self, stream: Stream, clean: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        match &mut self.stamper {
            None => self.count(clean, out),
            Some(stamper) => {
                let mut stamped = Vec::with_capacity(clean.len() + 64);
                stamper.push(stream, clean, now, &mut stamped);
                self.count(&stamped, out);
            }
        }
    }

    fn count(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        self.limit.push(bytes, out);
        self.checksum.update(&out[before..]);
    }
}

/// What every byte of a stream goes through before it may be seen.
#[derive(Clone, Debug)]
struct Filters {
    phrases: Masker,
    parameters: Follower,
    tokens: Follower,
    utf8: Cleaner,
}

impl Filters {
    fn new(options: &TraceOptions) -> Self {
        Self {
            phrases: Masker::new(options.masks.iter().map(String::as_bytes)),
            parameters: Follower::parameters(),
            tokens: Follower::tokens(options.token_prefixes.iter().map(String::as_str)),
            utf8: Cleaner::default(),
        }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut masked = Vec::with_capacity(bytes.len());
        self.phrases.push(bytes, &mut masked);
        self.follow(&masked, out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        let mut masked = Vec::new();
        self.phrases.flush(&mut masked);
        self.follow(&masked, out);
        self.utf8.flush(out);
    }

    fn follow(&mut self, masked: &[u8], out: &mut Vec<u8>) {
        let mut without_parameters = Vec::with_capacity(masked.len());
        self.parameters.push(masked, &mut without_parameters);
        let mut without_tokens = Vec::with_capacity(without_parameters.len());
        self.tokens.push(&without_parameters, &mut without_tokens);
        self.utf8.push(&without_tokens, out);
    }
}

/// Cuts the log where it exceeds its limit, and says so once. The notice itself comes
/// on top, as in GitLab Runner.
#[derive(Debug)]
struct Limit {
    bytes: u64,
    used: u64,
    exceeded: bool,
}

impl Limit {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.exceeded {
            return;
        }
        let room = usize::try_from(self.bytes.saturating_sub(self.used)).unwrap_or(usize::MAX);
        let before = out.len();
        if bytes.len() <= room {
            out.extend_from_slice(bytes);
        } else {
            self.exceeded = true;
            let cut = (0..=room).rev().find(|at| is_boundary(bytes, *at)).unwrap_or(0);
            out.extend_from_slice(&bytes[..cut]);
            let notice = format!(
                "\n{BOLD_YELLOW}Job's log exceeded limit of {} bytes.\n\
                 Job execution will continue but no more output will be collected.{RESET}\n",
                self.bytes
            );
            out.extend_from_slice(notice.as_bytes());
        }
        self.used += (out.len() - before) as u64;
    }
}

fn is_boundary(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TraceOptions {
        TraceOptions {
            masks: vec!["secret".into()],
            sections: true,
            limit_bytes: 1000,
            ..TraceOptions::default()
        }
    }

    fn text(out: &[u8]) -> String {
        String::from_utf8_lossy(out).into_owned()
    }

    #[test]
    fn all_filters_work_across_writes_and_lines_of_others() {
        let mut trace = Trace::new(&options());
        let (now, mut out) = (UNIX_EPOCH, Vec::new());
        for bytes in [b"sec".as_slice(), b"ret glpat-a", b"bc \xc3", b"\xa9 \xff sec"] {
            trace.work(1, bytes, now, &mut out);
        }
        trace.close(1, now, &mut out);
        trace.runner("\nends here\n", now, &mut out);
        trace.end(now, &mut out);
        assert_eq!(text(&out), "[MASKED] glpat-[MASKED] é \u{fffd} sec\nends here\n");
        assert_eq!((trace.len(), trace.checksum()), (out.len() as u64, crc32fast::hash(&out)));
    }

    #[test]
    fn what_others_say_in_between_cuts_no_secret() {
        let mut trace = Trace::new(&options());
        let (now, mut out) = (UNIX_EPOCH, Vec::new());
        trace.work(1, b"a sec", now, &mut out);
        trace.work(2, b"b secr", now, &mut out);
        trace.runner("c\n", now, &mut out);
        trace.work(1, b"ret\n", now, &mut out);
        trace.work(2, b"et\n", now, &mut out);
        trace.work(3, b"d se", now, &mut out);
        trace.end(now, &mut out);
        assert_eq!(text(&out), "a b c\n[MASKED]\n[MASKED]\nd se");
    }

    #[test]
    fn sections_are_marked_where_the_server_folds_them() {
        for sections in [true, false] {
            let mut trace = Trace::new(&TraceOptions { sections, ..options() });
            let mut out = Vec::new();
            trace.section_start("step_script", UNIX_EPOCH, &mut out);
            let expected = if sections { "section_start:0:step_script\r\x1b[0K" } else { "" };
            assert_eq!(text(&out), expected);
        }
    }

    #[test]
    fn the_limit_cuts_between_characters_and_says_so_once() {
        let mut trace = Trace::new(&TraceOptions { limit_bytes: 10, ..options() });
        let mut out = Vec::new();
        trace.work(1, "123456789é more".as_bytes(), UNIX_EPOCH, &mut out);
        trace.work(1, b"and more", UNIX_EPOCH, &mut out);
        trace.runner("Job succeeded\n", UNIX_EPOCH, &mut out);
        let expected = "123456789\n\x1b[33;1mJob's log exceeded limit of 10 bytes.\n\
                        Job execution will continue but no more output will be collected.\x1b[0;m\n";
        assert_eq!(text(&out), expected);
        assert_eq!((trace.len(), trace.checksum()), (out.len() as u64, crc32fast::hash(&out)));
    }

    #[test]
    fn stamped_lines_of_runner_and_job_keep_their_streams() {
        let mut trace = Trace::new(&TraceOptions { timestamps: true, ..options() });
        let mut out = Vec::new();
        trace.work(1, b"a", UNIX_EPOCH, &mut out);
        trace.runner("b\n", UNIX_EPOCH, &mut out);
        trace.end(UNIX_EPOCH, &mut out);
        let expected = "1970-01-01T00:00:00.000000Z 01O a\n1970-01-01T00:00:00.000000Z 00O b\n";
        assert_eq!(text(&out), expected);
    }
}
