//! Tells the server of a job while no manager is there: its log, that it lives, how it
//! ended; and hears whether the server wants it stopped.
//!
//! A child of the job's agent, which it joins like a manager. Invariant: one request at a
//! time, each with a limit; once the agent closes the line, the one that is under way is the
//! last. It tells the agent by its exit status whether the server knows the job's end.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use job::outcome::{FailureReason, Outcome};
use job::plan::Report;
use job::report::{
    Answer, FinalState, Finished, JobState, MAX_PIECE_BYTES, Patched, Pending, UPDATE_INTERVAL,
    Update,
};
use job::wire::{
    Abort, Attach, Cancel, Credit, Finished as Ended, Frames, FromAgent, ToAgent, encode,
    from_agent, to_agent,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::value::RawValue;
use ureq::Body;
use ureq::http::Response;

use crate::{Error, http, store};

/// How long one request may take: a manager that comes back waits for it.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// How often the whole log is sent again because the server's is not ours, and how often
/// what it refuses is offered again.
const REPEATS: u32 = 3;

/// An answer is short; what it says is in its headers.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// The agent wants no more.
struct Closed;

struct Reporter {
    report: Report,
    info: Box<RawValue>,
    client: ureq::Agent,
    line: UnixStream,
    frames: Frames,
    pending: Pending,
    /// Log bytes that the agent may send.
    credit: u64,
    server: JobState,
    interval: Duration,
    ended: Option<Ended>,
    /// The log's size and checksum are told with the final state.
    with_log: bool,
    resends: u32,
    refusals: u32,
    failures: u32,
}

/// What one step came to.
enum Step {
    /// The next one may follow at once.
    On,
    /// There is nothing to do for so long.
    Wait(Duration),
    /// The server knows the end.
    Over,
}

pub(crate) fn run() -> Result<ExitCode, Error> {
    let mut line = store::connect_here().map_err(Error::io("cannot join the job"))?;
    let mut frames = Frames::default();
    say(&mut line, to_agent::Message::Attach(Attach { from: 0, reporter: true }))
        .map_err(Error::io("cannot join the job"))?;
    let report = loop {
        match next(&mut line, &mut frames, None) {
            Ok(Some(from_agent::Message::Report(report))) => break report,
            Ok(_) => {}
            Err(Closed) => return Ok(ExitCode::FAILURE),
        }
    };
    let reporter = Reporter {
        client: http::client(
            &report.ca_certificates,
            &report.user_agent,
            (REQUEST_LIMIT, Some(REQUEST_LIMIT)),
        )?,
        info: RawValue::from_string(report.info.clone())
            .map_err(|error| Error::new(error.to_string()))?,
        report,
        line,
        frames,
        pending: Pending::default(),
        credit: 0,
        server: JobState::Running,
        interval: UPDATE_INTERVAL,
        ended: None,
        with_log: true,
        resends: 0,
        refusals: 0,
        failures: 0,
    };
    Ok(match reporter.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Closed) => ExitCode::FAILURE,
    })
}

impl Reporter {
    /// Until the server knows the end.
    fn run(mut self) -> Result<(), Closed> {
        let mut pause = Duration::ZERO;
        loop {
            self.give_credit()?;
            self.listen(Instant::now() + pause)?;
            pause = match self.step()? {
                Step::On => Duration::ZERO,
                Step::Wait(pause) => pause,
                Step::Over => return Ok(()),
            };
        }
    }

