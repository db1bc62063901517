//! `mayfly explain now`: what a running manager waits for, and why.

use std::fmt::Write as _;
use std::path::Path;

use super::super::Exit;
use super::super::status::{span, status_of};
use super::because;
use crate::group::{GroupStatus, InstanceStatus};

pub(super) fn run(state_dir: &Path, runner: Option<&str>, json: bool) -> Exit {
    let Some(mut status) = status_of(state_dir) else {
        return Exit::Failed;
    };
    status.groups.retain(|group| runner.is_none_or(|runner| group.runner == runner));
    if status.groups.is_empty() {
        eprintln!("error: the manager serves no such runner");
        return Exit::Failed;
    }
    for group in &status.groups {
        if json {
            println!("{}", serde_json::to_string(group).unwrap_or_default());
        } else {
            print!("{}", text(group));
        }
    }
    Exit::Success
}

fn text(group: &GroupStatus) -> String {
    let slots = &group.slots;
    let mut text = format!("{}\n", group.runner);
    let mut say = |sentence: String| {
        let _ = writeln!(text, "  {sentence}");
    };
    if let Some(why) = &group.plugin_down {
        say(format!("its plugin is down: {why}"));
    }
    if let Some(reason) = &group.ends {
        say(format!("it only drains: {}", because(reason)));
    }
    say(match slots.waiting {
        0 => format!("no job waits; {} run, {} slots are free", slots.used, slots.free),
        n => format!("{n} jobs wait; {} run, {} slots are free", slots.used, slots.free),
    });
    if slots.idle_target > 0 {
        say(format!("the policy wants {} idle slots", slots.idle_target));
    }
    if slots.coming > 0 {
        say(match group.boots.next_slot_s {
            Some(seconds) => {
                format!("{} slots are coming, the next in about {}", slots.coming, span(seconds))
            }
            None => format!("{} slots are coming", slots.coming),
        });
    }
    if let Some(held_back) = &group.held_back {
        let wanted = held_back.wanted;
        say(format!("{wanted} more instances are wanted, but {}", because(&held_back.reason)));
    }
    if let (Some(p50), Some(p95)) = (group.boots.p50_s, group.boots.p95_s) {
        let known = group.boots.known;
        say(format!(
            "instances come up in {p50:.1} s, 95 % within {p95:.1} s (of the last {known})"
        ));
    }
    for instance in &group.instances {
        if let Some(sentence) = note(instance) {
            say(sentence);
        }
    }
    text
}

/// Why an instance takes no jobs now; nothing where it does.
fn note(instance: &InstanceStatus) -> Option<String> {
    let InstanceStatus { id, phase, phase_s, used, .. } = instance;
    let since = span(*phase_s);
    match (&instance.drain_reason, phase.as_str()) {
        (Some(reason), "deleting") => {
            Some(format!("{id} is being deleted since {since}: {}", because(reason)))
        }
        (Some(reason), _) => {
            let jobs = used.len();
            Some(format!("{id} gets no more jobs, {jobs} run: {}", because(reason)))
        }
        (None, "ready") => None,
        (None, phase) => Some(format!("{id} is {phase} since {since}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{BootStatus, HeldBack, SlotStatus};

    #[test]
    fn what_is_waited_for_is_said() {
        let instance = |id: &str, phase: &str, drain_reason: Option<&str>| InstanceStatus {
            id: id.into(),
            phase: phase.into(),
            phase_s: 7.0,
            connected: true,
            used: vec![0],
            capacity: 1,
            uses: 1,
            max_uses: 0,
            idle_s: None,
            drain_reason: drain_reason.map(Into::into),
        };
        let group = GroupStatus {
            runner: "linux".into(),
            max_instances: 3,
            costing: 3,
            asked: 0,
            slots: SlotStatus { used: 2, free: 0, coming: 1, waiting: 4, idle_target: 1 },
            held_back: Some(HeldBack { wanted: 3, reason: "max_instances".into() }),
            plugin_down: Some("it exited with status 1".into()),
            ends: None,
            boots: BootStatus {
                known: 20,
                p50_s: Some(31.04),
                p95_s: Some(45.0),
                next_slot_s: Some(12.3),
            },
            instances: vec![
                instance("i-1", "ready", None),
                instance("i-2", "draining", Some("max_use_count")),
                instance("i-3", "preparing", None),
            ],
        };
        let expected = [
            "linux",
            "  its plugin is down: it exited with status 1",
            "  4 jobs wait; 2 run, 0 slots are free",
            "  the policy wants 1 idle slots",
            "  1 slots are coming, the next in about 12s",
            "  3 more instances are wanted, but max_instances is reached",
            "  instances come up in 31.0 s, 95 % within 45.0 s (of the last 20)",
            "  i-2 gets no more jobs, 1 run: max_use_count jobs have run on it",
            "  i-3 is preparing since 7s",
        ];
        assert_eq!(text(&group).lines().collect::<Vec<_>>(), expected);
    }
}
