//! Every process that a job left behind.
//!
//! The agent is the reaper of orphans below it (child subreaper), so however a process
//! daemonised, it is a descendant of the agent as long as the agent lives.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait,
};

/// Rounds of killing before giving up: each kills all that are there, so only a process
/// that forks faster than this, or hangs in the kernel, is left.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(2);

/// Reaps all children, orphans too, and keeps the ends of those that were asked for.
#[derive(Default)]
pub(crate) struct Reaper {
    ends: HashMap<Pid, Option<WaitStatus>>,
}

impl Reaper {
    /// From here on orphans become children of this process.
    pub(crate) fn adopt_orphans() -> Self {
        // Where the kernel refuses, orphans escape to init and outlive the job, as they
        // do under other runners.
        let _ = set_child_subreaper(Some(getpid()));
        Self::default()
    }

    /// The end of this child, just started, will be asked for: it is kept.
    pub(crate) fn expect(&mut self, child: Pid) {
        self.ends.entry(child).or_default();
    }

    /// How an expected child ended, if it did.
    pub(crate) fn end_of(&mut self, child: Pid) -> Option<WaitStatus> {
        self.reap();
        let end = self.ends.get(&child).copied().flatten();
        if end.is_some() {
            self.ends.remove(&child);
        }
        end
    }

    /// Kills all descendants of this process, but for one that does not belong to the job.
    pub(crate) fn kill_all(&mut self, spared: Option<Pid>) {
        for _ in 0..ROUNDS {
            self.reap();
            let mut found = below(getpid());
            found.retain(|pid| Some(*pid) != spared);
            if found.is_empty() {
                return;
            }
            for pid in found {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(PAUSE);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(end) = self.ends.get_mut(&pid) {
                *end = Some(status);
            }
        }
    }
}

/// Kills all processes of a session whose leader is gone.
pub(crate) fn kill_session(session: Pid) {
    for _ in 0..ROUNDS {
        let found: Vec<Pid> = processes()
            .into_iter()
            .filter(|process| process.session == Some(session) && process.pid != session)
            .map(|process| process.pid)
            .collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(PAUSE);
    }
}

fn below(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<Option<Pid>, Vec<Pid>> = HashMap::new();
    for process in processes() {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.remove(&Some(parent)).unwrap_or_default() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

struct Process {
    pid: Pid,
    parent: Option<Pid>,
    session: Option<Pid>,
}

/// All live processes that `/proc` shows.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let read = |entry: std::fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        parse_stat(pid, &std::fs::read_to_string(entry.path().join("stat")).ok()?)
    };
    entries.flatten().filter_map(read).collect()
}

/// Reads `/proc/PID/stat`; the name in parentheses may hold anything. Zombies count as
/// gone.
fn parse_stat(pid: Pid, stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok().and_then(Pid::from_raw);
    let session = fields.nth(1)?.parse().ok().and_then(Pid::from_raw);
    (state != "Z").then_some(Process { pid, parent, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_read() {
        let pid = Pid::from_raw(7).expect("a pid");
        let process = parse_stat(pid, "7 (a) (b) S 3 7 5 0 -1").expect("a process");
        assert_eq!(process.parent, Pid::from_raw(3));
        assert_eq!(process.session, Pid::from_raw(5));
        assert!(parse_stat(pid, "7 (x) Z 3 7 5 0").is_none());
        assert!(parse_stat(pid, "nonsense").is_none());
    }
}
