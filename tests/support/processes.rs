//! The processes of this machine, told apart by what their environment or command line
//! contains. A zombie counts as gone: where PID 1 does not reap, orphans stay that way.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::look_until;

/// One process, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its program, where that may be read.
    pub exe: PathBuf,
    /// Its arguments, the program's name included.
    pub args: Vec<String>,
    /// Its owner.
    pub uid: u32,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (child of {}, user {}): ", self.pid, self.parent, self.uid)?;
        write!(f, "{}", self.args.join(" "))
    }
}

impl Process {
    /// Reads one; `None` if it is gone.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may contain anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        if is_zombie {
            return None;
        }
        let args = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let args = String::from_utf8_lossy(&args);
        let args = args.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        use std::os::unix::fs::MetadataExt as _;
        let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        Some(Self { pid, parent, exe, args, uid })
    }

    /// Whether the environment it began with, or its arguments, contain this text.
    pub fn mentions(&self, text: &str) -> bool {
        let has = |file: &str| {
            std::fs::read(format!("/proc/{}/{file}", self.pid))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        };
        has("environ") || has("cmdline")
    }

    /// Whether it is the program of this file name.
    pub fn runs(&self, program: &str) -> bool {
        self.exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with(program))
            || self.args.first().is_some_and(|arg| arg.rsplit('/').next() == Some(program))
    }

    /// Sends a signal. A process that is gone takes none.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops it, and waits until none of its threads runs.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        };
        look_until(Duration::from_secs(5), is_stopped).expect("it stops");
    }

    /// Kills it.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        // An id may be taken again, but not by the same program under the same parent.
        Self::read(self.pid).is_some_and(|now| now.exe == self.exe && now.args == self.args)
    }
}

/// All processes but this one.
pub fn all() -> Vec<Process> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter_map(Process::read)
        .collect()
}

/// Those whose environment or arguments contain this text.
pub fn mentioning(text: &str) -> Vec<Process> {
    all().into_iter().filter(|process| process.mentions(text)).collect()
}

/// The children of a process, and theirs.
pub fn descendants(of: i32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    loop {
        let is_new = |process: &&Process| {
            let known = |pid: i32| found.iter().any(|found| found.pid == pid);
            !known(process.pid) && (process.parent == of || known(process.parent))
        };
        let more: Vec<Process> = all.iter().filter(is_new).cloned().collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Kills those whose environment or arguments contain this text, until none is left.
pub fn kill_mentioning(text: &str) {
    const PATIENCE: Duration = Duration::from_secs(5);
    look_until(PATIENCE, || {
        let left = mentioning(text);
        left.iter().for_each(Process::kill);
        left.is_empty().then_some(())
    });
}

/// Waits until no such process is left. Those that stay are the error.
pub fn wait_until_gone(
    timeout: Duration,
    look: impl Fn() -> Vec<Process>,
) -> Result<(), Vec<Process>> {
    look_until(timeout, || look().is_empty().then_some(())).ok_or_else(look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_found_by_its_environment_and_gone_as_a_zombie() {
        let marker = format!("support-test-{}", std::process::id());
        let mut child =
            Command::new("sleep").arg("1000").env("MARKER", &marker).spawn().expect("sleep");
        let found = look_until(Duration::from_secs(5), || {
            let found = mentioning(&marker);
            found.first().filter(|process| process.runs("sleep")).cloned()
        });
        let process = found.expect("it is found");
        assert_eq!(process.parent.unsigned_abs(), std::process::id());
        assert!(descendants(process.parent).iter().any(|one| one.pid == process.pid));
        kill_mentioning(&marker);
        // Not reaped yet: a zombie.
        assert!(!process.is_alive() && mentioning(&marker).is_empty());
        child.wait().expect("reaped");
    }
}
