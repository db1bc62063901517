//! Which stage comes next, given how the last one ended. Pure.
//!
//! The rules are GitLab Runner's: preparation failing ends the job at once; sources or
//! downloads failing skip the scripts, but artifacts of failed jobs and the cleanup still
//! run; a script failing skips the scripts after it. A graceful cancel before the scripts
//! ends the job; during them it ends the script, and what follows a failure still runs.

use crate::outcome::{FailureReason, Outcome};
use crate::plan::{Plan, Role, Stage, When};

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It did what it should.
    Ok,
    /// Its script or program ended with this code.
    Exit(i32),
    /// It could not be run at all.
    Broken(String),
    /// It knows better than an exit code what became of it.
    Failed(Outcome),
    /// It ran into its own time limit.
    TimedOut {
        /// The limit in seconds.
        limit_s: u64,
    },
}

/// What the job's scripts see as `CI_JOB_STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing failed so far.
    Running,
    /// All scripts ended well.
    Success,
    /// A script or a stage before it failed.
    Failed,
    /// The job is being canceled.
    Canceled,
}

impl Status {
    /// GitLab's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// What a request to cancel means now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum CancelEffect {
    /// Stop the stage that runs; [`Sequence::due`] knows how it goes on.
    StopStage,
    /// Nothing: after_script or the cleanup runs, or it was canceled before.
    Nothing,
}

/// Walks through the stages of one plan.
#[derive(Debug)]
pub struct Sequence {
    stages: Vec<Facts>,
    at: usize,
    attempt: u32,
    scripts_began: bool,
    after_script_counts: bool,
    canceled: bool,
    /// Nothing but the cleanup runs any more.
    over: bool,
    /// The first failure that counts.
    failure: Option<Outcome>,
}

#[derive(Debug)]
struct Facts {
    name: String,
    role: Role,
    when: When,
    attempts: u32,
}

impl Facts {
    fn of(stage: &Stage) -> Self {
        Self {
            name: stage.name.clone(),
            role: stage.role(),
            when: stage.when(),
            attempts: stage.attempts.max(1),
        }
    }
}

impl Sequence {
    /// Stands before the first stage.
    pub fn new(plan: &Plan) -> Self {
        Self {
            stages: plan.stages.iter().map(Facts::of).collect(),
            at: 0,
            attempt: 0,
            scripts_began: false,
            after_script_counts: plan.after_script_counts,
            canceled: false,
            over: false,
            failure: None,
        }
    }

    /// Index of the stage to run now; `None` when the job is over.
    pub fn due(&mut self) -> Option<usize> {
        while let Some(stage) = self.stages.get(self.at) {
            if self.is_due(stage) {
                self.scripts_began |= stage.role == Role::Step;
                return Some(self.at);
            }
            self.at += 1;
        }
        None
    }

    /// Takes the result of the stage that [`due`](Self::due) named. Returns whether it
    /// is tried once more.
    pub fn ended(&mut self, ended: &Ended) -> bool {
        let Some(stage) = self.stages.get(self.at) else {
            return false;
        };
        self.attempt += 1;
        let again = *ended != Ended::Ok && self.attempt < stage.attempts && !self.canceled;
        if again {
            return true;
        }
        let failure = self.failure_of(stage, ended);
        let timed_out = matches!(ended, Ended::TimedOut { .. });
        // A preparation that failed, and sources that took too long, end the job at once.
        if failure.is_some()
            && (stage.role == Role::Preparation || stage.role == Role::Sources && timed_out)
        {
            self.over = true;
        }
        self.failure = self.failure.take().or(failure);
        self.at += 1;
        self.attempt = 0;
        false
    }

    /// A graceful cancel.
    pub fn cancel(&mut self) -> CancelEffect {
        let role = self.stages.get(self.at).map(|stage| stage.role);
        if self.canceled || matches!(role, None | Some(Role::AfterScript | Role::Cleanup)) {
            return CancelEffect::Nothing;
        }
        self.canceled = true;
        self.over |= role != Some(Role::Step);
        self.fail(Outcome::failure(FailureReason::JobCanceled, "canceled"));
        CancelEffect::StopStage
    }

