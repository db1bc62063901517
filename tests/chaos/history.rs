//! What the manager wrote down of its instances, beside what was seen of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::inject::Effect;
use crate::run::Ran;

/// The history may lack what happened in the moments before a kill.
const LOST_TAIL: Duration = Duration::from_millis(1500);

/// One line of the history.
struct Record {
    at: SystemTime,
    event: String,
    instance: Option<String>,
    job: Option<u64>,
}

fn records(state_dir: &Path) -> Vec<Record> {
    let text = |name: &str| {
        std::fs::read_to_string(state_dir.join("history").join(name)).unwrap_or_default()
    };
    let lines = text("before.jsonl") + &text("current.jsonl");
    lines
        .lines()
        .filter_map(|line| {
            let record: Value = serde_json::from_str(line).ok()?;
            let at: jiff::Timestamp = record["at"].as_str()?.parse().ok()?;
            Some(Record {
                at: at.into(),
                event: record["event"].as_str()?.to_owned(),
                instance: record["instance"].as_str().map(str::to_owned),
                job: record["job"].as_u64(),
            })
        })
        .collect()
}

/// What is wrong with the instances of a run.
pub(crate) fn check(ran: &Ran) -> Vec<String> {
    let records = records(ran.manager.state_dir());
    let mut faults = unaccounted(ran, &records);
    for deletion in records.iter().filter(|record| record.event == "instance_deleting") {
        faults.extend(busy(ran, &records, deletion));
    }
    faults
}

/// Jobs that ran on an instance when it was deleted.
fn busy(ran: &Ran, records: &[Record], deletion: &Record) -> Vec<String> {
    let begun = records.iter().filter(|record| {
        record.event == "job_begun"
            && record.instance == deletion.instance
            && record.at <= deletion.at
    });
    let jobs = begun.filter_map(|record| record.job);
    let is_busy = |job: &u64| {
        let Some(id) = ran.ids.get(usize::try_from(*job).unwrap_or_default() - 1) else {
            return false;
        };
        let ended = ran.gitlab.audit(*id).ended().map(|end| ran.begun_at + (end - ran.begun));
        // What was killed needs its instance no more.
        let was_hit =
            ran.injector.strikes.iter().any(|strike| {
                strike.jobs.iter().any(|(hit, e)| hit == job && *e != Effect::Disturbed)
            });
        !was_hit && ended.is_some_and(|ended| ended > deletion.at)
    };
    let fault = |job| {
        let instance = deletion.instance.as_deref().unwrap_or_default();
        format!("{instance} was deleted while job {job} was on it")
    };
    jobs.filter(is_busy).map(fault).collect()
}

/// Instances that existed and of whose end the history says nothing.
fn unaccounted(ran: &Ran, records: &[Record]) -> Vec<String> {
    let told = |words: &[&str]| -> BTreeSet<&str> {
        let about = records.iter().filter(|record| words.contains(&record.event.as_str()));
        about.filter_map(|record| record.instance.as_deref()).collect()
    };
    let (gone, known) =
        (told(&["instance_gone"]), told(&["instance_deleting", "instance_ready", "job_bound"]));
    let kills: Vec<SystemTime> = ran
        .lives
        .iter()
        .filter_map(|life| life.to)
        .map(|to| ran.begun_at + (to - ran.begun))
        .collect();
    let last_word = |instance: &str| {
        let of = records.iter().filter(|record| record.instance.as_deref() == Some(instance));
        of.map(|record| record.at).max()
    };
    ran.instances
        .seen
        .iter()
        .filter(|id| !gone.contains(id.as_str()))
        .filter(|id| {
            // Its end may be among what a kill took from the history. On a busy machine the
            // kill lands after its time: then the last words are later than that.
            let is_near =
                |at| kills.iter().any(|kill| *kill + LOST_TAIL > at && *kill < at + LOST_TAIL);
            let near_a_kill = last_word(id).is_some_and(is_near);
            !near_a_kill
        })
        .map(|id| {
            let what = if known.contains(id.as_str()) { "known" } else { "never mentioned" };
            format!("the history does not tell the end of {id} ({what})")
        })
        .collect()
}
