//! Who listens to a job: managers, or the agent's own reporter while none is there.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use job::wire::{Finished, Frames, Progress};
use rustix::event::{PollFd, PollFlags};

use crate::alone::Alone;
use crate::descendants::Reaper;
use crate::listener::{Asked, Line, Listener};
use crate::store::Store;

/// Listeners beyond this are turned away.
const MAX_LISTENERS: usize = 8;

pub(crate) struct Audience {
    listeners: Vec<Listener>,
    pub(crate) alone: Alone,
    /// What has happened so far, for those who come later.
    timeline: Vec<Progress>,
    finished: Option<Finished>,
}

impl Audience {
    pub(crate) fn new(first: Listener, alone: Alone) -> Self {
        Self { listeners: vec![first], alone, timeline: Vec::new(), finished: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// A stage began or ended.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        match self.timeline.last_mut().filter(|last| last.ended_us == 0) {
            Some(last) => *last = progress.clone(),
            None => self.timeline.push(progress.clone()),
        }
        for listener in &mut self.listeners {
            listener.progress(progress);
        }
    }

    pub(crate) fn timeline(&self) -> &[Progress] {
        &self.timeline
    }

    /// The job ended.
    pub(crate) fn finish(&mut self, finished: &Finished) {
        for listener in &mut self.listeners {
            listener.finish(finished.clone());
        }
        self.finished = Some(finished.clone());
    }

    /// Lets everyone in who knocks.
    pub(crate) fn accept(&mut self, store: &Store) {
        while let Ok((socket, _)) = store.socket.accept() {
            if self.listeners.len() >= MAX_LISTENERS || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let (Ok(log), Ok(to_manager)) = (store.log_reader(), socket.try_clone()) else {
                continue;
            };
            let line = Line { from_manager: socket.into(), to_manager: to_manager.into() };
            let mut listener = Listener::new(line, log, None, Frames::default());
            for progress in &self.timeline {
                listener.progress(progress);
            }
            if let Some(finished) = &self.finished {
                listener.finish(finished.clone());
            }
            self.listeners.push(listener);
        }
    }

    /// What the listeners ask for. `how` is how they are heard.
    pub(crate) fn hear(&mut self, how: impl Fn(&mut Listener) -> Vec<Asked>) -> Vec<Asked> {
        let mut asked = Vec::new();
        for listener in &mut self.listeners {
            let knew = listener.is_reporter;
            asked.extend(how(listener));
            if listener.is_reporter && !knew {
                match self.alone.order().filter(|_| self.alone.is_running()) {
                    Some(report) => listener.order(report),
                    None => listener.gone = true,
                }
            }
            if !listener.is_reporter && listener.has_joined() {
                self.alone.heard(listener.heard_at);
            }
        }
        asked
    }

    /// Sends on what there is to send. `log_bytes` is the size of the log.
    pub(crate) fn speak(&mut self, log_bytes: u64, reaper: &mut Reaper) {
        self.hand_over();
        let has_manager = self.listeners.iter().any(is_manager);
        self.alone.look(reaper, has_manager);
        let is_reporting = self.alone.is_running();
        for listener in &mut self.listeners {
            if listener.is_reporter == is_reporting {
                listener.speak(log_bytes);
            }
        }
        self.listeners.retain(|listener| !listener.gone);
    }

    /// A manager that is back takes over from the reporter; one that was silent for too
    /// long is none.
    fn hand_over(&mut self) {
        let now = Instant::now();
        for listener in self.listeners.iter_mut().filter(|listener| !listener.is_reporter) {
            // One that never gave such a sign is of a version that does not know it.
            let is_silence = self.alone.is_silence(listener.heard_at, now);
            listener.gone |= is_silence && (listener.pings || !listener.has_joined());
        }
        if self.alone.is_running() && self.listeners.iter().any(is_manager) {
            self.listeners.retain(|listener| !listener.is_reporter);
            self.alone.stop();
        }
    }

    /// What to wait for.
    pub(crate) fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.alone.pidfd().map(|fd| readable(fd)));
        for listener in &self.listeners {
            fds.push(readable(listener.input()));
            if listener.is_writing() {
                fds.push(PollFd::from_borrowed_fd(listener.output(), PollFlags::OUT));
            }
        }
    }
}

fn is_manager(listener: &Listener) -> bool {
    !listener.gone && !listener.is_reporter && listener.has_joined()
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}