    /// Ends the job for a reason from outside. The first reason stands.
    pub fn abort(&mut self, outcome: Outcome) {
        self.over = true;
        self.fail(outcome);
    }

    /// Whether all that is left is to clean up.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The status that scripts see now.
    pub fn status(&self) -> Status {
        let scripts_left =
            self.stages.get(self.at..).unwrap_or_default().iter().any(|s| s.role == Role::Step);
        match &self.failure {
            _ if self.canceled => Status::Canceled,
            Some(_) => Status::Failed,
            None if scripts_left => Status::Running,
            None => Status::Success,
        }
    }

    /// The job's outcome so far.
    pub fn outcome(&self) -> Outcome {
        self.failure.clone().unwrap_or_else(Outcome::success)
    }

    fn fail(&mut self, outcome: Outcome) {
        self.failure.get_or_insert(outcome);
    }

    fn is_due(&self, stage: &Facts) -> bool {
        if self.over {
            return stage.role == Role::Cleanup;
        }
        let failed = self.failure.is_some();
        match stage.role {
            Role::Preparation | Role::Sources | Role::Downloads | Role::Step => !failed,
            Role::AfterScript => self.scripts_began,
            Role::Uploads => match stage.when {
                When::OnSuccess => !failed,
                When::OnFailure => failed,
                When::Always => true,
            },
            Role::Cleanup => true,
        }
    }

    fn failure_of(&self, stage: &Facts, ended: &Ended) -> Option<Outcome> {
        let system = |what: String| {
            let message = format!("{}: {what}", stage.name);
            Outcome::failure(FailureReason::RunnerSystemFailure, message)
        };
        match (stage.role, ended) {
            (_, Ended::Ok) | (Role::Cleanup, _) => None,
            (Role::AfterScript, _) if !self.after_script_counts => None,
            (_, Ended::Failed(outcome)) => Some(outcome.clone()),
            (Role::Step | Role::AfterScript, Ended::Exit(code)) => {
                Some(Outcome::script_failure(*code))
            }
            (_, Ended::TimedOut { limit_s }) => Some(timeout(*limit_s)),
            (_, Ended::Exit(code)) => Some(system(format!("exit code {code}"))),
            (_, Ended::Broken(why)) => Some(system(why.clone())),
        }
    }
}

