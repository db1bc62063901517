//! Pure. The course of one pipeline: which job may start, what becomes of the others, the end.
//!
//! The rules are GitLab's: a job waits for all jobs of earlier stages, or for its `needs` and
//! nothing else; its `when` is held against what came of them. Jobs are told apart by their
//! place in the pipeline. Every call leaves the machine settled: whatever became decidable
//! is decided and reported. No clock here: a job's times are the caller's.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pipeline::{AllowFailure, CompiledJob, When};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    /// Something it waits for has not ended.
    Waiting,
    /// A runner may take it.
    Queued,
    /// A runner has it.
    Running,
    /// A runner has it and is told to stop.
    Canceling,
    /// It has ended.
    Finished(JobOutcome),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobOutcome {
    /// It succeeded.
    Success,
    /// It failed.
    Failed {
        /// Whether `allow_failure` covers it.
        allowed: bool,
    },
    /// It was canceled, before or while it ran.
    Canceled,
    /// It did not run because of what came of other jobs.
    Skipped,
    /// It did not run because it is started by hand only.
    Manual,
}

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PipelineOutcome {
    /// Every job that ran succeeded, or was allowed to fail.
    Success,
    /// A job failed.
    Failed,
    /// It was canceled before all jobs had ended.
    Canceled,
    /// No job ran.
    Skipped,
}

/// What a runner says of a job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    Success,
    Failed { exit_code: Option<i32> },
}

/// A decision, in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Queued(usize),
    Finished(usize, JobOutcome),
    Pipeline(PipelineOutcome),
}

/// A pipeline under way.
pub(super) struct Run {
    jobs: Vec<Job>,
    is_canceled: bool,
    is_over: bool,
}

struct Job {
    stage_index: usize,
    needs: Option<Vec<usize>>,
    when: When,
    allow_failure: AllowFailure,
    state: JobState,
}

/// What came of all the jobs that a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prior {
    Open,
    Success,
    Failed,
    Skipped,
    Canceled,
    Blocked,
}

impl Run {
    /// A pipeline at its start, and the first decisions.
    pub(super) fn new(jobs: &[CompiledJob]) -> (Self, Vec<Change>) {
        let index: BTreeMap<&str, usize> =
            jobs.iter().enumerate().map(|(index, job)| (job.name.as_str(), index)).collect();
        let job = |job: &CompiledJob| Job {
            stage_index: job.stage_index,
            needs: job.needs.as_ref().map(|needs| {
                needs.iter().filter_map(|need| index.get(need.job.as_str()).copied()).collect()
            }),
            when: job.when,
            allow_failure: job.allow_failure.clone(),
            state: JobState::Waiting,
        };
        let mut run =
            Self { jobs: jobs.iter().map(job).collect(), is_canceled: false, is_over: false };
        let changes = run.settle();
        (run, changes)
    }

    pub(super) fn state(&self, job: usize) -> JobState {
        self.jobs[job].state
    }

    /// Hands out the queued job of the earliest stage.
    pub(super) fn take(&mut self) -> Option<usize> {
        let queued = |(_, job): &(usize, &Job)| job.state == JobState::Queued;
        let jobs = self.jobs.iter().enumerate().filter(queued);
        let (next, _) = jobs.min_by_key(|(index, job)| (job.stage_index, *index))?;
        self.jobs[next].state = JobState::Running;
        Some(next)
    }

    /// Ends a job that a runner has; of any other job the report is ignored.
    pub(super) fn finish(&mut self, job: usize, report: Report) -> Vec<Change> {
        let outcome = match (self.jobs[job].state, report) {
            (JobState::Running, Report::Success) => JobOutcome::Success,
            (JobState::Running, Report::Failed { exit_code }) => {
                JobOutcome::Failed { allowed: self.jobs[job].allows(exit_code) }
            }
            (JobState::Canceling, _) => JobOutcome::Canceled,
            _ => return Vec::new(),
        };
        self.jobs[job].state = JobState::Finished(outcome);
        let mut changes = vec![Change::Finished(job, outcome)];
        changes.extend(self.settle());
        changes
    }

