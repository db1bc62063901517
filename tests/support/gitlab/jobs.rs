//! The jobs and their life, as GitLab decides it. No HTTP, no clock, no waiting.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use super::JobId;
use super::audit::{Audit, Event, State};
use super::spec::{Around, JobSpec};

/// All jobs that ever were.
#[derive(Default)]
pub(super) struct Jobs {
    all: Vec<Job>,
    queue: VecDeque<JobId>,
    /// Counts what is handed out: GitLab's `X-GitLab-Last-Update`.
    pub(super) version: u64,
}

struct Job {
    spec: JobSpec,
    token: String,
    canceling: bool,
    trace: Vec<u8>,
    crc32: crc32fast::Hasher,
    archives: Vec<Archive>,
    audit: Audit,
}

/// One uploaded file.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Name that the runner gave it.
    pub filename: String,
    /// The query of the upload: `artifact_type=…&artifact_format=…`.
    pub query: String,
    /// Its bytes.
    pub content: Bytes,
}

/// What a runner says of a job with `PUT`.
pub(super) struct Update {
    pub(super) state: String,
    pub(super) failure_reason: Option<String>,
    pub(super) exit_code: Option<i64>,
    /// Checksum (`crc32:%08x`) and size of the whole log.
    pub(super) output: Option<(String, u64)>,
}

/// Status of the answer, and what its headers say.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) job_status: Option<&'static str>,
    /// Where the log ends.
    pub(super) range: Option<u64>,
}

impl Answer {
    fn plain(status: u16) -> Self {
        Self { status, job_status: None, range: None }
    }
}

impl Jobs {
    pub(super) fn enqueue(&mut self, spec: JobSpec, now: Instant) -> JobId {
        let id = JobId(self.all.len() as u64 + 1);
        self.all.push(Job {
            spec,
            token: String::new(),
            canceling: false,
            trace: Vec::new(),
            crc32: crc32fast::Hasher::new(),
            archives: Vec::new(),
            audit: Audit::new(id, now),
        });
        self.queue.push_back(id);
        id
    }

    /// The payload of the next job that this runner may have.
    pub(super) fn hand_out(&mut self, runner: &str, url: &str, now: Instant) -> Option<Value> {
        let mine = |id: &JobId| match &self.job(*id).spec.runner {
            Some(token) => token == runner,
            None => true,
        };
        let at = self.queue.iter().position(mine)?;
        let id = self.queue.remove(at)?;
        self.version += 1;
        let version = self.version;
        let job = self.job_mut(id);
        // A new token each time: who had the job before is recognized.
        job.token = format!("glcbt-{}-{version}", id.0);
        job.audit.state = State::HandedOut;
        job.audit.events.push((now, Event::HandedOut));
        let job = self.job(id);
        let needed = |needed: JobId| self.as_dependency(needed);
        let queued_for = now.saturating_duration_since(job.audit.queued());
        Some(job.spec.render(&Around { id, token: &job.token, url, queued_for, needed: &needed }))
    }

    fn as_dependency(&self, id: JobId) -> Value {
        let job = self.job(id);
        let mut dependency =
            json!({"id": id.0, "token": job.token, "name": format!("job-{}", id.0)});
        if let Some(archive) = job.archives.last() {
            dependency["artifacts_file"] =
                json!({"filename": archive.filename, "size": archive.content.len()});
        }
        dependency
    }

    /// Back into the queue, as GitLab does with a job that nobody acknowledged.
    pub(super) fn requeue(&mut self, id: JobId, now: Instant) {
        let job = self.job_mut(id);
        job.token.clear();
        job.audit.state = State::Queued;
        job.audit.events.push((now, Event::Queued));
        self.queue.push_back(id);
    }

    /// Appends to a log. `range` is `Content-Range`: first and last byte.
    pub(super) fn append(
        &mut self,
        (id, token): (JobId, &str),
        range: Option<(u64, u64)>,
        bytes: &[u8],
        now: Instant,
    ) -> Answer {
        if let Some(refused) = self.refused((id, token), "a log", now) {
            return refused;
        }
        let job = self.job_mut(id);
        let Some((from, to)) = range else {
            return Answer::plain(400);
        };
        let size = job.trace.len() as u64;
        // As in GitLab: what begins at the right place is stored, then its end is checked.
        if from == size {
            job.trace.extend_from_slice(bytes);
            job.crc32.update(bytes);
        }
        let end = job.trace.len() as u64;
        let fits = from == size && end == to + 1;
        let event = if fits { Event::Patched(from, end) } else { Event::RangeRefused(from, end) };
        job.audit.events.push((now, event));
        let status = if fits { 202 } else { 416 };
        Answer { status, job_status: Some(job.status()), range: Some(end) }
    }

