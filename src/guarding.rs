//! What the guards of child processes share: that of a host's plugin and that of a
//! plugin's script.
//!
//! A guard waits for its child's end or its parent's, whichever comes first, and tells the
//! parent what became of the child in one line on stdin, one end of a socket pair:
//! `exec ERRNO`, `exit STATUS` or `signal NUMBER`.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel refused to execute it.
    NotExecuted(i32),
    /// It ended with this status.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

impl Fate {
    /// Reads the guard's line; `None` where the guard said nothing.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, number) = line.trim_end().split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "exec" => Some(Self::NotExecuted(number)),
            "exit" => Some(Self::Exited(number)),
            "signal" => Some(Self::Signaled(number)),
            _ => None,
        }
    }

    fn line(self) -> String {
        match self {
            Self::NotExecuted(errno) => format!("exec {errno}\n"),
            Self::Exited(status) => format!("exit {status}\n"),
            Self::Signaled(number) => format!("signal {number}\n"),
        }
    }

    /// Tells the guard's parent.
    pub fn tell(self) {
        let flags = rustix::net::SendFlags::NOSIGNAL;
        // The parent may be gone by now; then nobody needs to know.
        let _ = rustix::net::send(rustix::stdio::stdin(), self.line().as_bytes(), flags);
    }
}

/// Only the child holds its outputs: the parent sees them end when it closes them.
pub fn let_go_of_outputs() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Waits for the child's end; `None` if the parent's came first: any of `gone` on stdin, or
/// a hang-up.
#[must_use]
pub fn wait(child: &mut Child, gone: PollFlags) -> Option<Fate> {
    if let Ok(pidfd) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&stdin, gone)];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                break;
            }
            if !fds[1].revents().is_empty() {
                return None;
            }
        }
    }
    let status = child.wait().ok()?;
    Some(match (status.code(), status.signal()) {
        (Some(code), _) => Fate::Exited(code),
        (None, signal) => Fate::Signaled(signal.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_round_trip() {
        let statuses = [0, 3, 75].map(Fate::Exited);
        let signals = [9, 11].map(Fate::Signaled);
        for fate in [Fate::NotExecuted(8)].into_iter().chain(statuses).chain(signals) {
            assert_eq!(Fate::parse(&fate.line()), Some(fate));
        }
        assert_eq!([Fate::parse(""), Fate::parse("exit"), Fate::parse("boom 1")], [None; 3]);
    }
}
