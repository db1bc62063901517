//! What has happened to each job, and the only place where it changes.
//!
//! Invariant: every change goes through the state machine, is stamped, and is told to the
//! caller under one lock, so events come in the order of what happened. The lock is never
//! held over an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::Instant,
};

use super::{Event, EventKind, artifacts::StoredArtifact, event::JobTimes};
use crate::coordinator::{
    pipeline::CompiledJob,
    run::{Change, JobState, PipelineOutcome, Report, Run},
};

pub(super) struct Ledger {
    /// Wakes whoever waits for a job to be queued.
    pub(super) queue: Notify,
    pub(super) created_at: Timestamp,
    book: Mutex<Book>,
    events: broadcast::Sender<Event>,
    outcome: watch::Sender<Option<PipelineOutcome>>,
}

struct Book {
    run: Run,
    records: Vec<Record>,
    /// Grows with every change of the queue; runners echo it.
    update: u64,
}

/// What is remembered of a job beside its state.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) times: JobTimes,
    pub(super) exit_code: Option<i32>,
    pub(super) failure_reason: Option<String>,
    pub(super) artifact: Option<StoredArtifact>,
    /// The end that the runner reported, to know a repeated report again.
    pub(super) reported: Option<Reported>,
    pub(super) last_contact: Option<Instant>,
    pub(super) taken: Option<Instant>,
    has_spoken: bool,
    can_cancel_gracefully: bool,
}

/// A job's end in its runner's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reported {
    Success,
    Failed,
}

/// How a job ended, beyond its state.
pub(super) struct End {
    /// Absent when the server itself decided.
    pub(super) reported: Option<Reported>,
    pub(super) exit_code: Option<i32>,
    pub(super) failure_reason: Option<String>,
}

impl End {
    /// A failure that the server itself decided on.
    pub(super) fn failure(reason: &str) -> Self {
        Self { reported: None, exit_code: None, failure_reason: Some(reason.into()) }
    }
}

impl Ledger {
    /// The ledger of a new run; its first decisions are told at once.
    pub(super) fn new(
        jobs: &[CompiledJob],
        events: broadcast::Sender<Event>,
        outcome: watch::Sender<Option<PipelineOutcome>>,
    ) -> Self {
        let (run, changes) = Run::new(jobs);
        let records = jobs.iter().map(|_| Record::default()).collect();
        let ledger = Self {
            queue: Notify::new(),
            created_at: Timestamp::now(),
            book: Mutex::new(Book { run, records, update: 0 }),
            events,
            outcome,
        };
        ledger.tell(&mut ledger.book(), changes);
        ledger
    }

    pub(super) fn state(&self, job: usize) -> JobState {
        self.book().run.state(job)
    }

    /// Whether a runner has the job.
    pub(super) fn is_live(&self, job: usize) -> bool {
        is_live(self.state(job))
    }

    pub(super) fn record(&self, job: usize) -> Record {
        self.book().records[job].clone()
    }

    pub(super) fn update(&self) -> u64 {
        self.book().update
    }

    /// Hands a queued job to a runner.
    pub(super) fn take(&self, can_cancel_gracefully: bool) -> Option<usize> {
        let mut book = self.book();
        let job = book.run.take()?;
        let now = Timestamp::now();
        let record = &mut book.records[job];
        record.times.taken = Some(now);
        record.taken = Some(Instant::now());
        record.last_contact = record.taken;
        record.can_cancel_gracefully = can_cancel_gracefully;
        book.update += 1;
        self.send(now, EventKind::JobTaken { job });
        Some(job)
    }

    /// Notes that the job's runner spoke.
    pub(super) fn hear(&self, job: usize) {
        let mut book = self.book();
        if !is_live(book.run.state(job)) {
            return;
        }
        let record = &mut book.records[job];
        record.last_contact = Some(Instant::now());
        if !std::mem::replace(&mut record.has_spoken, true) {
            self.send(Timestamp::now(), EventKind::JobRunning { job });
        }
    }

    /// Tells what became of the job's log; the caller holds the log's lock.
    pub(super) fn tell_trace(&self, job: usize, kind: EventKind) {
        let mut book = self.book();
        if is_live(book.run.state(job)) {
            let now = Timestamp::now();
            book.records[job].times.first_byte.get_or_insert(now);
            self.send(now, kind);
        }
    }

    /// Ends a job that a runner has; of any other job this is ignored.
    pub(super) fn finish(&self, job: usize, end: End) {
        let mut book = self.book();
        if !is_live(book.run.state(job)) {
            return;
        }
        let report = match end.reported {
            Some(Reported::Success) => Report::Success,
            _ => Report::Failed { exit_code: end.exit_code },
        };
        let record = &mut book.records[job];
        record.exit_code = end.exit_code;
        record.failure_reason = end.failure_reason;
        record.reported = end.reported;
        let changes = book.run.finish(job, report);
        self.tell(&mut book, changes);
    }

    /// Cancels the run; with `at_once`, without waiting for runners to stop their jobs.
    pub(super) fn cancel(&self, at_once: bool) {
        let mut book = self.book();
        let Book { run, records, .. } = &mut *book;
        let changes = run.cancel(|job| !at_once && records[job].can_cancel_gracefully);
        self.tell(&mut book, changes);
    }

    pub(super) fn store_artifact(&self, job: usize, artifact: StoredArtifact) {
        self.book().records[job].artifact = Some(artifact);
    }

    /// Stamps and tells decisions, and wakes whoever waits for a job.
    fn tell(&self, book: &mut Book, changes: Vec<Change>) {
        let now = Timestamp::now();
        for change in changes {
            match change {
                Change::Queued(job) => {
                    book.records[job].times.queued = Some(now);
                    self.send(now, EventKind::JobQueued { job });
                }
                Change::Finished(job, outcome) => {
                    let record = &mut book.records[job];
                    record.times.finished = Some(now);
                    let (exit_code, failure_reason) =
                        (record.exit_code, record.failure_reason.clone());
                    let kind = EventKind::JobFinished { job, outcome, exit_code, failure_reason };
                    self.send(now, kind);
                }
                Change::Pipeline(outcome) => {
                    self.send(now, EventKind::PipelineFinished { outcome });
                    self.outcome.send_replace(Some(outcome));
                }
            }
        }
        book.update += 1;
        self.queue.notify_waiters();
    }

    fn send(&self, at: Timestamp, kind: EventKind) {
        // Nobody listening is fine: the same can be asked for at any time.
        drop(self.events.send(Event { at, kind }));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(state: JobState) -> bool {
    matches!(state, JobState::Running | JobState::Canceling)
}