    /// Takes what the agent says until then, or until there is something to send that is
    /// not to wait.
    fn listen(&mut self, until: Instant) -> Result<(), Closed> {
        loop {
            let Some(message) = next(&mut self.line, &mut self.frames, Some(until))? else {
                return Ok(());
            };
            match message {
                from_agent::Message::Log(log) => {
                    if let Err(end) = self.pending.take(log.offset, &log.data) {
                        self.join(end)?;
                    }
                    if self.is_urgent() || Instant::now() >= until {
                        return Ok(());
                    }
                }
                from_agent::Message::Finished(ended) => {
                    self.ended = Some(ended);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Whether there is no point in waiting for more of the log.
    fn is_urgent(&self) -> bool {
        let is_whole = |ended: &Ended| self.pending.end() >= ended.log_bytes;
        let is_full = self.pending.rest().len() >= MAX_PIECE_BYTES;
        self.failures == 0 && (is_full || self.ended.as_ref().is_some_and(is_whole))
    }

    /// One request.
    fn step(&mut self) -> Result<Step, Closed> {
        self.check_line()?;
        if self.server == JobState::Over {
            // The agent stops it; nothing more is to be told.
            return Ok(if self.ended.is_some() { Step::Over } else { Step::Wait(self.interval) });
        }
        if !self.pending.is_empty() && self.with_log {
            return self.send_piece();
        }
        let Some(ended) = self.ended.clone() else {
            return self.touch();
        };
        if self.with_log && self.pending.stored() < ended.log_bytes {
            return Ok(Step::Wait(UPDATE_INTERVAL));
        }
        self.finish(&ended)
    }

    /// Words of the agent may wait to be read although it has closed the line.
    fn check_line(&self) -> Result<(), Closed> {
        let mut fds = [PollFd::new(&self.line, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => Err(Closed),
        }
    }

    fn send_piece(&mut self) -> Result<Step, Closed> {
        let (from, piece) = (self.pending.stored(), self.pending.piece().to_vec());
        let length = piece.len();
        let url = format!("trace?debug_trace={}", self.report.debug_trace);
        let request = self
            .client
            .patch(self.url(&url))
            .header("JOB-TOKEN", &self.report.job_token)
            .header("Content-Type", "text/plain")
            .header("Content-Range", format!("{from}-{}", from + length as u64 - 1));
        match understand(request.send(&piece[..]), Answer::to_piece) {
            Ok(Patched::Stored(ack)) => {
                self.pending.sent(length);
                self.refusals = 0;
                self.obey(ack)?;
                Ok(if self.is_urgent() { Step::On } else { Step::Wait(self.interval) })
            }
            // It wants what it was given: nonsense, which may pass.
            Ok(Patched::Elsewhere(at)) if at == from => Ok(self.failed(None)),
            Ok(Patched::Elsewhere(at)) => {
                if !self.pending.go_to(at) {
                    self.join(at)?;
                }
                Ok(Step::On)
            }
            Ok(Patched::Nowhere) => Ok(self.failed(None)),
            Err(failure) => {
                // The final state matters more than its log: what the server refuses again
                // and again is left out. A running job has time.
                if !failure.may_pass && self.ended.is_some() {
                    self.refusals += 1;
                    self.with_log = self.refusals < REPEATS;
                }
                Ok(self.failed(failure.retry_after))
            }
        }
    }

    fn touch(&mut self) -> Result<Step, Closed> {
        match self.put(None, Answer::to_update) {
            Ok(ack) => {
                self.obey(ack)?;
                Ok(Step::Wait(self.interval))
            }
            Err(failure) => Ok(self.failed(failure.retry_after)),
        }
    }

    fn finish(&mut self, ended: &Ended) -> Result<Step, Closed> {
        let log = self.with_log.then_some((ended.log_bytes, ended.log_crc32));
        let outcome = ended.outcome.clone().unwrap_or_default();
        let state = FinalState::of(&outcome, &self.report.failure_reasons, log);
        match self.put(Some(&state), Answer::to_final_state) {
            Ok(Finished::Accepted | Finished::Over) => Ok(Step::Over),
            Ok(Finished::NotYet(ack)) => {
                Ok(Step::Wait(ack.update_interval.unwrap_or(UPDATE_INTERVAL)))
            }
            // It cannot be helped, and will not be better.
            Ok(Finished::LogDiffers) if !self.with_log => Ok(Step::Over),
            Ok(Finished::LogDiffers) => {
                self.resends += 1;
                self.with_log = self.resends <= REPEATS;
                self.pending.restart(0);
                self.join(0)?;
                Ok(Step::Wait(UPDATE_INTERVAL))
            }
            Err(failure) => Ok(self.failed(failure.retry_after)),
        }
    }

    fn put<T>(
        &self,
        end: Option<&FinalState>,
        read: impl Fn(&Answer) -> Option<T>,
    ) -> Result<T, Failure> {
        let body = Update::new(&*self.info, &self.report.job_token, end);
        let body = serde_json::to_vec(&body).map_err(|_| Failure::default())?;
        let request = self
            .client
            .put(self.url(""))
            .header("JOB-TOKEN", &self.report.job_token)
            .header("Content-Type", "application/json");
        understand(request.send(&body[..]), read)
    }

    fn url(&self, what: &str) -> String {
        let Report { api_url, job_id, .. } = &self.report;
        let slash = if what.is_empty() { "" } else { "/" };
        format!("{api_url}jobs/{job_id}{slash}{what}")
    }

    fn failed(&mut self, asked: Option<Duration>) -> Step {
        let pause = job::report::pause(self.failures, asked, any_fraction());
        self.failures = self.failures.saturating_add(1);
        Step::Wait(pause)
    }

    fn obey(&mut self, ack: job::report::Ack) -> Result<(), Closed> {
        self.failures = 0;
        self.interval = ack.update_interval.unwrap_or(self.interval);
        let before = std::mem::replace(&mut self.server, ack.job);
        match ack.job {
            _ if before == ack.job => Ok(()),
            JobState::Running => Ok(()),
            JobState::Canceling => self.say(to_agent::Message::Cancel(Cancel {})),
            JobState::Over => {
                let outcome = Outcome::failure(FailureReason::JobCanceled, "canceled");
                let abort = Abort { reason: outcome.reason, message: outcome.message };
                self.say(to_agent::Message::Abort(abort))
            }
        }
    }

    /// Wants the log from there.
    fn join(&mut self, from: u64) -> Result<(), Closed> {
        self.say(to_agent::Message::Attach(Attach { from, reporter: true }))
    }

    fn give_credit(&mut self) -> Result<(), Closed> {
        let until = self.pending.stored() + 2 * MAX_PIECE_BYTES as u64;
        if until > self.credit {
            self.credit = until;
            self.say(to_agent::Message::Credit(Credit { until }))?;
        }
        Ok(())
    }

    fn say(&mut self, message: to_agent::Message) -> Result<(), Closed> {
        say(&mut self.line, message).map_err(|_| Closed)
    }
}

fn say(line: &mut UnixStream, message: to_agent::Message) -> io::Result<()> {
    line.write_all(&encode(&ToAgent::from(message)))
}

/// The next thing that the agent says; nothing where it says nothing until then.
fn next(
    line: &mut UnixStream,
    frames: &mut Frames,
    until: Option<Instant>,
) -> Result<Option<from_agent::Message>, Closed> {
    let mut buffer = [0; 64 * 1024];
    loop {
        if let Some(FromAgent { message: Some(message) }) = frames.take().map_err(|_| Closed)? {
            return Ok(Some(message));
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // What is there is read even where no time is left; zero would be no limit at all.
        let limit = left.map(|left| left.max(Duration::from_millis(1)));
        line.set_read_timeout(limit).map_err(|_| Closed)?;
        match line.read(&mut buffer) {
            Ok(0) => return Err(Closed),
            Ok(read) => frames.push(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(_) => return Err(Closed),
        }
    }
}

/// Why a call failed, as far as it matters.
#[derive(Default)]
struct Failure {
    /// Whether it may be better next time.
    may_pass: bool,
    /// How long the server wants to be left alone.
    retry_after: Option<Duration>,
}

/// What the server says, if the call did not fail.
fn understand<T>(
    response: Result<Response<Body>, ureq::Error>,
    read: impl Fn(&Answer) -> Option<T>,
) -> Result<T, Failure> {
    let unreachable = Failure { may_pass: true, retry_after: None };
    let mut response = response.map_err(|_| unreachable)?;
    // Read to its end, the connection can be used again.
    let _ = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
    let status = response.status().as_u16();
    let answer = Answer::new(status, |name| response.headers().get(name)?.to_str().ok());
    let (may_pass, retry_after) = (answer.may_pass(), answer.retry_after());
    read(&answer).ok_or(Failure { may_pass, retry_after })
}

/// Something between 0 and 1, so that many agents do not ask in step.
fn any_fraction() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    f64::from(now.subsec_micros() % 1000) / 1000.0
}
