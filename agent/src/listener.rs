//! One who listens to a job, a manager or the agent's own reporter: it gets the log from
//! where it asked, as far as it allowed, and the end.
//!
//! Nothing here ever waits: a manager that is gone without TCP knowing must not stop the
//! job. There is no queue either, the log itself is read at each listener's own speed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use job::plan::Report;
use job::wire::{
    Finished, Frames, FromAgent, Log, Lost, Progress, ToAgent, encode, from_agent, to_agent,
};
use rustix::io::Errno;

/// Most log bytes in one frame.
const LOG_FRAME_BYTES: u64 = 32 * 1024;

/// What a listener asks for beside the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    /// A graceful stop.
    Cancel,
    /// A stop at once.
    Abort(job::wire::Abort),
    /// Nothing more: it has everything.
    Done,
}

/// A way to read from the manager and to write to it: the two ends of an SSH channel, or
/// a socket.
pub(crate) struct Line {
    pub(crate) from_manager: OwnedFd,
    pub(crate) to_manager: OwnedFd,
}

impl Line {
    /// This process's stdin and stdout, set to never block.
    pub(crate) fn of_stdio() -> io::Result<Self> {
        Ok(Self {
            from_manager: never_block(rustix::stdio::stdin())?,
            to_manager: never_block(rustix::stdio::stdout())?,
        })
    }
}

fn never_block(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let own = fd.try_clone_to_owned()?;
    let flags = rustix::fs::fcntl_getfl(&own)?;
    rustix::fs::fcntl_setfl(&own, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(own)
}

pub(crate) struct Listener {
    line: Line,
    frames: Frames,
    log: File,
    /// Next log byte to send; `None` until it said where to begin.
    position: Option<u64>,
    /// Log bytes before this offset may be sent.
    credit: u64,
    /// News that wait for room on the line.
    news: VecDeque<Progress>,
    /// How the job ended, sent at once: the manager then knows how much log to expect.
    finished: Option<Finished>,
    /// That the agent died, sent after the last log byte: nothing follows it.
    lost: Option<Lost>,
    /// What is left of the frame being written.
    writing: Vec<u8>,
    /// The manager is gone.
    pub(crate) gone: bool,
    /// When it said something last.
    pub(crate) heard_at: Instant,
    /// It is the agent's own reporter.
    pub(crate) is_reporter: bool,
    /// It gives signs of life.
    pub(crate) pings: bool,
    /// What the reporter is to do; sent before all else.
    order: Option<Report>,
}

impl Listener {
    /// Listens on a line that is set to never block. `position` is `None` where the
    /// first frame says it.
    pub(crate) fn new(line: Line, log: File, position: Option<u64>, frames: Frames) -> Self {
        Self {
            line,
            frames,
            log,
            position,
            credit: 0,
            news: VecDeque::new(),
            finished: None,
            lost: None,
            writing: Vec::new(),
            gone: false,
            heard_at: Instant::now(),
            is_reporter: false,
            pings: false,
            order: None,
        }
    }

    /// Whether it said where its log begins.
    pub(crate) fn has_joined(&self) -> bool {
        self.position.is_some()
    }

    /// Says what it is to report.
    pub(crate) fn order(&mut self, report: Report) {
        self.order = Some(report);
    }

    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.line.from_manager.as_fd()
    }

    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.line.to_manager.as_fd()
    }

    /// Whether it waits for room on the line.
    pub(crate) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    pub(crate) fn progress(&mut self, progress: &Progress) {
        self.news.push_back(progress.clone());
    }

    /// Says how the job ended.
    pub(crate) fn finish(&mut self, finished: Finished) {
        self.finished = Some(finished);
    }

    /// Says that the job has no end, once all of its log was sent.
    pub(crate) fn lose(&mut self, lost: Lost) {
        self.lost = Some(lost);
    }

    /// Reads what the manager says.
    pub(crate) fn hear(&mut self) -> Vec<Asked> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match rustix::io::read(&self.line.from_manager, &mut buffer) {
                Ok(0) => {
                    self.gone = true;
                    break;
                }
                Ok(read) => {
                    self.heard_at = Instant::now();
                    self.frames.push(&buffer[..read]);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        self.understand()
    }

    /// Takes the frames that have come, those read before this listener was made too.
    pub(crate) fn understand(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        loop {
            match self.frames.take::<ToAgent>() {
                Ok(Some(message)) => match message.message {
                    Some(to_agent::Message::Attach(attach)) => {
                        self.position = Some(attach.from);
                        self.is_reporter = attach.reporter;
                    }
                    Some(to_agent::Message::Credit(credit)) => {
                        self.credit = self.credit.max(credit.until);
                    }
                    Some(to_agent::Message::Ping(_)) => self.pings = true,
                    Some(to_agent::Message::Cancel(_)) => asked.push(Asked::Cancel),
                    Some(to_agent::Message::Abort(abort)) => asked.push(Asked::Abort(abort)),
                    Some(to_agent::Message::Done(_)) => asked.push(Asked::Done),
                    _ => {}
                },
                Ok(None) => return asked,
                Err(_) => {
                    self.gone = true;
                    return asked;
                }
            }
        }
    }

    /// Sends as much as the line takes. `log_bytes` is the size of the log.
    pub(crate) fn speak(&mut self, log_bytes: u64) {
        while !self.gone {
            if self.writing.is_empty() && !self.fill(log_bytes) {
                return;
            }
            match rustix::io::write(&self.line.to_manager, &self.writing) {
                Ok(written) => {
                    self.writing.drain(..written);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
    }

    /// Makes the next frame, if there is one to send.
    fn fill(&mut self, log_bytes: u64) -> bool {
        let Some(position) = self.position else {
            return false;
        };
        let message = if let Some(report) = self.order.take() {
            from_agent::Message::Report(report)
        } else if let Some(progress) = self.news.pop_front() {
            from_agent::Message::Progress(progress)
        } else if let Some(finished) = self.finished.take() {
            from_agent::Message::Finished(finished)
        } else if position < log_bytes.min(self.credit) {
            let length = (log_bytes.min(self.credit) - position).min(LOG_FRAME_BYTES);
            let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
            if self.log.read_exact_at(&mut data, position).is_err() {
                self.gone = true;
                return false;
            }
            self.position = Some(position + length);
            from_agent::Message::Log(Log { offset: position, data })
        } else if position >= log_bytes
            && let Some(lost) = self.lost.take()
        {
            from_agent::Message::Lost(lost)
        } else {
            return false;
        };
        self.writing = encode(&FromAgent::from(message));
        true
    }
}
