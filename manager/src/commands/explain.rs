//! `mayfly explain`: what happened to a job, an instance or the groups, and why. Reads the
//! history; the manager need not run. Also tells all reasons there are.

mod now;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use scheduler::Reason;

use super::{Exit, state_dir};
use crate::cli::ConfigFlags;
use crate::history::{self, Event, Record};

/// Decisions that are shown without a number.
const DECISIONS: usize = 40;

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    config: ConfigFlags,
    /// Only of this `[[runners]]` entry
    #[arg(long, global = true, value_name = "NAME")]
    runner: Option<String>,
    /// Print the records as JSON, one per line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// How a running manager stands, what it waits for, and why
    Now,
    /// The way of a job from the server to its end
    Job {
        /// The job's number
        id: u64,
    },
    /// The life of an instance
    Instance {
        /// The provider's id of it
        id: String,
    },
    /// The last decisions about instances
    Group {
        /// How many
        #[arg(short = 'n', long, default_value_t = DECISIONS)]
        last: usize,
    },
    /// All reasons that decisions have, and what they mean
    Reasons,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    if matches!(flags.what, What::Reasons) {
        print!("{}", reasons(flags.json));
        return Exit::Success;
    }
    let Some(state_dir) = state_dir(&flags.config) else {
        return Exit::Config;
    };
    if let What::Now = flags.what {
        return now::run(&state_dir, flags.runner.as_deref(), flags.json);
    }
    let records = match history::read(&state_dir) {
        Ok(records) => records,
        Err(error) => {
            eprintln!("error: the history in {} cannot be read: {error}", state_dir.display());
            return Exit::State;
        }
    };
    let wanted = flags.what.select(records, flags.runner.as_deref());
    if flags.json {
        for record in &wanted {
            println!("{}", serde_json::to_string(record).unwrap_or_default());
        }
    } else if !wanted.is_empty() {
        print!("{}", story(&flags.what, &wanted));
    }
    if wanted.is_empty() {
        eprintln!("error: the history in {} tells nothing of it", state_dir.display());
        return Exit::Failed;
    }
    Exit::Success
}

impl What {
    fn select(&self, records: Vec<Record>, runner: Option<&str>) -> Vec<Record> {
        let of_runner = |record: &Record| runner.is_none_or(|runner| record.runner == runner);
        let is_wanted = |record: &Record| match self {
            Self::Job { id } => record.event.job() == Some(*id),
            Self::Instance { id } => record.event.instance() == Some(id),
            Self::Group { .. } => record.event.job().is_none(),
            Self::Now | Self::Reasons => false,
        };
        let mut wanted: Vec<Record> = records;
        wanted.retain(|record| of_runner(record) && is_wanted(record));
        if let Self::Group { last } = self {
            wanted.drain(..wanted.len().saturating_sub(*last));
        }
        wanted
    }
}

/// One line per record, with the time since the first.
fn story(what: &What, records: &[Record]) -> String {
    let first = records[0].at;
    let mut text = match what {
        What::Job { id } => format!("job {id}, runner {:?}, from {first:.3}\n", records[0].runner),
        What::Instance { id } => {
            format!("instance {id}, runner {:?}, from {first:.3}\n", records[0].runner)
        }
        What::Group { .. } | What::Now | What::Reasons => String::new(),
    };
    for record in records {
        let said = format!("{}{}", subject(what, &record.event), sentence(&record.event));
        let _ = match what {
            What::Group { .. } => writeln!(text, "{:.3}  {}: {said}", record.at, record.runner),
            _ => {
                let since = record.at.duration_since(first).as_secs_f64();
                writeln!(text, "{since:>12.3} s  {said}")
            }
        };
    }
    text
}

/// Of whom a sentence tells, where the story is not of it.
fn subject(what: &What, event: &Event) -> String {
    match (what, event.job(), event.instance()) {
        (What::Instance { .. }, Some(job), _) => format!("job {job} "),
        (What::Group { .. }, None, Some(instance)) => format!("instance {instance} "),
        _ => String::new(),
    }
}

