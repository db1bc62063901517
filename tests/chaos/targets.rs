//! What there is to be hit: the processes and connections of one manager and its
//! instances, as this machine shows them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use support::processes::{self, Process};

/// An agent that waits for a job, or runs one.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) instance: String,
    /// Its job, as soon as it has the plan.
    pub(crate) job: Option<u64>,
}

/// The instances below a manager's directory.
pub(crate) struct Targets {
    registry: PathBuf,
}

/// How far a job has come on its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its plan is there.
    Armed,
    /// It began, and has no result.
    Runs,
    /// It has a result.
    Ended,
}

impl Targets {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { registry: directory.join("instances/local") }
    }

    /// The ids of all instances that exist, those being deleted included.
    pub(crate) fn instances(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.registry).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("local-"))
            .collect()
    }

    /// The agents, those with the lowest process ids first.
    pub(crate) fn agents(&self) -> Vec<Agent> {
        let below = format!("{}/", self.registry.display());
        let mut found: Vec<Agent> = processes::all()
            .into_iter()
            .filter_map(|process| {
                let base = process.args.get(3).filter(|_| process.args[1] == "job")?;
                let instance = base.strip_prefix(&below)?.split('/').next()?.to_owned();
                let job = working_directory(&process).and_then(|dir| job_of(&dir));
                Some(Agent { process, instance, job })
            })
            .collect();
        found.sort_by_key(|agent| agent.process.pid);
        found
    }

    /// The processes that keep an instance, each with its role: `instance`, `init`, `sshd`.
    pub(crate) fn keepers(&self, instance: &str) -> Vec<(String, Process)> {
        let path = self.registry.join(instance).display().to_string();
        let all = processes::all();
        let is_keeper = |process: &&Process| {
            process.args.get(1).is_some_and(|role| role == "instance")
                && process.args.get(2) == Some(&path)
        };
        let Some(keeper) = all.iter().find(is_keeper) else {
            return Vec::new();
        };
        let roles = |process: Process| {
            let role = process.args.get(1)?.clone();
            ["init", "sshd"].contains(&role.as_str()).then_some((role, process))
        };
        let below = processes::descendants(keeper.pid).into_iter().filter_map(roles);
        std::iter::once(("instance".to_owned(), keeper.clone())).chain(below).collect()
    }

    /// The jobs of which an instance holds anything, and how far they are.
    pub(crate) fn jobs(&self, instance: &str) -> Vec<(u64, Progress)> {
        let jobs = self.registry.join(instance).join("home/.mayfly/jobs");
        let entries = std::fs::read_dir(jobs).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some((job_of(&entry.path())?, progress(&entry.path()))))
            .collect()
    }
}

impl Agent {
    /// How far its job is. The agent must be stopped, or the answer is old.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let job = self.job?;
        let dir = working_directory(&self.process)?;
        (job_of(&dir) == Some(job)).then(|| progress(&dir))
    }
}

fn working_directory(process: &Process) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok()
}

/// `…/jobs/RUNNER-ID`.
fn job_of(dir: &Path) -> Option<u64> {
    let above = dir.parent()?.file_name()?;
    if above != "jobs" {
        return None;
    }
    dir.file_name()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

fn progress(dir: &Path) -> Progress {
    let has_result = std::fs::metadata(dir.join("result")).is_ok_and(|file| file.len() > 0);
    if has_result {
        Progress::Ended
    } else if dir.join("began").exists() {
        Progress::Runs
    } else {
        Progress::Armed
    }
}

/// The connections of a process to local instances, as descriptors of it.
pub(crate) fn connections(pid: i32) -> Vec<i32> {
    let to_instances = sockets_to_instances();
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut found: Vec<i32> = entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
            let fd = entry.file_name().to_str()?.parse().ok()?;
            to_instances.contains(&inode).then_some(fd)
        })
        .collect();
    found.sort_unstable();
    found
}

/// Inodes of the sockets that are connected to 127.64.0.0/10, where local instances listen.
fn sockets_to_instances() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let remote = fields.get(2)?.split(':').next()?;
            let [a, b, ..] =
                Ipv4Addr::from(u32::from_str_radix(remote, 16).ok()?.to_ne_bytes()).octets();
            (a == 127 && (64..128).contains(&b)).then(|| fields.get(9).map(|i| (*i).to_owned()))?
        })
        .collect()
}

/// Ends a connection of another process in both directions, as a network does that
/// resets it: neither side closed it, both find it gone.
pub(crate) fn cut(pid: i32, fd: i32) -> std::io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let socket: OwnedFd = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())?;
    Ok(shutdown(&socket, Shutdown::Both)?)
}
