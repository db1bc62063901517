//! Runs a job from `go` to its result: one thread, one loop, nothing that blocks.
//!
//! It wakes for a process that ended, for output, for listeners and for deadlines. It is
//! the only writer of the log, and enforces every timeout by itself: no manager need be
//! there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use job::outcome::Outcome;
use job::place::Place;
use job::plan::Plan;
use job::sequence::{CancelEffect, Ended, Sequence, timeout};
use job::trace::Trace;
use job::trace::colour::{BOLD_CYAN, CLEAR, RESET};
use job::wire::{Finished, Progress};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::alone::Alone;
use crate::audience::Audience;
use crate::clock::Clock;
use crate::descendants::Reaper;
use crate::listener::{Asked, Listener};
use crate::outputs::{Outputs, Piece};
use crate::slot::Slot;
use crate::stage::{self, Begun, Running};
use crate::store::Store;

/// How long the result waits for someone to take it before the agent ends.
const LINGER: Duration = Duration::from_secs(5);
/// The same where the agent tells the server by itself: an outage may last so long.
const REPORT_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Without pidfds an ended process is looked for this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) struct Supervisor {
    plan: Plan,
    store: Store,
    hands: Hands,
    sequence: Sequence,
    trace: Trace,
    audience: Audience,
    now_running: Option<Current>,
    outputs: Outputs,
    clock: Clock,
}

/// What starts and ends processes.
pub(crate) struct Hands {
    pub(crate) place: Box<dyn Place>,
    /// A shell that waits for its script.
    pub(crate) ahead: Option<Running>,
    pub(crate) reaper: Reaper,
}

/// The stage that runs.
struct Current {
    running: Running,
    role: job::plan::Role,
    /// The limit that stopped it, in seconds.
    timed_out_s: Option<u64>,
}

impl Supervisor {
    pub(crate) fn new(mut plan: Plan, store: Store, hands: Hands, listener: Listener) -> Self {
        let job_limit = Duration::from_millis(plan.timeout_ms);
        let options = plan.trace.clone().unwrap_or_default();
        Self {
            sequence: Sequence::new(&plan),
            trace: Trace::new(&options),
            clock: Clock::start(job_limit),
            audience: Audience::new(listener, Alone::new(plan.report.take())),
            plan,
            store,
            hands,
            now_running: None,
            outputs: Outputs::default(),
        }
    }

    /// Runs the job to its end and tells whoever listens.
    /// `slot` is free for the next job once this one has ended.
    pub(crate) fn run(mut self, slot: Slot) {
        let preamble = self.plan.trace.take().unwrap_or_default().preamble;
        self.say(&preamble);
        self.hear(|listener| listener.understand());
        self.go_on();
        while self.now_running.is_some() {
            self.turn();
            self.check_deadlines();
            self.check_end();
        }
        self.finish();
        let _ending = slot.ends();
        self.linger();
    }

    /// Begins stages until one has a process, or none is left.
    fn go_on(&mut self) {
        while self.now_running.is_none() {
            let Some(index) = self.sequence.due() else {
                return;
            };
            self.begin(index);
        }
    }

    fn begin(&mut self, index: usize) {
        let status = self.sequence.status();
        let stage = &self.plan.stages[index];
        let (name, role, action) = (stage.name.clone(), stage.role(), stage.action.clone());
        let head = format!("{CLEAR}{BOLD_CYAN}{}{RESET}{RESET}\n{}", stage.title, stage.notes);
        let now = SystemTime::now();
        let progress = Progress { stage: name.clone(), started_us: micros(now), ended_us: 0 };
        self.audience.progress(&progress);
        self.write(|trace, out| {
            trace.section_start(&name, now, out);
            trace.runner(&head, now, out);
        });
        let begun = match &action {
            None => Begun::Done(Ended::Ok, String::new()),
            Some(action) => {
                let hands = &mut self.hands;
                stage::begin(action, &self.plan, status, &*hands.place, &mut hands.ahead)
            }
        };
        match begun {
            Begun::Process(mut running) => {
                self.hands.reaper.expect(running.pid());
                if let Some(output) = running.output.take() {
                    self.outputs.add(output);
                }
                self.clock.stage_begins(role, &self.plan);
                self.now_running = Some(Current { running, role, timed_out_s: None });
            }
            Begun::Done(ended, text) => {
                self.say(&text);
                self.stage_ended(ended);
            }
        }
    }