/// The outcome of a job that took longer than it may.
pub fn timeout(limit_s: u64) -> Outcome {
    Outcome::failure(
        FailureReason::JobExecutionTimeout,
        format!("execution took longer than {limit_s}s seconds"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, role: Role, when: When) -> Stage {
        Stage { name: name.into(), role: role.into(), when: when.into(), ..Stage::default() }
    }

    fn plan() -> Plan {
        let on_success = When::OnSuccess;
        Plan {
            stages: vec![
                stage("prepare_script", Role::Preparation, on_success),
                Stage { attempts: 2, ..stage("get_sources", Role::Sources, on_success) },
                stage("download_artifacts", Role::Downloads, on_success),
                stage("step_script", Role::Step, on_success),
                stage("step_release", Role::Step, on_success),
                stage("after_script", Role::AfterScript, on_success),
                stage("upload_artifacts_on_success", Role::Uploads, on_success),
                stage("upload_artifacts_on_failure", Role::Uploads, When::OnFailure),
                stage("cleanup_file_variables", Role::Cleanup, on_success),
            ],
            ..Plan::default()
        }
    }

    /// Runs the plan; `result` says how each stage ends, or cancels while it runs.
    fn run(mut result: impl FnMut(&str, &mut Sequence) -> Ended) -> (Vec<String>, Outcome) {
        let mut sequence = Sequence::new(&plan());
        let mut ran = Vec::new();
        while let Some(index) = sequence.due() {
            let name = sequence.stages[index].name.clone();
            ran.push(name.split('_').next().unwrap_or_default().to_owned());
            let ended = result(&name, &mut sequence);
            sequence.ended(&ended);
        }
        (ran, sequence.outcome())
    }

    #[test]
    fn all_goes_well() {
        let (ran, outcome) = run(|_, _| Ended::Ok);
        assert_eq!(ran.join(" "), "prepare get download step step after upload cleanup");
        assert!(outcome.success);
    }

    #[test]
    fn failures_skip_what_gitlab_skips() {
        let cases = [
            ("prepare_script", "prepare cleanup"),
            ("get_sources", "prepare get get upload cleanup"),
            ("download_artifacts", "prepare get download upload cleanup"),
            ("step_script", "prepare get download step after upload cleanup"),
            ("step_release", "prepare get download step step after upload cleanup"),
            ("after_script", "prepare get download step step after upload cleanup"),
        ];
        for (failing, expected) in cases {
            let fail = |name: &str, _: &mut Sequence| {
                if name == failing { Ended::Exit(3) } else { Ended::Ok }
            };
            let (ran, outcome) = run(fail);
            assert_eq!(ran.join(" "), expected, "{failing}");
            let reason = match failing {
                "after_script" => None,
                name if name.starts_with("step") => Some(FailureReason::ScriptFailure),
                _ => Some(FailureReason::RunnerSystemFailure),
            };
            assert_eq!((!outcome.success).then(|| outcome.reason()), reason, "{failing}");
        }
    }

    #[test]
    fn a_second_attempt_may_succeed() {
        let mut tries = 0;
        let (ran, outcome) = run(|name, _| {
            tries += u32::from(name == "get_sources");
            if name == "get_sources" && tries == 1 { Ended::Exit(128) } else { Ended::Ok }
        });
        assert_eq!(ran.join(" "), "prepare get get download step step after upload cleanup");
        assert!(outcome.success);
    }

    #[test]
    fn a_cancel_depends_on_the_stage() {
        let cases = [
            ("prepare_script", "prepare cleanup", true),
            ("get_sources", "prepare get cleanup", true),
            ("step_script", "prepare get download step after upload cleanup", true),
            ("after_script", "prepare get download step step after upload cleanup", false),
            (
                "upload_artifacts_on_success",
                "prepare get download step step after upload cleanup",
                true,
            ),
        ];
        for (during, expected, canceled) in cases {
            let (ran, outcome) = run(|name, sequence| {
                if name != during {
                    return Ended::Ok;
                }
                match sequence.cancel() {
                    CancelEffect::StopStage => Ended::Exit(143),
                    CancelEffect::Nothing => Ended::Ok,
                }
            });
            assert_eq!(ran.join(" "), expected, "{during}");
            assert_eq!(outcome.reason() == FailureReason::JobCanceled, canceled, "{during}");
        }
    }

    #[test]
    fn an_abort_leaves_only_the_cleanup_and_its_reason_stands() {
        let (ran, outcome) = run(|name, sequence| {
            if name == "step_script" {
                sequence.abort(timeout(5));
                return Ended::Exit(143);
            }
            Ended::Ok
        });
        assert_eq!(ran.join(" "), "prepare get download step cleanup");
        assert_eq!(outcome.reason(), FailureReason::JobExecutionTimeout);
        assert_eq!(outcome.message, "execution took longer than 5s seconds");
    }

    #[test]
    fn a_script_timeout_still_runs_what_follows_a_failure() {
        let (ran, outcome) = run(|name, _| match name {
            "step_script" => Ended::TimedOut { limit_s: 60 },
            _ => Ended::Ok,
        });
        assert_eq!(ran.join(" "), "prepare get download step after upload cleanup");
        assert_eq!(outcome.reason(), FailureReason::JobExecutionTimeout);
    }

    #[test]
    fn scripts_see_how_the_job_stands() {
        let mut seen = Vec::new();
        run(|name, sequence| {
            if name.contains("script") {
                seen.push((name.to_owned(), sequence.status().as_str()));
            }
            if name == "step_script" { Ended::Exit(1) } else { Ended::Ok }
        });
        let seen: Vec<_> = seen.iter().map(|(name, status)| format!("{name}={status}")).collect();
        assert_eq!(
            seen.join(" "),
            "prepare_script=running step_script=running after_script=failed"
        );
    }
}
