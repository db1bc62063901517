//! A pipeline as it goes: a line for each thing that happens, and on a terminal one more
//! that says what runs now.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::coordinator::JobOutcome;
use crate::coordinator::pipeline::Pipeline;
use crate::coordinator::server::{Event, EventKind};

/// How often the line of what runs is written anew.
pub(super) const TICK: Duration = Duration::from_millis(100);
const CLEAR_LINE: &str = "\r\x1b[K";
const WIDTH: usize = 79;

pub(super) struct Progress {
    names: Vec<String>,
    quiet: bool,
    terminal: bool,
    begun: Instant,
    running: BTreeMap<usize, Instant>,
    done: usize,
    /// The line of what runs is on the screen.
    shown: bool,
}

impl Progress {
    pub(super) fn new(pipeline: &Pipeline, quiet: bool) -> Self {
        let progress = Self {
            names: pipeline.jobs.iter().map(|job| job.name.clone()).collect(),
            quiet,
            terminal: std::io::stdout().is_terminal(),
            begun: Instant::now(),
            running: BTreeMap::new(),
            done: 0,
            shown: false,
        };
        if !quiet {
            let context = &pipeline.context;
            let used = |stage: &&String| pipeline.jobs.iter().any(|job| job.stage == **stage);
            let stages: Vec<&str> =
                pipeline.stages.iter().filter(used).map(String::as_str).collect();
            let sha = context.commit.sha.get(..8).unwrap_or_default();
            println!(
                "{} at {} ({sha}): {} jobs in {}",
                context.project.path,
                context.commit.branch,
                pipeline.jobs.len(),
                stages.join(", ")
            );
        }
        progress
    }

    /// A job begins on an instance.
    pub(super) fn begun(&mut self, job: usize, instance: &str) {
        self.running.insert(job, Instant::now());
        let name = self.names[job].clone();
        self.line(&format!("> {name} on {instance}"));
    }

    /// Something happened at the coordinator.
    pub(super) fn event(&mut self, event: &Event) {
        if let EventKind::JobFinished { job, outcome, exit_code, failure_reason } = &event.kind {
            self.done += 1;
            let took = self.running.remove(job).map(|begun| begun.elapsed());
            let text = ended(*outcome, *exit_code, failure_reason.as_deref(), took);
            let name = self.names[*job].clone();
            self.line(&format!("{} {name}{text}", mark(*outcome)));
        }
    }

    /// Writes what runs now, on a terminal.
    pub(super) fn tick(&mut self) {
        if self.quiet || !self.terminal || self.running.is_empty() {
            return;
        }
        let running: Vec<String> = self
            .running
            .iter()
            .map(|(job, begun)| {
                format!("{} {:.0}s", self.names[*job], begun.elapsed().as_secs_f32())
            })
            .collect();
        let line =
            format!("  {}/{} done, running: {}", self.done, self.names.len(), running.join(", "));
        let line: String = line.chars().take(WIDTH).collect();
        print!("{CLEAR_LINE}{line}");
        let _ = std::io::stdout().flush();
        self.shown = true;
    }

    /// Something the user should know now.
    pub(super) fn note(&mut self, text: &str) {
        self.line(&format!("  {text}"));
    }

    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            print!("{CLEAR_LINE}");
            let _ = std::io::stdout().flush();
        }
    }

    fn line(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        self.end();
        println!("{:6.2}s {text}", self.begun.elapsed().as_secs_f64());
    }
}

/// One character that says how a job ended.
pub(super) fn mark(outcome: JobOutcome) -> char {
    match outcome {
        JobOutcome::Success => '+',
        JobOutcome::Failed { allowed: true } => '!',
        JobOutcome::Failed { allowed: false } => 'x',
        JobOutcome::Canceled | JobOutcome::Skipped | JobOutcome::Manual => '-',
    }
}

fn ended(
    outcome: JobOutcome,
    exit_code: Option<i32>,
    reason: Option<&str>,
    took: Option<Duration>,
) -> String {
    let took = took.map(|took| format!(" {:.2}s", took.as_secs_f64())).unwrap_or_default();
    match outcome {
        JobOutcome::Success => took,
        JobOutcome::Failed { allowed } => {
            let what = match (exit_code, reason) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(reason)) => reason.replace('_', " "),
                (None, None) => "failed".into(),
            };
            let allowed = if allowed { ", allowed" } else { "" };
            format!("{took}: {what}{allowed}")
        }
        JobOutcome::Canceled => ": canceled".into(),
        JobOutcome::Skipped => ": skipped".into(),
        JobOutcome::Manual => ": manual, not run".into(),
    }
}
