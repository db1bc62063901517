//! Pure. `.gitlab-ci.yml` to a pipeline of jobs: the compiler.
//!
//! It understands a subset of GitLab's language and means by it what GitLab means; any other
//! keyword is a finding with a place and a way around it, never silently skipped. All
//! findings of a file come at once. `include`, `extends`, `rules` and containers are absent.

mod diagnostic;
mod duration;
mod fields;
mod file;
mod graph;
mod job;
mod keywords;
mod scalar;
mod yaml;

use std::time::Duration;

pub use diagnostic::{Diagnostic, Position};

use self::diagnostic::{Findings, Source, Span};
use super::context::Context;

/// Largest file that is read: GitLab's own limit.
const FILE_LIMIT: usize = 1 << 20;

/// A compiled pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// All stages in order, `.pre` first and `.post` last.
    pub stages: Vec<String>,
    /// The jobs that are part of this run, in file order.
    pub jobs: Vec<CompiledJob>,
    /// What the user should know although it stops nothing.
    pub notes: Vec<String>,
    /// What the pipeline was compiled with.
    pub context: Context,
}

/// One job, defaults applied.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledJob {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// Its stage's name.
    pub stage: String,
    /// Its stage's place in [`Pipeline::stages`].
    pub stage_index: usize,
    /// The jobs it waits for; `None`: all jobs of earlier stages; empty: none.
    pub needs: Option<Vec<Need>>,
    /// What it runs.
    pub scripts: Scripts,
    /// Variables of the file and the job, the job's winning, in order of appearance.
    pub variables: Vec<Variable>,
    /// What it leaves behind.
    pub artifacts: Option<Artifacts>,
    /// Which of its failures do not fail the pipeline.
    pub allow_failure: AllowFailure,
    /// When it runs.
    pub when: When,
    /// How long it may take.
    pub timeout: Duration,
}

/// The commands of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scripts {
    /// Run before `script`, in the same shell.
    pub before: Vec<String>,
    /// The job itself; never empty.
    pub script: Vec<String>,
    /// Run afterwards in any case, in a shell of its own.
    pub after: Vec<String>,
}

/// A job that another one waits for. It is part of the same pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The job's name.
    pub job: String,
    /// Whether its artifacts are wanted.
    pub artifacts: bool,
}

/// A variable from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value as written.
    pub value: String,
    /// Whether `$` in the value is only a dollar sign (`expand: false`).
    pub raw: bool,
}

/// `artifacts` of a job: one archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Artifacts {
    /// Patterns of what goes in.
    pub paths: Vec<String>,
    /// Patterns of what stays out.
    pub exclude: Vec<String>,
    /// The archive's name.
    pub name: Option<String>,
    /// Whether all files that git does not track go in.
    pub untracked: bool,
    /// How long they are wanted, as written.
    pub expire_in: Option<String>,
    /// For which result of the job they are kept.
    pub when: ArtifactsWhen,
}

/// `artifacts:when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArtifactsWhen {
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
pub enum AllowFailure {
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
pub enum When {
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

/// Compiles the text of a pipeline file. `only` are the jobs named on the command line: they,
/// and what they need, make the pipeline; when it is empty, every job of the file does.
///
/// # Errors
/// All findings, in file order.
pub fn compile(
    text: &str,
    file_name: &str,
    context: &Context,
    only: &[String],
) -> Result<Pipeline, Vec<Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::new(Source::new(file_name, text));
    let compiled = read(&mut findings, only);
    let notes = findings.into_result()?;
    let (stages, jobs) = compiled.unwrap_or_default();
    Ok(Pipeline { stages, jobs, notes, context: context.clone() })
}

fn read(findings: &mut Findings<'_>, only: &[String]) -> Option<(Vec<String>, Vec<CompiledJob>)> {
    let start = Span { start: 0, end: findings.source.line_end(0) };
    if findings.source.text().len() > FILE_LIMIT {
        findings.error(start, "the file is larger than 1 MiB", None);
        return None;
    }
    let root = yaml::parse(findings);
    if let Some(root) = root {
        let file = file::read(&root, findings);
        if file.jobs.is_empty() && findings.is_clean() {
            let hint = "write one: `hello:` and below it `script: [echo hello]`";
            findings.error(start, "the file has no jobs", Some(hint.into()));
        }
        return graph::link(file, only, findings);
    }
    if findings.is_clean() {
        findings.error(start, "the file is empty", None);
    }
    None
}

#[cfg(test)]
mod tests;