fn sentence(event: &Event) -> String {
    match event {
        Event::Asked { n, reason } => format!("asked for {n} instances: {}", because(reason)),
        Event::AskFailed { n, accepted, why } => {
            format!("the provider accepted {accepted} of {n} instances: {why}")
        }
        Event::HeldBack { wanted, reason } => {
            format!("{wanted} more instances are wanted, but {}", because(reason))
        }
        Event::InstanceReady { after_s, .. } => {
            format!("is ready, {after_s:.1} s after it was seen")
        }
        Event::InstanceUnfit { why, .. } => format!("cannot be prepared: {why}"),
        Event::ConnectionLost { .. } => "its connection is lost".into(),
        Event::InstanceDrained { reason, .. } => {
            format!("gets no more jobs: {}", because(reason))
        }
        Event::InstanceKept { .. } => "gets jobs again: an operator took its drain back".into(),
        Event::InstanceDeleting { reason, .. } => format!("is deleted: {}", because(reason)),
        Event::InstanceGone { wanted: true, .. } => "is gone".into(),
        Event::InstanceGone { lost_jobs, .. } => {
            format!("disappeared by itself, with {lost_jobs} jobs on it")
        }
        Event::JobReceived { name, project, .. } => format!("received: {name:?} of {project}"),
        Event::JobWaits { .. } => "waits: no slot is free".into(),
        Event::JobBound { instance, slot, .. } => format!("has slot {slot} of instance {instance}"),
        Event::SlotFailed { instance, why, .. } => {
            format!("instance {instance} did not take it: {why}")
        }
        Event::JobBegun { instance, .. } => format!("begun on instance {instance}"),
        Event::JobRecovered { instance, .. } => {
            format!("a new manager goes on with it on instance {instance}")
        }
        Event::JobEnded { success: true, .. } => "ended: success".into(),
        Event::JobEnded { reason, message, .. } => format!("ended: {reason}: {message}"),
    }
}

/// Words and sentences, one reason per line.
fn reasons(as_json: bool) -> String {
    let line = |reason: Reason| match (reason.as_str(), reason.sentence()) {
        (word, sentence) if as_json => {
            format!("{}\n", serde_json::json!({"reason": word, "sentence": sentence}))
        }
        (word, sentence) => format!("{word:<18}  {sentence}\n"),
    };
    Reason::ALL.into_iter().map(line).collect()
}

/// A reason's sentence; of a newer build's reason its word.
pub(super) fn because(word: &str) -> &str {
    match Reason::named(word) {
        Some(reason) => reason.sentence(),
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: i64, runner: &str, event: Event) -> Record {
        let at = jiff::Timestamp::from_second(second).expect("a time");
        Record { at, runner: runner.into(), event }
    }

    fn records() -> Vec<Record> {
        let asked = Event::Asked { n: 2, reason: "jobs_waiting".into() };
        let bound = Event::JobBound { job: 7, instance: "i-1".into(), slot: 0 };
        let drained =
            Event::InstanceDrained { instance: "i-1".into(), reason: "of_the_future".into() };
        vec![
            record(10, "a", Event::JobWaits { job: 7 }),
            record(11, "a", asked.clone()),
            record(12, "b", asked),
            record(14, "a", bound),
            record(20, "a", drained),
        ]
    }

    fn told(what: &What, runner: Option<&str>) -> Vec<String> {
        let wanted = what.select(records(), runner);
        story(what, &wanted).lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn a_job_s_story_has_its_times() {
        assert_eq!(
            told(&What::Job { id: 7 }, None),
            [
                "job 7, runner \"a\", from 1970-01-01T00:00:10.000Z",
                "0.000 s  waits: no slot is free",
                "4.000 s  has slot 0 of instance i-1",
            ]
        );
    }

    #[test]
    fn an_instance_s_story_has_its_jobs_and_reasons() {
        let lines = told(&What::Instance { id: "i-1".into() }, None);
        assert_eq!(lines[1], "0.000 s  job 7 has slot 0 of instance i-1");
        assert_eq!(lines[2], "6.000 s  gets no more jobs: of_the_future");
    }

    #[test]
    fn a_group_s_story_is_its_last_decisions() {
        let lines = told(&What::Group { last: 9 }, Some("b"));
        assert_eq!(
            lines,
            ["1970-01-01T00:00:12.000Z  b: asked for 2 instances: jobs wait for a slot"]
        );
        assert_eq!(told(&What::Group { last: 1 }, None).len(), 1);
    }
}