    /// A runner tells how a job stands.
    pub(super) fn update(
        &mut self,
        (id, token): (JobId, &str),
        update: Update,
        now: Instant,
    ) -> Answer {
        if let Some(refused) = self.refused((id, token), "an update", now) {
            return refused;
        }
        let job = self.job_mut(id);
        let end = match update.state.as_str() {
            "running" => {
                let first = job.audit.state == State::HandedOut;
                job.audit.state = State::Running;
                let event = if first { Event::Acknowledged } else { Event::Touched };
                job.audit.events.push((now, event));
                return job.answer(200);
            }
            "success" => State::Success,
            "failed" => State::Failed,
            _ => return Answer::plain(400),
        };
        if update.output.is_some_and(|output| !job.has(&output)) {
            // The log is to be sent again from its start.
            job.trace.clear();
            job.crc32 = crc32fast::Hasher::new();
            job.audit.events.push((now, Event::LogDiffers));
            return job.answer(412);
        }
        job.audit.failure_reason = update.failure_reason;
        job.audit.exit_code = update.exit_code;
        job.audit.state = if job.canceling { State::Canceled } else { end };
        job.audit.events.push((now, Event::Ended));
        job.answer(200)
    }

    /// Why a runner may not say anything about this job.
    fn refused(
        &mut self,
        (id, token): (JobId, &str),
        what: &'static str,
        now: Instant,
    ) -> Option<Answer> {
        if !self.contains(id) {
            return Some(Answer::plain(404));
        }
        let job = self.job_mut(id);
        if job.token == token && matches!(job.audit.state, State::HandedOut | State::Running) {
            return None;
        }
        job.audit.events.push((now, Event::Forbidden(what)));
        Some(job.answer(403))
    }

    /// Asks the runner to stop the job; one in the queue is canceled at once.
    pub(super) fn cancel(&mut self, id: JobId, now: Instant) {
        self.queue.retain(|queued| *queued != id);
        let job = self.job_mut(id);
        job.audit.events.push((now, Event::CancelAsked));
        job.canceling = true;
        if job.audit.state == State::Queued {
            job.audit.state = State::Canceled;
            job.audit.events.push((now, Event::Ended));
        }
    }

    /// Cancels the job for good: whatever the runner says from now on is forbidden.
    pub(super) fn drop_job(&mut self, id: JobId, now: Instant) {
        self.queue.retain(|queued| *queued != id);
        let job = self.job_mut(id);
        job.audit.state = State::Canceled;
        job.audit.events.push((now, Event::Dropped));
        job.audit.events.push((now, Event::Ended));
    }

    pub(super) fn store(
        &mut self,
        (id, token): (JobId, &str),
        archive: Archive,
        now: Instant,
    ) -> Answer {
        if let Some(refused) = self.refused((id, token), "an archive", now) {
            return refused;
        }
        let job = self.job_mut(id);
        job.audit.events.push((now, Event::Uploaded(archive.content.len())));
        job.archives.push(archive);
        job.answer(201)
    }

    /// The newest archive, for whoever has the token that the dependency came with.
    pub(super) fn fetch(&mut self, (id, token): (JobId, &str), now: Instant) -> Result<Bytes, u16> {
        if !self.contains(id) {
            return Err(404);
        }
        let job = self.job_mut(id);
        if job.token != token {
            job.audit.events.push((now, Event::Forbidden("a download")));
            return Err(403);
        }
        let archive = job.archives.last().ok_or(404u16)?.content.clone();
        job.audit.events.push((now, Event::Downloaded));
        Ok(archive)
    }

    /// Changes a byte of a log behind the runner's back.
    pub(super) fn corrupt(&mut self, id: JobId) {
        let job = self.job_mut(id);
        assert!(!job.trace.is_empty(), "{} has no log yet", job.audit);
        job.trace[0] ^= 1;
        job.crc32 = crc32fast::Hasher::new();
        job.crc32.update(&job.trace);
    }

    pub(super) fn has_token(&self, token: &str) -> bool {
        self.all.iter().rev().any(|job| {
            job.token == token && matches!(job.audit.state, State::HandedOut | State::Running)
        })
    }

    pub(super) fn audit(&self, id: JobId) -> &Audit {
        &self.job(id).audit
    }

    pub(super) fn audits(&self) -> impl Iterator<Item = &Audit> {
        self.all.iter().map(|job| &job.audit)
    }

    pub(super) fn trace(&self, id: JobId) -> &[u8] {
        &self.job(id).trace
    }

    pub(super) fn archives(&self, id: JobId) -> &[Archive] {
        &self.job(id).archives
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    fn contains(&self, id: JobId) -> bool {
        (1..=self.all.len() as u64).contains(&id.0)
    }

    fn job(&self, id: JobId) -> &Job {
        &self.all[id.0 as usize - 1]
    }

    fn job_mut(&mut self, id: JobId) -> &mut Job {
        &mut self.all[id.0 as usize - 1]
    }
}

impl Job {
    fn answer(&self, status: u16) -> Answer {
        Answer { status, job_status: Some(self.status()), range: None }
    }

    fn status(&self) -> &'static str {
        match self.audit.state {
            State::HandedOut | State::Running if self.canceling => "canceling",
            state => state.as_gitlab(),
        }
    }

    fn has(&self, (checksum, size): &(String, u64)) -> bool {
        let mine = format!("crc32:{:08x}", self.crc32.clone().finalize());
        *checksum == mine && *size == self.trace.len() as u64
    }
}