    /// Cancels every job that has not ended. A running one is only told to stop where
    /// `is_graceful` says that its runner can; the others end at once.
    pub(super) fn cancel(&mut self, is_graceful: impl Fn(usize) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for (index, job) in self.jobs.iter_mut().enumerate() {
            match job.state {
                JobState::Finished(_) => continue,
                JobState::Running | JobState::Canceling if is_graceful(index) => {
                    job.state = JobState::Canceling;
                    self.is_canceled = true;
                }
                _ => {
                    job.state = JobState::Finished(JobOutcome::Canceled);
                    self.is_canceled = true;
                    changes.push(Change::Finished(index, JobOutcome::Canceled));
                }
            }
        }
        changes.extend(self.settle());
        changes
    }

    /// Decides until nothing more is decidable: one end can skip a chain of jobs.
    fn settle(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            let before = changes.len();
            for index in 0..self.jobs.len() {
                if self.jobs[index].state != JobState::Waiting {
                    continue;
                }
                let Some(state) = self.decide(index) else { continue };
                self.jobs[index].state = state;
                changes.push(match state {
                    JobState::Finished(outcome) => Change::Finished(index, outcome),
                    _ => Change::Queued(index),
                });
            }
            if changes.len() == before {
                break;
            }
        }
        if let Some(outcome) = self.outcome()
            && !self.is_over
        {
            self.is_over = true;
            changes.push(Change::Pipeline(outcome));
        }
        changes
    }

    /// What becomes of a waiting job; `None` while that is open. The table is that of GitLab's
    /// `Ci::ProcessBuildService`.
    fn decide(&self, index: usize) -> Option<JobState> {
        let job = &self.jobs[index];
        let prior = self.prior(job);
        let may_run = match (job.when, prior) {
            (_, Prior::Open) => return None,
            (_, Prior::Canceled | Prior::Blocked) => false,
            (When::OnSuccess | When::Manual, Prior::Success) => true,
            (When::OnSuccess | When::Manual, Prior::Skipped) => job.needs.is_none(),
            (When::OnSuccess | When::Manual, Prior::Failed) => false,
            (When::OnFailure, prior) => prior == Prior::Failed,
            (When::Always, _) => true,
        };
        Some(match (may_run, job.when) {
            (true, When::Manual) => JobState::Finished(JobOutcome::Manual),
            (true, _) => JobState::Queued,
            (false, _) => JobState::Finished(JobOutcome::Skipped),
        })
    }

    /// GitLab's `Ci::Status::Composite`, for what can be asked here.
    fn prior(&self, job: &Job) -> Prior {
        let is_needed = job.needs.is_some();
        let mut outcomes = Vec::new();
        for other in self.awaited(job) {
            let JobState::Finished(outcome) = other.state else { return Prior::Open };
            let blocks =
                outcome == JobOutcome::Manual && other.allow_failure == AllowFailure::Never;
            if blocks {
                return Prior::Blocked;
            }
            outcomes.push(outcome);
        }
        let did_not_run =
            |outcome: &JobOutcome| matches!(outcome, JobOutcome::Skipped | JobOutcome::Manual);
        let failed = |outcome: &JobOutcome| *outcome == JobOutcome::Failed { allowed: false };
        if is_needed && outcomes.iter().any(did_not_run) {
            Prior::Skipped
        } else if outcomes.iter().any(failed) {
            Prior::Failed
        } else if outcomes.contains(&JobOutcome::Canceled) {
            Prior::Canceled
        } else if !outcomes.is_empty() && outcomes.iter().all(did_not_run) {
            Prior::Skipped
        } else {
            Prior::Success
        }
    }

    fn awaited<'a>(&'a self, job: &'a Job) -> Box<dyn Iterator<Item = &'a Job> + 'a> {
        match &job.needs {
            Some(needs) => Box::new(needs.iter().map(|need| &self.jobs[*need])),
            None => Box::new(self.jobs.iter().filter(|other| other.stage_index < job.stage_index)),
        }
    }

    fn outcome(&self) -> Option<PipelineOutcome> {
        let mut has_run = false;
        let mut has_failed = false;
        let mut has_canceled = false;
        for job in &self.jobs {
            let JobState::Finished(outcome) = job.state else { return None };
            match outcome {
                JobOutcome::Success | JobOutcome::Failed { allowed: true } => has_run = true,
                JobOutcome::Failed { allowed: false } => has_failed = true,
                JobOutcome::Canceled => has_canceled = true,
                JobOutcome::Skipped | JobOutcome::Manual => {}
            }
        }
        Some(match (self.is_canceled && has_canceled, has_failed, has_run) {
            (true, _, _) => PipelineOutcome::Canceled,
            (_, true, _) => PipelineOutcome::Failed,
            (_, _, true) => PipelineOutcome::Success,
            _ => PipelineOutcome::Skipped,
        })
    }
}

