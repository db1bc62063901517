//! Pure. The way from text to pipeline: parse, read, link.

use super::{
    CompiledJob, Diagnostic, Pipeline,
    diagnostic::{Findings, Source, Span},
    file, graph, yaml,
};
use crate::coordinator::{Context, Executor};

/// Largest file that is read: GitLab's own limit.
const FILE_LIMIT: usize = 1 << 20;

/// Compiles the text of a pipeline file. `only` are the jobs named on the command line: they,
/// and what they need, make the pipeline; when it is empty, every job of the file does.
///
/// # Errors
/// All findings, in file order.
pub(crate) fn compile(
    text: &str,
    file_name: &str,
    context: &Context,
    only: &[String],
) -> Result<Pipeline, Vec<Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::new(Source::new(file_name, text));
    let compiled = read(&mut findings, context.executor, only);
    let notes = findings.into_result()?;
    let (stages, jobs) = compiled.unwrap_or_default();
    Ok(Pipeline { stages, jobs, notes, context: context.clone() })
}

fn read(
    findings: &mut Findings<'_>,
    executor: Executor,
    only: &[String],
) -> Option<(Vec<String>, Vec<CompiledJob>)> {
    let start = Span { start: 0, end: findings.source.line_end(0) };
    if findings.source.text().len() > FILE_LIMIT {
        findings.error(start, "the file is larger than 1 MiB", None);
        return None;
    }
    let root = yaml::parse(findings);
    if let Some(root) = root {
        let file = file::read(&root, executor, findings);
        if file.jobs.is_empty() && findings.is_clean() {
            let hint = "write one: `hello:` and below it `script: [echo hello]`";
            findings.error(start, "the file has no jobs", Some(hint.into()));
        }
        return graph::link(file, executor, only, findings);
    }
    if findings.is_clean() {
        findings.error(start, "the file is empty", None);
    }
    None
}
