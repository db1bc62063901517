//! Processes of this machine, read from `/proc`.
//!
//! A process is known by its id *and* the time of its start: ids are used again.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The variable that every process of an instance is started with: its directory.
pub(crate) const MARKER: &str = "MAYFLY_SIM_INSTANCE";

/// One process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks between boot and start.
    started: u64,
}

/// One line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) identity: Identity,
    pub(crate) parent: i32,
    pub(crate) is_zombie: bool,
}

impl Identity {
    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        read(pid).map(|process| process.identity)
    }

    pub(crate) fn is_alive(self) -> bool {
        read(self.pid).is_some_and(|now| now.identity == self && !now.is_zombie)
    }

    /// Sends a signal, unless the id is somebody else's by now.
    pub(super) fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // A descriptor pins the process, so that the check after it holds.
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        if Self::of(self.pid) != Some(self) {
            return;
        }
        // A process that has ended by now needs no signal.
        let _ = match pidfd {
            Ok(pidfd) => pidfd_send_signal(&pidfd, signal),
            Err(_) => kill_process(pid, signal),
        };
    }
}

fn read(pid: i32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/<pid>/stat`. The name, in parentheses, may contain anything.
fn parse(stat: &str) -> Option<Process> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some(Process {
        identity: Identity { pid, started: fields.get(19)?.parse().ok()? },
        parent: fields.get(1)?.parse().ok()?,
        // The first thread of a process may end before the others.
        is_zombie: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
    })
}

/// Every process.
pub(super) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(read).collect()
}

/// Children of a process, their children and so on.
pub(super) fn descendants(ancestor: i32, all: &[Process]) -> BTreeSet<Identity> {
    let mut found = BTreeSet::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|process| process.parent == parent && !process.is_zombie) {
            if found.insert(child.identity) {
                parents.push(child.identity.pid);
            }
        }
    }
    found
}

/// Processes whose environment began with this variable.
pub(super) fn marked(value: &str, all: &[Process]) -> BTreeSet<Identity> {
    let marker = format!("{MARKER}={value}");
    let has_marker = |process: &&Process| {
        fs::read(format!("/proc/{}/environ", process.identity.pid)).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
        })
    };
    let alive = all.iter().filter(|process| !process.is_zombie);
    alive.filter(has_marker).map(|process| process.identity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: i32, name: &str, state: &str, parent: i32) -> String {
        format!("{pid} ({name}) {state} {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0")
    }

    #[test]
    fn stat_is_read_whatever_the_name_is() {
        for name in ["sh", "a b", ") R 1 (", "x)"] {
            let process = parse(&line(7, name, "S", 3)).expect(name);
            assert_eq!(process.identity, Identity { pid: 7, started: 4711 });
            assert_eq!((process.parent, process.is_zombie), (3, false));
        }
        assert_eq!(parse("7 (sh) S"), None);
    }

    #[test]
    fn descendants_are_all_generations() {
        let table: Vec<Process> = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]
            .into_iter()
            .filter_map(|(pid, parent)| parse(&line(pid, "x", "S", parent)))
            .collect();
        let pids: Vec<i32> = descendants(2, &table).iter().map(|found| found.pid).collect();
        assert_eq!(pids, [3, 4]);
    }

    #[test]
    fn this_process_is_alive_and_its_successor_is_not() {
        let me = Identity::of(std::process::id().cast_signed()).expect("running");
        assert!(me.is_alive());
        assert!(!Identity { started: me.started + 1, ..me }.is_alive());
    }
}
