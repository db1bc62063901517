//! `mayfly status`: how a running manager stands.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use scheduler::Reason;

use super::{Exit, state_dir};
use crate::cli::ConfigFlags;
use crate::console::{Answer, Question, Status, ask};
use crate::group::{GroupStatus, InstanceStatus};

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    config: ConfigFlags,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let Some(state_dir) = state_dir(&flags.config) else {
        return Exit::Config;
    };
    let Some(status) = status_of(&state_dir) else {
        return Exit::Failed;
    };
    if flags.json {
        println!("{}", serde_json::to_string(&status).unwrap_or_default());
    } else {
        print!("{}", text(&status));
    }
    Exit::Success
}

/// The status of the manager that has this state; `None` after saying why there is none.
pub(super) fn status_of(state_dir: &Path) -> Option<Status> {
    match answer_of(state_dir, &Question::Status)? {
        Answer::Status(status) => Some(status),
        other => unexpected(&other),
    }
}

/// A manager's answer; `None` after saying why there is none, or why it refuses.
pub(super) fn answer_of(state_dir: &Path, question: &Question) -> Option<Answer> {
    match ask(state_dir, question) {
        Ok(Answer::Refused(why)) => eprintln!("error: {why}"),
        Ok(answer) => return Some(answer),
        Err(error) => eprintln!("error: {error}"),
    }
    None
}

/// An answer to another question: of a manager of another version, most likely.
pub(super) fn unexpected<T>(answer: &Answer) -> Option<T> {
    eprintln!("error: the manager answered {answer:?}");
    None
}

fn text(status: &Status) -> String {
    let mut text =
        format!("mayfly {}, process {}, up {}\n", status.version, status.pid, span(status.up_s));
    for group in &status.groups {
        let _ = write!(text, "\n{}", group_text(group));
    }
    text
}

fn group_text(group: &GroupStatus) -> String {
    let slots = &group.slots;
    let mut text = format!(
        "{}: {} of {} instances, {} asked for\n  slots: {} used, {} free, {} coming; {} jobs wait, {} wanted idle\n",
        group.runner,
        group.costing,
        group.max_instances,
        group.asked,
        slots.used,
        slots.free,
        slots.coming,
        slots.waiting,
        slots.idle_target
    );
    if let Some(why) = &group.plugin_down {
        let _ = writeln!(text, "  its plugin is down: {why}");
    }
    if let Some(held_back) = &group.held_back {
        let reason = &held_back.reason;
        let why = Reason::named(reason).map_or(reason.clone(), |reason| reason.sentence().into());
        let _ = writeln!(text, "  {} more instances are wanted, but {why}", held_back.wanted);
    }
    text.push_str(&table(&group.instances));
    text
}

/// One line per instance, 80 columns where its id is short.
pub(super) fn table(instances: &[InstanceStatus]) -> String {
    if instances.is_empty() {
        return String::new();
    }
    let width = instances.iter().map(|instance| instance.id.len()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "  {:width$} {:10}{:>7} {:>5} {:>6}  note\n",
        "instance", "phase", "since", "slots", "uses"
    );
    for instance in instances {
        let slots = format!("{}/{}", instance.used.len(), instance.capacity);
        let uses = match instance.max_uses {
            0 => instance.uses.to_string(),
            max => format!("{}/{max}", instance.uses),
        };
        let line = format!(
            "  {:width$} {:10}{:>7} {slots:>5} {uses:>6}  {}",
            instance.id,
            instance.phase,
            span(instance.phase_s),
            note(instance)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn note(instance: &InstanceStatus) -> String {
    match (&instance.drain_reason, instance.idle_s) {
        (Some(reason), _) => reason.clone(),
        (None, Some(idle)) => format!("idle for {}", span(idle)),
        (None, None) if !instance.connected && !instance.used.is_empty() => "not connected".into(),
        (None, None) => String::new(),
    }
}

/// Seconds, short: `7s`, `12m`, `3h05m`, `2d`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, phase: &str) -> InstanceStatus {
        InstanceStatus {
            id: id.into(),
            phase: phase.into(),
            phase_s: 130.0,
            connected: true,
            used: Vec::new(),
            capacity: 2,
            uses: 3,
            max_uses: 0,
            idle_s: Some(61.0),
            drain_reason: None,
        }
    }

    #[test]
    fn instances_are_a_table() {
        let busy = InstanceStatus {
            used: vec![1],
            idle_s: None,
            max_uses: 4,
            drain_reason: Some("max_use_count".into()),
            ..instance("i-0123456789abcdef0", "draining")
        };
        let text = table(&[instance("i-1", "ready"), busy]);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "  instance            phase       since slots   uses  note",
                "  i-1                 ready          2m   0/2      3  idle for 61s",
                "  i-0123456789abcdef0 draining       2m   1/2    3/4  max_use_count",
            ]
        );
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in
            [(7.9, "7s"), (119.0, "119s"), (120.0, "2m"), (11_100.0, "3h05m"), (200_000.0, "2d")]
        {
            assert_eq!(span(seconds), expected);
        }
    }
}
