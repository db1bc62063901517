//! A job's log: PATCH requests append to its file, in order and without gaps.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{Path as Parameter, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

use super::{
    EventKind, Options,
    answer::{self, Refusal},
    ledger::End,
    state::{Server, id},
};
use crate::coordinator::payload::slug;

/// Largest single patch; runners send at most 1 MiB.
const PATCH_LIMIT: usize = 8 << 20;
/// How often a log is asked for again before it is taken as it is.
const RESET_LIMIT: u32 = 3;

/// A job's log on disk.
pub(super) struct Trace {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    checksum: crc32fast::Hasher,
    resets: u32,
}

/// What a patch did.
#[derive(Debug, PartialEq, Eq)]
enum Patched {
    Grown,
    /// All of it was there already: an answer was lost.
    Known,
    /// It does not start where the log ends.
    Misplaced,
}

impl Trace {
    /// The log of the job at `index`; its file is made with the first byte.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, length: 0, checksum: crc32fast::Hasher::new(), resets: 0 }
    }

    /// Where the log of a job is.
    pub(super) fn path(options: &Options, job: usize, name: &str) -> PathBuf {
        options.trace_directory.join(format!("{}-{}.log", id(job), slug(name)))
    }

    /// Whether the log is what its sender says; `None` of a value is not compared.
    pub(super) fn is_intact(&self, checksum: Option<&str>, length: Option<u64>) -> bool {
        let own = format!("crc32:{:08x}", self.checksum.clone().finalize());
        checksum.is_none_or(|checksum| checksum.eq_ignore_ascii_case(&own))
            && length.is_none_or(|length| length == self.length)
    }

    /// Empties the log for another try; false when there were enough of them.
    pub(super) async fn reset(&mut self) -> io::Result<bool> {
        if self.resets >= RESET_LIMIT {
            return Ok(false);
        }
        self.resets += 1;
        self.cut(0).await?;
        self.checksum = crc32fast::Hasher::new();
        Ok(true)
    }

    async fn patch(&mut self, start: u64, bytes: &[u8]) -> io::Result<Patched> {
        if start != self.length {
            let is_repeated = start.checked_add(bytes.len() as u64) == Some(self.length);
            let is_known = is_repeated && self.ends_with(start, bytes).await?;
            return Ok(if is_known { Patched::Known } else { Patched::Misplaced });
        }
        let file = self.file().await?;
        let written = async {
            file.write_all(bytes).await?;
            file.flush().await
        };
        if let Err(error) = written.await {
            self.cut(start).await?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.checksum.update(bytes);
        Ok(Patched::Grown)
    }

    async fn ends_with(&mut self, start: u64, bytes: &[u8]) -> io::Result<bool> {
        if bytes.is_empty() {
            return Ok(true);
        }
        let mut file = File::open(&self.path).await?;
        file.seek(SeekFrom::Start(start)).await?;
        let mut there = vec![0; bytes.len()];
        file.read_exact(&mut there).await?;
        Ok(there == bytes)
    }

    async fn cut(&mut self, length: u64) -> io::Result<()> {
        let file = self.file().await?;
        file.set_len(length).await?;
        file.seek(SeekFrom::Start(length)).await?;
        self.length = length;
        Ok(())
    }

    async fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            self.file = Some(create(&self.path).await?);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A new file that only its owner can read: logs may hold what masking missed.
async fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).await
}

/// PATCH /api/v4/jobs/:id/trace
pub(super) async fn append(
    State(server): State<Arc<Server>>,
    Parameter(id): Parameter<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let job = server.live_job(id, &headers, None)?;
    let range = headers.get("content-range").and_then(|range| range.to_str().ok());
    let (start, end) = range
        .and_then(content_range)
        .ok_or(Refusal::BadRequest("Content-Range is missing or not START-END"))?;
    let bytes = answer::whole(body, PATCH_LIMIT).await?;
    let stop = start.checked_add(bytes.len() as u64).ok_or(Refusal::Range(0))?;
    // Old runners name the byte after the last one; GitLab takes both.
    if end != stop && end.checked_add(1) != Some(stop) {
        return Err(Refusal::BadRequest("Content-Range and body differ in length"));
    }
    if stop > server.options.limits.trace_size {
        server.ledger.finish(job, End::failure("trace_size_exceeded"));
        return Err(Refusal::Forbidden(Some(server.word(job))));
    }
    // A client that goes away must not leave half a patch behind.
    answer::uninterrupted(async move { store(&server, job, start, &bytes).await }).await
}

async fn store(server: &Server, job: usize, start: u64, bytes: &[u8]) -> Result<Response, Refusal> {
    let mut trace = server.files[job].trace.lock().await;
    if !server.ledger.is_live(job) {
        return Err(Refusal::Forbidden(Some(server.word(job))));
    }
    let patched = trace.patch(start, bytes).await.map_err(|error| {
        tracing::error!(job = id(job), %error, "cannot write a job's log");
        Refusal::Internal
    })?;
    match patched {
        Patched::Misplaced => return Err(Refusal::Range(trace.length)),
        Patched::Grown if !bytes.is_empty() => {
            let len = bytes.len() as u64;
            server.ledger.tell_trace(job, EventKind::TraceAppended { job, offset: start, len });
        }
        Patched::Grown | Patched::Known => {}
    }
    let interval = server.options.limits.trace_interval.as_secs().max(1);
    let headers = [
        ("range", format!("0-{}", trace.length)),
        ("job-status", server.word(job).to_string()),
        ("x-gitlab-trace-update-interval", interval.to_string()),
    ];
    Ok((StatusCode::ACCEPTED, headers).into_response())
}

/// `START-END`, without a unit, as runners write it.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (start, end) = text.trim().split_once('-')?;
    let number = |digits: &str| {
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    };
    Some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let table = [
            ("0-1461", Some((0, 1461))),
            (" 5-9 ", Some((5, 9))),
            ("bytes 0-1", None),
            ("0-1/2", None),
            ("-1", None),
            ("1-", None),
            ("+1-2", None),
            ("99999999999999999999-1", None),
        ];
        for (text, range) in table {
            assert_eq!(content_range(text), range, "{text}");
        }
    }

    #[tokio::test]
    async fn patches_keep_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut trace = Trace::new(path.clone());
        let mut patch = async |start, bytes: &[u8]| trace.patch(start, bytes).await.expect("io");
        assert_eq!(patch(3, b"x").await, Patched::Misplaced);
        assert_eq!(patch(0, b"hello").await, Patched::Grown);
        assert_eq!(patch(0, b"hello").await, Patched::Known);
        assert_eq!(patch(3, b"lo").await, Patched::Known);
        assert_eq!(patch(3, b"xx").await, Patched::Misplaced);
        assert_eq!(patch(0, b"hell").await, Patched::Misplaced);
        assert_eq!(patch(5, b" you").await, Patched::Grown);
        assert_eq!(std::fs::read(&path).expect("there"), b"hello you");
        let sum = format!("crc32:{:08x}", crc32fast::hash(b"hello you"));
        assert!(trace.is_intact(Some(&sum), Some(9)));
        assert!(trace.is_intact(None, None));
        assert!(!trace.is_intact(Some(&sum), Some(10)));
        assert!(!trace.is_intact(Some("crc32:00000000"), None));
        for _ in 0..RESET_LIMIT {
            assert!(trace.reset().await.expect("io"));
        }
        assert!(!trace.reset().await.expect("io"));
        assert_eq!(trace.patch(0, b"again").await.expect("io"), Patched::Grown);
        assert_eq!(std::fs::read(&path).expect("there"), b"again");
    }
}
