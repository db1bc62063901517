//! What all requests share: the pipeline, its files, its tokens and its ledger.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    JobStatus, Options,
    ledger::{End, Ledger},
    trace::Trace,
};
use crate::coordinator::{
    payload::{self, Assignment, Dependency, Payload},
    pipeline::{CompiledJob, Pipeline},
    run::{JobOutcome, JobState},
};

/// Everything a request may look at. Jobs are told apart by their place in the pipeline.
pub(super) struct Server {
    pub(super) pipeline: Pipeline,
    pub(super) git_dir: PathBuf,
    pub(super) is_shallow: bool,
    pub(super) options: Options,
    /// The server's address as jobs reach it, without a slash at its end.
    pub(super) url: String,
    pub(super) ledger: Ledger,
    pub(super) files: Vec<JobFiles>,
    pub(super) clones: Arc<Semaphore>,
    /// Ends long polls and, in time, the server.
    pub(super) stop: CancellationToken,
}

/// What belongs to one job and needs no common lock.
pub(super) struct JobFiles {
    pub(super) token: String,
    pub(super) trace: tokio::sync::Mutex<Trace>,
}

impl Server {
    /// The job with this id.
    pub(super) fn job(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        (index < self.files.len()).then_some(index)
    }

    /// GitLab's word for the job's state.
    pub(super) fn word(&self, job: usize) -> &'static str {
        match self.ledger.state(job) {
            JobState::Waiting => "created",
            JobState::Queued => "pending",
            JobState::Running => "running",
            JobState::Canceling => "canceling",
            JobState::Finished(JobOutcome::Success) => "success",
            JobState::Finished(JobOutcome::Failed { .. }) => "failed",
            JobState::Finished(JobOutcome::Canceled) => "canceled",
            JobState::Finished(JobOutcome::Skipped) => "skipped",
            JobState::Finished(JobOutcome::Manual) => "manual",
        }
    }

    /// Fails the jobs whose runners were not heard of for too long, or that run far too long.
    pub(super) fn reap(&self, now: Instant) {
        let limits = &self.options.limits;
        let since = |then: Option<Instant>| then.map_or(Duration::ZERO, |then| now - then);
        for (job, compiled) in self.pipeline.jobs.iter().enumerate() {
            if !self.ledger.is_live(job) {
                continue;
            }
            let record = self.ledger.record(job);
            if since(record.last_contact) > limits.silence {
                self.ledger.finish(job, End::failure("stuck_or_timeout_failure"));
            } else if since(record.taken) > compiled.timeout + limits.overtime {
                self.ledger.finish(job, End::failure("job_execution_timeout"));
            }
        }
    }

    pub(super) fn statuses(&self) -> Vec<JobStatus> {
        let status = |(index, job): (usize, &CompiledJob)| {
            let record = self.ledger.record(index);
            JobStatus {
                name: job.name.clone(),
                stage: job.stage.clone(),
                state: self.ledger.state(index),
                times: record.times,
                exit_code: record.exit_code,
                failure_reason: record.failure_reason,
            }
        };
        self.pipeline.jobs.iter().enumerate().map(status).collect()
    }

    /// Whether `job` gets the artifacts of `other`: it needs them, or `other` is of an earlier
    /// stage and `job` names no needs.
    pub(super) fn is_source(&self, other: usize, job: usize) -> bool {
        let (other, job) = (&self.pipeline.jobs[other], &self.pipeline.jobs[job]);
        match &job.needs {
            Some(needs) => needs.iter().any(|need| need.artifacts && need.job == other.name),
            None => other.stage_index < job.stage_index,
        }
    }

    /// The payload of a job that was taken.
    pub(super) fn payload(&self, job: usize) -> Payload {
        let dependency = |source: usize| {
            let artifact = self.ledger.record(source).artifact?;
            let (name, token) = (&self.pipeline.jobs[source].name, &self.files[source].token);
            Some(Dependency::new(id(source), name, token, &artifact.name, artifact.size))
        };
        let sources = (0..self.files.len()).filter(|other| self.is_source(*other, job));
        let dependencies = sources.filter_map(dependency).collect();
        let times = self.ledger.record(job).times;
        let created_at = self.ledger.created_at;
        let taken = times.taken.unwrap_or(created_at);
        let waited = taken.duration_since(times.queued.unwrap_or(taken)).as_secs();
        let token = &self.files[job].token;
        let path = &self.pipeline.context.project.path;
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        let assignment = Assignment {
            id: id(job),
            token,
            server_url: &self.url,
            repository_url: &format!("{scheme}://gitlab-ci-token:{token}@{rest}/{path}.git"),
            started_at: &taken.strftime("%FT%TZ").to_string(),
            pipeline_created_at: &created_at.strftime("%FT%TZ").to_string(),
            is_shallow: self.is_shallow,
            seconds_in_queue: u64::try_from(waited).unwrap_or_default(),
            dependencies,
        };
        payload::build(&self.pipeline.context, &self.pipeline.jobs[job], assignment)
    }
}

/// The id of the job at this place.
pub(super) fn id(job: usize) -> u64 {
    job as u64 + 1
}