impl Job {
    fn allows(&self, exit_code: Option<i32>) -> bool {
        match &self.allow_failure {
            AllowFailure::Never => false,
            AllowFailure::Always => true,
            AllowFailure::ExitCodes(codes) => exit_code.is_some_and(|code| codes.contains(&code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use PipelineOutcome::{Failed, Skipped, Success};

    use super::*;
    use crate::coordinator::{Context, pipeline};

    /// Runs a pipeline to its end. `script` of a job is `ok`, or `fail` with an optional exit
    /// code; gives "name:outcome" for each job in file order, and the pipeline's outcome.
    fn play(text: &str) -> (Vec<String>, PipelineOutcome) {
        let pipeline = pipeline::compile(text, "f", &Context::default(), &[]).expect("compiles");
        let (mut run, mut changes) = Run::new(&pipeline.jobs);
        while let Some(job) = run.take() {
            let script = &pipeline.jobs[job].scripts.script[0];
            let report = match script.strip_prefix("fail") {
                Some(code) => Report::Failed { exit_code: code.trim().parse().ok() },
                None => Report::Success,
            };
            changes.extend(run.finish(job, report));
        }
        let names = pipeline.jobs.iter().enumerate();
        let ends = names.map(|(index, job)| match run.state(index) {
            JobState::Finished(JobOutcome::Failed { allowed: true }) => {
                format!("{}:warning", job.name)
            }
            JobState::Finished(JobOutcome::Failed { .. }) => format!("{}:failed", job.name),
            JobState::Finished(outcome) => format!("{}:{outcome:?}", job.name).to_lowercase(),
            state => panic!("{} is {state:?}", job.name),
        });
        let ends = ends.collect();
        match changes.last() {
            Some(Change::Pipeline(outcome)) => (ends, *outcome),
            other => panic!("the last change is {other:?}"),
        }
    }

    /// Jobs below three stages, the end of each, and the pipeline's.
    const COURSES: &[(&str, &str, PipelineOutcome)] = &[
        ("a: {script: ok, stage: b}\nc: {script: ok, stage: t}", "a:success c:success", Success),
        ("a: {script: fail, stage: b}\nc: {script: ok, stage: t}", "a:failed c:skipped", Failed),
        (
            "a: {script: fail, stage: b, allow_failure: true}\nc: {script: ok, stage: t}",
            "a:warning c:success",
            Success,
        ),
        (
            "a: {script: fail 3, stage: b, allow_failure: {exit_codes: [2, 3]}}\nc: {script: ok, stage: t}",
            "a:warning c:success",
            Success,
        ),
        (
            "a: {script: fail 4, stage: b, allow_failure: {exit_codes: 3}}\nc: {script: ok, stage: t}",
            "a:failed c:skipped",
            Failed,
        ),
        (
            "a: {script: fail, stage: b}\nc: {script: ok, stage: t, when: on_failure}\nd: {script: ok, stage: d, when: always}",
            "a:failed c:success d:success",
            Failed,
        ),
        (
            "a: {script: ok, stage: b}\nc: {script: ok, stage: t, when: on_failure}\nd: {script: ok, stage: d}",
            "a:success c:skipped d:success",
            Success,
        ),
        (
            "a: {script: fail, stage: b}\nx: {script: ok, stage: t}\nc: {script: ok, stage: d, when: on_failure}",
            "a:failed x:skipped c:success",
            Failed,
        ),
        (
            "a: {script: fail, stage: b}\nc: {script: ok, stage: t, needs: []}\nd: {script: ok, stage: d, needs: [c]}",
            "a:failed c:success d:success",
            Failed,
        ),
        (
            "a: {script: fail, stage: b}\nc: {script: ok, stage: t, needs: [a]}\nd: {script: ok, stage: d, needs: [c]}\ne: {script: ok, stage: d, needs: [c], when: always}",
            "a:failed c:skipped d:skipped e:success",
            Failed,
        ),
        (
            "a: {script: ok, stage: b, when: manual}\nc: {script: ok, stage: t}\nd: {script: ok, stage: t, needs: [a]}",
            "a:manual c:success d:skipped",
            Success,
        ),
        (
            "a: {script: ok, stage: b, when: manual, allow_failure: false}\nc: {script: ok, stage: t}\nd: {script: ok, stage: d}",
            "a:manual c:skipped d:skipped",
            Skipped,
        ),
        ("a: {script: ok, stage: b, when: manual}", "a:manual", Skipped),
        (
            "a: {script: ok, stage: t, needs: [c]}\nc: {script: ok, stage: t}",
            "a:success c:success",
            Success,
        ),
    ];

    #[test]
    fn courses() {
        for (text, ends, outcome) in COURSES {
            let (got, end) = play(&format!("stages: [b, t, d]\n{text}"));
            assert_eq!((got.join(" ").as_str(), end), (*ends, *outcome), "{text}");
        }
    }

    fn start(text: &str) -> (Run, Vec<Change>) {
        let pipeline = pipeline::compile(text, "f", &Context::default(), &[]).expect("compiles");
        Run::new(&pipeline.jobs)
    }

    #[test]
    fn jobs_start_as_soon_as_they_may() {
        let (mut run, changes) = start(
            "a: {script: x, stage: build}\nb: {script: x, stage: build}\nc: {script: x}\nd: {script: x, needs: [b]}",
        );
        assert_eq!(changes, [Change::Queued(0), Change::Queued(1)]);
        assert_eq!((run.take(), run.take(), run.take()), (Some(0), Some(1), None));
        assert_eq!(run.finish(1, Report::Success)[1..], [Change::Queued(3)]);
        assert_eq!(run.finish(0, Report::Success)[1..], [Change::Queued(2)]);
        assert_eq!(run.finish(0, Report::Success), [], "a job ends once");
        assert_eq!(run.take(), Some(2));
    }

    #[test]
    fn canceling() {
        let (mut run, _) = start("a: {script: x}\nb: {script: x}\nc: {script: x, stage: deploy}");
        assert_eq!((run.take(), run.take()), (Some(0), Some(1)));
        let canceled = |job| Change::Finished(job, JobOutcome::Canceled);
        assert_eq!(run.cancel(|job| job == 0), [canceled(1), canceled(2)]);
        assert_eq!(run.state(0), JobState::Canceling);
        assert_eq!(run.take(), None);
        let end = Change::Pipeline(PipelineOutcome::Canceled);
        assert_eq!(run.finish(0, Report::Success), [canceled(0), end]);
        assert_eq!(run.cancel(|_| false), [], "it is over");
    }

    #[test]
    fn canceling_what_has_ended_changes_nothing() {
        let (mut run, _) = start("a: {script: x}");
        run.take();
        run.finish(0, Report::Success);
        assert_eq!(run.cancel(|_| true), []);
        assert_eq!(run.outcome(), Some(PipelineOutcome::Success));
    }

    #[test]
    fn a_second_cancel_ends_what_the_first_only_asked() {
        let (mut run, _) = start("a: {script: x}");
        run.take();
        assert_eq!(run.cancel(|_| true), []);
        let changes = run.cancel(|_| false);
        assert_eq!(changes[0], Change::Finished(0, JobOutcome::Canceled));
        assert_eq!(changes[1], Change::Pipeline(PipelineOutcome::Canceled));
    }
}
