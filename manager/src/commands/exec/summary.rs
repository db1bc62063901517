//! How a pipeline went: where each job's time went, the tail of what failed, the result.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::progress::mark;
use super::timeline::{Parts, Timelines};
use crate::coordinator::pipeline::Pipeline;
use crate::coordinator::server::JobStatus;
use crate::coordinator::{JobOutcome, JobState, PipelineOutcome};

/// Lines of a failed job's log that are shown.
const TAIL_LINES: usize = 20;
/// Most of a log that is read for its tail.
const TAIL_BYTES: u64 = 64 * 1024;
/// Columns of the bar and of the names: a line has 80.
const BAR: usize = 20;
const NAME: usize = 18;

pub(super) struct Summary<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) outcome: PipelineOutcome,
    pub(super) jobs: &'a [JobStatus],
    pub(super) timelines: &'a Timelines,
}

impl Summary<'_> {
    pub(super) fn json(&self, log: impl Fn(usize) -> PathBuf) -> serde_json::Value {
        let jobs: Vec<_> = self
            .jobs
            .iter()
            .enumerate()
            .map(|(index, job)| {
                let path = log(index);
                json!({
                    "name": job.name, "stage": job.stage, "state": job.state,
                    "exit_code": job.exit_code, "failure_reason": job.failure_reason,
                    "instance": self.timelines.of(index).instance(),
                    "times": job.times, "timeline": self.parts(index),
                    "log": path.exists().then_some(path),
                })
            })
            .collect();
        json!({"outcome": self.outcome, "jobs": jobs, "notes": self.pipeline.notes})
    }

    pub(super) fn text(&self, log: impl Fn(usize) -> PathBuf) -> String {
        let mut text = String::new();
        for (index, job) in self.jobs.iter().enumerate() {
            if matches!(job.state, JobState::Finished(JobOutcome::Failed { allowed: false })) {
                let path = log(index);
                let _ = writeln!(text, "\n--- {}: the end of {}", job.name, path.display());
                text.push_str(&tail(&path));
            }
        }
        text.push_str(&self.table());
        if let Some(dir) = log(0).parent() {
            let _ = writeln!(text, "\nlogs: {}", dir.display());
        }
        let word = match self.outcome {
            PipelineOutcome::Success => "passed",
            PipelineOutcome::Failed => "failed",
            PipelineOutcome::Canceled => "canceled",
            PipelineOutcome::Skipped => "skipped: no job ran",
        };
        let _ = writeln!(text, "pipeline {word}");
        text
    }

    /// One line per job, 80 columns: seconds by part, and the same as a bar on the
    /// pipeline's time.
    fn table(&self) -> String {
        let mut text = format!(
            "\n  {:NAME$} {:>6}{:>6}{:>6}{:>6}{:>7}{:>6} \n",
            "seconds", "waited", "boot", "prep", "src", "script", "other"
        );
        let start = self.jobs.iter().filter_map(|job| job.times.queued).min();
        let end = self.jobs.iter().filter_map(|job| job.times.finished).max();
        let span =
            start.zip(end).map_or(0.0, |(start, end)| end.duration_since(start).as_secs_f64());
        for (index, job) in self.jobs.iter().enumerate() {
            let JobState::Finished(outcome) = job.state else {
                continue;
            };
            let parts = self.parts(index);
            let name: String = job.name.chars().take(NAME).collect();
            let [sources, script, other] = parts.columns();
            let _ = write!(
                text,
                "{} {name:NAME$} {:6.2}{:6.2}{:6.2}{sources:6.2}{script:7.2}{other:6.2} ",
                mark(outcome),
                parts.waited_s,
                parts.booted_s,
                parts.prepared_s
            );
            let before = start
                .zip(job.times.queued)
                .map_or(0.0, |(start, queued)| queued.duration_since(start).as_secs_f64());
            text.push_str(&bar(&parts, before, span));
            text.push('\n');
        }
        let _ = writeln!(text, "  bars over {span:.2} s: . waited, b boot, # running");
        text
    }

    fn parts(&self, job: usize) -> Parts {
        let queued = self.jobs[job].times.queued.map(SystemTime::from);
        self.timelines.of(job).parts(queued)
    }
}

/// A job on the pipeline's time.
fn bar(parts: &Parts, before: f64, span: f64) -> String {
    if span <= 0.0 || parts.total() <= 0.0 {
        return String::new();
    }
    let column = |seconds: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the bar"
        )]
        let column = (seconds / span * BAR as f64).round().clamp(0.0, BAR as f64) as usize;
        column
    };
    let waited = column(before + parts.waited_s);
    let booted = column(before + parts.waited_s + parts.booted_s + parts.prepared_s);
    let end = column(before + parts.total()).max(booted + 1).min(BAR.max(booted + 1));
    let begin = column(before);
    format!(
        "{}{}{}{}",
        " ".repeat(begin),
        ".".repeat(waited - begin),
        "b".repeat(booted - waited),
        "#".repeat(end - booted)
    )
}

/// The last lines of a log, without section marks.
fn tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Ok(bytes) = read() else {
        return "(no log)\n".into();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> =
        text.lines().map(without_marks).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("{line}\n")).collect()
}

/// `section_start:…` and its kind are for GitLab's viewer.
fn without_marks(line: &str) -> String {
    let visible = line.split('\r').filter(|part| {
        let part = part.trim_start_matches("\x1b[0K");
        !part.starts_with("section_start:") && !part.starts_with("section_end:")
    });
    visible.collect::<Vec<_>>().join("\r").replace("\x1b[0K", "")
}

#[cfg(test)]
mod tests {
    use super::super::timeline::Stage;
    use super::*;

    #[test]
    fn marks_are_taken_out_of_a_line() {
        let line =
            "section_end:1:a\r\x1b[0Ksection_start:2:b\r\x1b[0K\x1b[0K\x1b[36;1mTitle\x1b[0;m";
        assert_eq!(without_marks(line), "\x1b[36;1mTitle\x1b[0;m");
        assert_eq!(without_marks("plain"), "plain");
    }

    #[test]
    fn bars_lie_on_the_pipelines_time() {
        let parts = |waited_s, booted_s, running| Parts {
            waited_s,
            booted_s,
            prepared_s: 0.0,
            stages: vec![Stage { name: "step_script".into(), seconds: running }],
        };
        assert_eq!(
            bar(&parts(0.0, 6.0, 14.0), 0.0, 20.0),
            format!("{}{}", "b".repeat(6), "#".repeat(14))
        );
        assert_eq!(bar(&parts(2.0, 0.0, 1.0), 17.0, 20.0), format!("{}..#", " ".repeat(17)));
        assert_eq!(bar(&parts(0.0, 0.0, 0.001), 20.0, 20.0), format!("{}#", " ".repeat(20)));
        assert_eq!(bar(&parts(0.0, 0.0, 0.0), 0.0, 20.0), "");
    }
}
