//! `instance`: the keeper. It starts an instance, watches it, and ends it when its lease
//! is over.
//!
//! It stays outside the instance's namespaces, as its only process that an instance's
//! user can neither see nor signal. When it dies, however it dies, the kernel kills the
//! instance's first process and with it all the others.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use instances::close_inherited;
use instances::failed::{During as _, Failed};
use instances::processes::{self, Identity};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, wait,
};

use super::dispatch::{INIT, SSHD, null, role_command};
use crate::deletion;
use crate::isolation::{Isolation, separate_children};
use crate::record::Record;
use crate::registry::InstanceDir;

/// Time from the start of the first process to the SSH server's greeting.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often the lease is looked at, at most and at least.
const LEASE_LOOKS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

pub(super) fn run(path: PathBuf) -> Result<(), Failed> {
    close_inherited();
    let instance = InstanceDir::at(path);
    // Out of the plugin's process group, which its host kills as a whole.
    rustix::process::setsid().during("start a session")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let record = instance.record()?;
    let mut lease = Lease::new(record.lease());
    let result = keep(&record, &instance, &mut lease);
    if !await_plugin(&record, &instance, &mut lease) {
        deletion::remove_files(&instance, Some(&record))?;
    }
    result
}

/// Leaves what is left of the instance to a plugin, which reads the log, removes the files
/// and tells its host that the instance is gone: one that finds no trace of it cannot.
/// `false` if none comes within the lease.
fn await_plugin(record: &Record, instance: &InstanceDir, lease: &mut Lease<SystemTime>) -> bool {
    while !instance.has_plugin() {
        if !instance.exists() || lease.is_over(instance.lease_renewed(), Instant::now()) {
            return false;
        }
        sleep(lease_look(record, LEASE_LOOKS.1));
    }
    true
}

fn lease_look(record: &Record, longest: Duration) -> Duration {
    (record.lease() / 8).clamp(LEASE_LOOKS.0, longest)
}

/// Runs the instance to its end; afterwards none of its processes exists.
fn keep(
    record: &Record,
    instance: &InstanceDir,
    lease: &mut Lease<SystemTime>,
) -> Result<(), Failed> {
    let listener = take_listener()?;
    separate_children(record.isolation)?;
    let mut first = start(record, instance, listener)?;
    let ready = await_greeting(&record.address, &mut first).and_then(|()| instance.set_ready());
    if let Err(failed) = ready {
        let _ = first.kill();
        let _ = first.wait();
        deletion::end(&record.id, Some(record), this_process())?;
        return Err(failed);
    }
    let status = watch(record, instance, &first, lease)?;
    eprintln!("the instance's first process ended: {status:?}");
    // Fails where the directory is gone; then nobody can be misled by it.
    let _ = instance.set_deleting();
    deletion::end(&record.id, Some(record), this_process())
}

fn this_process() -> Option<Identity> {
    Identity::of(std::process::id().cast_signed())
}

/// The plugin passes the listening socket as stdin.
fn take_listener() -> Result<OwnedFd, Failed> {
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .during("take over the listener")?;
    rustix::stdio::dup2_stdin(null()?).during("close the listener")?;
    Ok(listener)
}

fn start(record: &Record, instance: &InstanceDir, listener: OwnedFd) -> Result<Child, Failed> {
    let role = match record.isolation {
        Isolation::Full | Isolation::User => INIT,
        Isolation::None => SSHD,
    };
    role_command(role)
        .arg(instance.path())
        .stdin(instance.open_server_settings()?)
        .stdout(Stdio::from(listener))
        .spawn()
        .during(format!("start {role}"))
}

/// The socket listens from the start, so a connection waits until the server greets it,
/// and breaks when the last process that holds the socket ends.
fn await_greeting(address: &str, first: &mut Child) -> Result<(), Failed> {
    let mut greeting = [0; 4];
    let greeted = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(START_LIMIT))?;
        stream.read_exact(&mut greeting)
    });
    match (greeted, first.try_wait()) {
        (_, Ok(Some(status))) => {
            Err(io::Error::other(format!("the first process ended: {status}")))
                .during("start the instance")
        }
        (result, _) => result.during(format!("wait for the SSH server at {address}")),
    }
}

/// Waits for the end of the first process, and brings it about once the lease is over and
/// nothing but the instance's own processes is left: a job outlives a long absence of its
/// manager. All in one thread: after `unshare` the kernel allows no second one.
fn watch(
    record: &Record,
    instance: &InstanceDir,
    first: &Child,
    lease: &mut Lease<SystemTime>,
) -> Result<WaitStatus, Failed> {
    let pid = Pid::from_child(first);
    let own = match record.isolation {
        Isolation::Full | Isolation::User => 2,
        Isolation::None => 1,
    };
    let interval = lease_look(record, longest_look(record.isolation));
    loop {
        wait_a_while(pid, interval);
        if let Some(status) = reap(pid)? {
            return Ok(status);
        }
        let is_over = lease.is_over(instance.lease_renewed(), Instant::now());
        let keeper = std::process::id().cast_signed();
        let is_idle = || processes::descendants(keeper, &processes::all()).len() <= own;
        // Without its directory it can neither be used nor deleted by anybody.
        if !instance.exists() || (is_over && is_idle()) {
            eprintln!("no plugin has asked for this instance within its lease, ending");
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Without an init the keeper is the parent of orphans and should collect them soon.
fn longest_look(isolation: Isolation) -> Duration {
    match isolation {
        Isolation::Full | Isolation::User => LEASE_LOOKS.1,
        Isolation::None => Duration::from_secs(1),
    }
}

/// Returns after `limit`, or when the process ends.
fn wait_a_while(pid: Pid, limit: Duration) {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        // Kernels before 5.3 have none.
        return sleep(limit.min(Duration::from_millis(500)));
    };
    let limit = Timespec::try_from(limit).ok();
    // An error is a reason to look, too.
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], limit.as_ref());
}

/// Collects every child that has ended; the status of the first process if it has.
fn reap(first: Pid) -> Result<Option<WaitStatus>, Failed> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == first => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error).during("wait for the instance"),
        }
    }
}

/// Counts from the moment a renewal was *seen*: a clock that is set ends no lease.
struct Lease<T> {
    length: Duration,
    last: Option<(Option<T>, Instant)>,
}

impl<T: PartialEq> Lease<T> {
    fn new(length: Duration) -> Self {
        Self { length, last: None }
    }

    fn is_over(&mut self, renewed: Option<T>, now: Instant) -> bool {
        match &self.last {
            Some((seen, since)) if *seen == renewed => now.duration_since(*since) >= self.length,
            _ => {
                self.last = Some((renewed, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_changed_time_renews_a_lease() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut lease = Lease::new(Duration::from_secs(10));
        assert!(!lease.is_over(Some(1), after(0)));
        assert!(!lease.is_over(Some(1), after(9)));
        assert!(!lease.is_over(Some(2), after(9)));
        assert!(!lease.is_over(Some(2), after(18)));
        assert!(lease.is_over(Some(2), after(19)));
        assert!(!lease.is_over(None, after(20)), "a lost file counts from its loss");
        assert!(lease.is_over(None, after(30)));
    }
}
