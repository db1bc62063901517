//! When the agent tells the server of its job by itself: after a silence of all managers,
//! and only until one is back.
//!
//! What needs HTTP is a child of the same binary (`report`), which joins the job like a
//! manager. Here it is started and stopped. Invariant: while it lives no manager hears
//! anything of the job, so the two never write the same log.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use job::plan::Report;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::descendants::Reaper;

/// How long a reporter may take to end the request that is under way: a bit more than one
/// may last.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Between two reporters, where one failed.
const PAUSE: Duration = Duration::from_secs(10);
/// Bounds of the silence after which it begins.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
const LONGEST_AFTER_END: Duration = Duration::from_secs(120);
/// Without pidfds its end is looked for this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Alone {
    /// What it is to tell; none where only managers do.
    report: Option<Report>,
    /// When a manager was heard last.
    heard: Instant,
    not_before: Instant,
    child: Option<Child>,
    /// The server knows the end of the job.
    delivered: bool,
    job_ended: bool,
}

struct Child {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    kill_at: Option<Instant>,
}

impl Alone {
    pub(crate) fn new(report: Option<Report>) -> Self {
        let now = Instant::now();
        Self {
            report,
            heard: now,
            not_before: now,
            child: None,
            delivered: false,
            job_ended: false,
        }
    }

    /// Whether it will begin one day, if no manager comes.
    pub(crate) fn is_ready(&self) -> bool {
        self.report.is_some()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn has_delivered(&self) -> bool {
        self.delivered
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(|child| child.pid)
    }

    /// Readable once it ended.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref()?.pidfd.as_ref().map(|fd| fd.as_fd())
    }

    /// What the child is to do.
    pub(crate) fn order(&self) -> Option<Report> {
        self.report.clone()
    }

    /// A manager said something at that time.
    pub(crate) fn heard(&mut self, at: Instant) {
        self.heard = self.heard.max(at);
    }

    /// Whether a manager that was heard at that time last is taken for gone.
    pub(crate) fn is_silence(&self, heard_at: Instant, now: Instant) -> bool {
        self.silence().is_some_and(|silence| now >= heard_at + silence)
    }

    /// How long managers may be silent: bounded, whatever the plan says, and shorter for a
    /// job that only is to be told.
    fn silence(&self) -> Option<Duration> {
        let silence = Duration::from_millis(self.report.as_ref()?.after_ms).max(SHORTEST_SILENCE);
        Some(if self.job_ended { silence.min(LONGEST_AFTER_END) } else { silence })
    }

    /// The job's end is to be told, by whomever.
    pub(crate) fn job_ended(&mut self) {
        self.job_ended = true;
    }

    /// Nobody is to be waited for any more.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &self.child {
            let _ = kill_process(child.pid, Signal::KILL);
        }
    }

    /// When there is something to do here.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.child {
            None if self.delivered => None,
            None => Some((self.heard + self.silence()?).max(self.not_before)),
            Some(child) if child.pidfd.is_none() => Some(Instant::now() + LOOK_INTERVAL),
            Some(child) => child.kill_at,
        }
    }

    /// Starts it when it is due and no manager listens, and sees how it ended.
    pub(crate) fn look(&mut self, reaper: &mut Reaper, has_manager: bool) {
        let now = Instant::now();
        let Some(child) = &mut self.child else {
            if has_manager {
                self.not_before = self.not_before.max(now + LOOK_INTERVAL);
            } else if !self.delivered && self.due().is_some_and(|due| now >= due) {
                self.not_before = now + PAUSE;
                self.start(reaper);
            }
            return;
        };
        if let Some(end) = reaper.end_of(child.pid) {
            self.delivered = end.exit_status() == Some(0);
            self.not_before = now + PAUSE;
            self.child = None;
        } else if child.kill_at.is_some_and(|at| now >= at) {
            child.kill_at = None;
            let _ = kill_process(child.pid, Signal::KILL);
        }
    }

    /// A manager is back: the child ends its request and goes.
    pub(crate) fn stop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill_at.get_or_insert(Instant::now() + STOP_LIMIT);
        }
    }

    fn start(&mut self, reaper: &mut Reaper) {
        // The working directory is the job's: its socket is found there.
        let started = Command::new("/proc/self/exe")
            .arg(crate::REPORT)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(started) = started else { return };
        let Some(pid) = i32::try_from(started.id()).ok().and_then(Pid::from_raw) else { return };
        reaper.expect(pid);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        self.child = Some(Child { pid, pidfd, kill_at: None });
    }
}