    fn stage_ended(&mut self, ended: Ended) {
        let now = SystemTime::now();
        let Some(mut last) = self.audience.timeline().last().cloned() else {
            return;
        };
        last.ended_us = micros(now);
        self.audience.progress(&last);
        let name = last.stage;
        self.write(|trace, out| trace.section_end(&name, now, out));
        if let Ended::Broken(why) = &ended {
            self.say(&format!("{name}: {why}\n"));
        }
        self.sequence.ended(&ended);
    }

    /// Waits for the next thing to happen and does it.
    fn turn(&mut self) {
        // Heard before silence is judged: something may have kept this thread.
        self.audience.accept(&self.store);
        self.hear(Listener::hear);
        self.speak();
        let timeout = self.wait_limit();
        let is_input_due = self.poll(timeout);
        if is_input_due && let Some(current) = &mut self.now_running {
            current.running.feed_on();
        }
        let pieces = self.outputs.read();
        self.work(pieces);
    }

    fn wait_limit(&self) -> Duration {
        let mut deadlines = vec![self.clock.job];
        deadlines.extend(self.audience.alone.due());
        if let Some(current) = &self.now_running {
            deadlines.extend(self.clock.of(current.role));
            deadlines.extend(current.running.kill_at);
            if current.running.pidfd.is_none() {
                deadlines.push(Instant::now() + LOOK_INTERVAL);
            }
        }
        let soonest = deadlines.into_iter().min().unwrap_or(self.clock.job);
        let left = soonest.saturating_duration_since(Instant::now());
        // A job that is over by time ends by its processes' ends, not by a deadline again.
        if left.is_zero() { LOOK_INTERVAL } else { left }
    }

