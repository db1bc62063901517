//! Pure. A compiled pipeline: what the rest of the coordinator knows of a pipeline file.

use std::time::Duration;

use crate::coordinator::Context;

/// A compiled pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    /// All stages in order, `.pre` first and `.post` last.
    pub(crate) stages: Vec<String>,
    /// The jobs that are part of this run, in file order.
    pub(crate) jobs: Vec<CompiledJob>,
    /// What the user should know although it stops nothing.
    pub(crate) notes: Vec<String>,
    /// What the pipeline was compiled with.
    pub(crate) context: Context,
}

/// One job, defaults applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompiledJob {
    /// Its name, unique in the pipeline.
    pub(crate) name: String,
    /// Its stage's name.
    pub(crate) stage: String,
    /// Its stage's place in [`Pipeline::stages`].
    pub(crate) stage_index: usize,
    /// The jobs it waits for; `None`: all jobs of earlier stages; empty: none.
    pub(crate) needs: Option<Vec<Need>>,
    /// What it runs.
    pub(crate) scripts: Scripts,
    /// The image of its container; `None` where it has none, or the runner's.
    pub(crate) image: Option<Image>,
    /// Containers beside its own.
    pub(crate) services: Vec<Service>,
    /// Variables of the file and the job, the job's winning, in order of appearance.
    pub(crate) variables: Vec<Variable>,
    /// What it leaves behind.
    pub(crate) artifacts: Option<Artifacts>,
    /// Which of its failures do not fail the pipeline.
    pub(crate) allow_failure: AllowFailure,
    /// When it runs.
    pub(crate) when: When,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// The commands of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scripts {
    /// Run before `script`, in the same shell.
    pub(crate) before: Vec<String>,
    /// The job itself; never empty.
    pub(crate) script: Vec<String>,
    /// Run afterwards in any case, in a shell of its own.
    pub(crate) after: Vec<String>,
}

/// A container image, and how it is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Image {
    /// Its name as written.
    pub(crate) name: String,
    /// Replaces the image's entrypoint.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// `always`, `if-not-present` or `never`, in the order in which they are tried; empty is
    /// the runner's.
    pub(crate) pull_policy: Vec<String>,
    /// `docker:platform`, as os/architecture.
    pub(crate) platform: Option<String>,
    /// `docker:user`.
    pub(crate) user: Option<String>,
}

/// A container beside the job's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Service {
    /// What it runs.
    pub(crate) image: Image,
    /// More names under which the job reaches it, separated by blanks or commas.
    pub(crate) alias: Option<String>,
    /// Replaces the image's command.
    pub(crate) command: Option<Vec<String>>,
    /// Its own variables, beside the job's.
    pub(crate) variables: Vec<Variable>,
}

/// A job that another one waits for. It is part of the same pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// The job's name.
    pub(crate) job: String,
    /// Whether its artifacts are wanted.
    pub(crate) artifacts: bool,
}

/// A variable from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// Its value as written.
    pub(crate) value: String,
    /// Whether `$` in the value is only a dollar sign (`expand: false`).
    pub(crate) raw: bool,
}

/// `artifacts` of a job: one archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Artifacts {
    /// Patterns of what goes in.
    pub(crate) paths: Vec<String>,
    /// Patterns of what stays out.
    pub(crate) exclude: Vec<String>,
    /// The archive's name.
    pub(crate) name: Option<String>,
    /// Whether all files that git does not track go in.
    pub(crate) untracked: bool,
    /// How long they are wanted, as written.
    pub(crate) expire_in: Option<String>,
    /// For which result of the job they are kept.
    pub(crate) when: ArtifactsWhen,
}

/// `artifacts:when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ArtifactsWhen {
    /// Only of a job that succeeded.
    #[default]
    OnSuccess,
    /// Only of a job that failed.
    OnFailure,
    /// In any case.
    Always,
}

/// `allow_failure`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum AllowFailure {
    /// No failure is allowed.
    #[default]
    Never,
    /// Any failure is.
    Always,
    /// A failure with one of these exit codes is.
    ExitCodes(Vec<i32>),
}

/// `when` of a job that is part of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum When {
    /// After success of what it waits for.
    #[default]
    OnSuccess,
    /// After a failure among what it waits for.
    OnFailure,
    /// After the end of what it waits for.
    Always,
    /// Started by hand only: not in this run. One named on the command line is `OnSuccess`.
    Manual,
}
