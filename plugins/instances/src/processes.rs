//! What runs on this machine, read from `/proc`, and ending it.
//!
//! A process is known by its id *and* the time of its start: ids are used again.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::failed::{During as _, Failed};

/// How long killed processes may take to disappear. One that hangs in the kernel longer
/// must be tried again.
const END_LIMIT: Duration = Duration::from_secs(30);
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// One process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// May be another process's by now.
    pub pid: i32,
    /// Clock ticks between boot and start.
    started: u64,
}

impl Identity {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        Process::read(pid).map(|process| process.identity)
    }

    /// Whether it runs still; zombies do not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Process::read(self.pid).is_some_and(|now| now.identity == self && !now.is_dead)
    }

    /// Sends a signal, unless the id is somebody else's by now.
    pub fn signal(self, signal: Signal) {
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
            // Kernels before 5.3 have none.
            Err(_) => kill_process(pid, signal),
        };
    }
}

/// One line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Which process it is.
    pub identity: Identity,
    /// Who must collect it.
    pub parent: i32,
    /// A zombie without a living thread: only its parent can remove it.
    pub is_dead: bool,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Reads `/proc/<pid>/stat`. The name, in parentheses, may contain anything.
fn parse_stat(stat: &str) -> Option<Process> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some(Process {
        identity: Identity { pid, started: fields.get(19)?.parse().ok()? },
        parent: fields.get(1)?.parse().ok()?,
        // The first thread of a process may end before the others.
        is_dead: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
    })
}

/// Every process, the dead ones included.
#[must_use]
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// Living children, their children and so on, without `ancestor` itself.
#[must_use]
pub fn descendants(ancestor: i32, all: &[Process]) -> BTreeSet<Identity> {
    let mut found = BTreeSet::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for child in living(all).filter(|process| process.parent == parent) {
            if found.insert(child.identity) {
                parents.push(child.identity.pid);
            }
        }
    }
    found
}

/// Living processes whose environment began with this variable.
#[must_use]
pub fn marked(name: &str, value: &str, all: &[Process]) -> BTreeSet<Identity> {
    let marker = format!("{name}={value}");
    let has_marker = |process: &&Process| {
        fs::read(format!("/proc/{}/environ", process.identity.pid)).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
        })
    };
    living(all).filter(has_marker).map(|process| process.identity).collect()
}

/// Living processes that have this user id as any of their four.
#[must_use]
pub fn of_user(uid: u32, all: &[Process]) -> BTreeSet<Identity> {
    let has_uid = |process: &&Process| {
        fs::read_to_string(format!("/proc/{}/status", process.identity.pid))
            .is_ok_and(|status| status_has_uid(&status, uid))
    };
    living(all).filter(has_uid).map(|process| process.identity).collect()
}

fn living(all: &[Process]) -> impl Iterator<Item = &Process> {
    all.iter().filter(|process| !process.is_dead)
}

/// Kills what `find` finds, but for this process, until it finds nothing more. `what`
/// names it in the error.
pub fn end(what: &str, find: impl Fn() -> BTreeSet<Identity>) -> Result<(), Failed> {
    let this = std::process::id().cast_signed();
    let deadline = Instant::now() + END_LIMIT;
    let mut pause = PAUSES.0;
    loop {
        let mut left = find();
        left.retain(|process| process.pid != this);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
            return Err(io::Error::other(format!("processes {pids:?} do not end")))
                .during(format!("end {what}"));
        }
        // Stopped processes start no others while the rest is killed.
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &left {
                process.signal(signal);
            }
        }
        sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn status_has_uid(status: &str, uid: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|ids| ids.split_ascii_whitespace().any(|id| id.parse() == Ok(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, name: &str, state: &str, parent: i32, threads: u32) -> String {
        format!(
            "{pid} ({name}) {state} {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0"
        )
    }

    #[test]
    fn stat_is_read_whatever_the_name_is() {
        for name in ["sh", "a b", ") R 1 (", "x)"] {
            let process = parse_stat(&stat(7, name, "S", 3, 1)).expect(name);
            assert_eq!(process.identity, Identity { pid: 7, started: 4711 });
            assert_eq!(process.parent, 3);
            assert!(!process.is_dead);
        }
        assert_eq!(parse_stat("7 (sh) S"), None);
    }

    #[test]
    fn a_zombie_with_living_threads_is_alive() {
        let dead = |threads| parse_stat(&stat(7, "x", "Z", 1, threads)).map(|p| p.is_dead);
        assert_eq!(dead(1), Some(true));
        assert_eq!(dead(2), Some(false));
    }

    #[test]
    fn descendants_are_all_generations() {
        let table: Vec<Process> = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]
            .into_iter()
            .filter_map(|(pid, parent)| parse_stat(&stat(pid, "x", "S", parent, 1)))
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

    #[test]
    fn any_of_the_four_ids_counts() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t9\t9\t9\t9\n";
        assert!([1, 2, 3, 4].iter().all(|uid| status_has_uid(status, *uid)));
        assert!(!status_has_uid(status, 9));
    }
}