    /// Waits for something to happen. Returns whether the stage takes more input.
    fn poll(&self, timeout: Duration) -> bool {
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&self.store.socket, PollFlags::IN)];
        let mut input_at = None;
        if let Some(Current { running, .. }) = &self.now_running {
            fds.extend(running.pidfd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            if let Some(stdin) = running.wants() {
                input_at = Some(fds.len());
                fds.push(PollFd::new(stdin, PollFlags::OUT));
            }
        }
        fds.extend(self.outputs.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        self.audience.poll_fds(&mut fds);
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // An interrupted wait is a wake-up like any other.
        let _ = poll(&mut fds, Some(&timeout));
        input_at.is_some_and(|at| !fds[at].revents().is_empty())
    }

    fn work(&mut self, pieces: Vec<Piece>) {
        if pieces.is_empty() {
            return;
        }
        self.write(|trace, out| {
            let now = SystemTime::now();
            for Piece { output, text, is_last } in pieces {
                trace.work(output, &text, now, out);
                if is_last {
                    trace.close(output, now, out);
                }
            }
        });
    }

    fn hear(&mut self, how: impl Fn(&mut Listener) -> Vec<Asked>) {
        for asked in self.audience.hear(how) {
            match asked {
                Asked::Cancel => self.cancel(),
                Asked::Abort(abort) => {
                    self.abort(Outcome::failure(abort.reason(), abort.message.clone()));
                }
                // Only means something after the end, see `linger`.
                Asked::Done => {}
            }
        }
    }

    fn speak(&mut self) {
        self.audience.speak(self.store.log_bytes(), &mut self.hands.reaper);
    }

    fn cancel(&mut self) {
        if self.sequence.cancel() == CancelEffect::StopStage
            && let Some(current) = &mut self.now_running
        {
            current.running.stop();
        }
    }

    fn abort(&mut self, outcome: Outcome) {
        self.sequence.abort(outcome);
        if let Some(current) = &mut self.now_running {
            current.running.stop();
        }
    }

    fn check_deadlines(&mut self) {
        let now = Instant::now();
        if now >= self.clock.job && !self.sequence.is_over() {
            self.abort(timeout(self.clock.job_limit.as_secs()));
        }
        let Some(current) = &mut self.now_running else {
            return;
        };
        if self.clock.of(current.role).is_some_and(|at| now >= at) && current.timed_out_s.is_none()
        {
            current.timed_out_s = Some(Clock::limit_of(current.role, &self.plan).as_secs());
            current.running.stop();
        }
        if current.running.kill_at.is_some_and(|at| now >= at) {
            current.running.kill_at = None;
            self.hands.reaper.kill_all(self.audience.alone.pid());
        }
    }

    /// Goes on with the next stage once the process of this one has ended.
    fn check_end(&mut self) {
        let reaper = &mut self.hands.reaper;
        let ended = self.now_running.as_ref().and_then(|current| current.running.ended(reaper));
        let Some(ended) = ended else {
            return;
        };
        // What it printed last is in the pipe already.
        let pieces = self.outputs.drain();
        self.work(pieces);
        let Some(current) = self.now_running.take() else {
            return;
        };
        let ended = match current.timed_out_s {
            Some(limit_s) if ended != Ended::Ok => Ended::TimedOut { limit_s },
            _ => ended,
        };
        self.stage_ended(ended);
        self.go_on();
    }

    /// Ends everything of the job, writes the last line and the result.
    fn finish(&mut self) {
        self.hands.ahead = None;
        self.hands.reaper.kill_all(self.audience.alone.pid());
        let pieces = self.outputs.drain();
        self.work(pieces);
        let outcome = self.sequence.outcome();
        self.say(&outcome.last_line());
        self.write(|trace, out| trace.end(SystemTime::now(), out));
        let whole = !self.store.log_is_cut();
        let finished = Finished {
            outcome: Some(outcome),
            log_bytes: self.store.log_bytes(),
            log_crc32: if whole { self.trace.checksum() } else { self.store.log_crc32() },
            timeline: self.audience.timeline().to_vec(),
        };
        // If it cannot be kept, whoever listens still hears it; a manager that comes later
        // finds no result and reports a system failure.
        let _ = self.store.finish(&finished);
        self.audience.finish(&finished);
    }

    /// Stays for listeners that have not heard the end, and until the server knows it where
    /// no manager tells it. Removes everything once a manager says that it is safe there.
    fn linger(&mut self) {
        let reports = self.audience.alone.is_ready();
        let until = Instant::now() + if reports { REPORT_LIMIT } else { LINGER };
        self.audience.alone.job_ended();
        loop {
            self.audience.accept(&self.store);
            if self.audience.hear(Listener::hear).contains(&Asked::Done) {
                self.store.remove();
                break;
            }
            self.speak();
            // What is on disk stays: a manager that comes later learns how the job ended.
            let is_known = self.audience.alone.has_delivered();
            let wake = self.audience.alone.due().map_or(until, |due| due.min(until));
            if is_known || (!reports && self.audience.is_empty()) || Instant::now() >= until {
                break;
            }
            self.poll(wake.saturating_duration_since(Instant::now()));
        }
        self.audience.alone.kill();
    }

    fn say(&mut self, text: &str) {
        self.write(|trace, out| trace.runner(text, SystemTime::now(), out));
    }

    fn write(&mut self, how: impl FnOnce(&mut Trace, &mut Vec<u8>)) {
        let mut out = Vec::new();
        how(&mut self.trace, &mut out);
        self.store.append(&out);
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
