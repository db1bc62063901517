//! What the job server is told of a job, and what its answers mean. Pure: a manager tells
//! it over its own connections, an agent that was left alone over another.
//!
//! Facts are those of GitLab's runner API; a call is one attempt, when to try again is its
//! caller's business.

use std::time::Duration;

use serde::Serialize;

use crate::outcome::Outcome;

/// Most bytes of one piece of log, as in GitLab Runner.
pub const MAX_PIECE_BYTES: usize = 1024 * 1024;
/// GitLab Runner's default of the time between two looks at a job.
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(3);
/// Bounds of `X-GitLab-Trace-Update-Interval`; GitLab Runner takes 15 minutes at most.
const SHORTEST_UPDATE_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_UPDATE_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// First pause after a call that failed, and the longest: with the server back, work goes on
/// within half a minute.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The pause after that many failures in a row before this one: doubled with each, or what
/// the server `asked` for, an absurd wish being cut. `share`, from 0 to 1, is anyone's own,
/// so that many do not ask in step.
pub fn pause(failures: u32, asked: Option<Duration>, share: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.min(10));
    let base = asked.unwrap_or(doubled).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    base.mul_f64(0.5 + 0.5 * share.clamp(0.0, 1.0))
}

/// Whether a call that failed with this HTTP status may succeed later.
pub fn may_pass(status: u16) -> bool {
    status >= 500 || matches!(status, 408 | 429)
}

/// The value of a `Retry-After` header in seconds; a date is not understood.
pub fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What the server says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It may go on.
    Running,
    /// It shall be stopped gracefully.
    Canceling,
    /// It is over for the server: nothing more is to be sent.
    Over,
}

/// The server took something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// What it says of the job.
    pub job: JobState,
    /// How often it wants to hear of the job.
    pub update_interval: Option<Duration>,
}

/// What became of a piece of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patched {
    /// It is stored.
    Stored(Ack),
    /// The server has the log up to this offset only, or further: go on from there.
    Elsewhere(u64),
    /// It refuses the range, and does not say which it wants.
    Nowhere,
}

/// What became of a final state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The job is done.
    Accepted,
    /// Not stored yet: say it again after a while.
    NotYet(Ack),
    /// The log that the server has is not the whole: send it again from the start.
    LogDiffers,
    /// The server has given the job up.
    Over,
}

const OVER: Ack = Ack { job: JobState::Over, update_interval: None };

/// An answer to a call.
pub struct Answer {
    status: u16,
    ack: Ack,
    range_end: Option<u64>,
    retry_after: Option<Duration>,
}

impl Answer {
    /// Of an HTTP status, and of headers by their lower-case names.
    pub fn new<'a>(status: u16, header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let job = match header("job-status") {
            Some("canceled" | "failed") => JobState::Over,
            Some("canceling") => JobState::Canceling,
            _ => JobState::Running,
        };
        let update_interval = header("x-gitlab-trace-update-interval")
            .and_then(|text| text.parse::<f64>().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|interval| !interval.is_zero())
            .map(|interval| interval.clamp(SHORTEST_UPDATE_INTERVAL, LONGEST_UPDATE_INTERVAL));
        // `Range: 0-N` says that the log has N bytes.
        let range_end = || header("range")?.rsplit('-').next()?.trim().parse().ok();
        let retry_after = header("retry-after").and_then(retry_after);
        Self { status, ack: Ack { job, update_interval }, range_end: range_end(), retry_after }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same call may succeed later, of one that failed.
    pub fn may_pass(&self) -> bool {
        may_pass(self.status)
    }

    /// To an update that says that the job runs; `None` is a failure.
    pub fn to_update(&self) -> Option<Ack> {
        match self.status {
            200..300 => Some(self.ack),
            403 | 404 => Some(OVER),
            _ => None,
        }
    }

    /// To a piece of the log; `None` is a failure.
    pub fn to_piece(&self) -> Option<Patched> {
        match self.status {
            202 => Some(Patched::Stored(self.ack)),
            416 => Some(self.range_end.map_or(Patched::Nowhere, Patched::Elsewhere)),
            403 => Some(Patched::Stored(OVER)),
            _ => None,
        }
    }

    /// To a final state; `None` is a failure.
    pub fn to_final_state(&self) -> Option<Finished> {
        match self.status {
            200 => Some(Finished::Accepted),
            202 => Some(Finished::NotYet(self.ack)),
            412 => Some(Finished::LogDiffers),
            403 | 404 => Some(Finished::Over),
            _ => None,
        }
    }
}

/// How a job ended, in the server's words.
#[derive(Clone, Debug)]
pub struct FinalState {
    /// Whether it did what it should.
    pub success: bool,
    /// GitLab's word for why not.
    pub failure_reason: &'static str,
    /// Of the script that failed.
    pub exit_code: Option<i32>,
    /// Size and CRC-32 of the whole log, where they are known.
    pub log: Option<(u64, u32)>,
}

impl FinalState {
    /// For a server that knows only `known` reasons.
    pub fn of(outcome: &Outcome, known: &[String], log: Option<(u64, u32)>) -> Self {
        Self {
            success: outcome.success,
            failure_reason: outcome.reason().for_server(known),
            exit_code: outcome.exit_code,
            log,
        }
    }
}

/// Body of `PUT /jobs/:id`.
#[derive(Serialize)]
pub struct Update<'a, I> {
    info: I,
    token: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
}

#[derive(Serialize)]
struct Output {
    checksum: String,
    bytesize: u64,
}

impl<'a, I> Update<'a, I> {
    /// That the job runs, or how it ended. `info` is what the runner is and can do, `token`
    /// the job's own.
    pub fn new(info: I, token: &'a str, end: Option<&FinalState>) -> Self {
        let state = match end {
            None => "running",
            Some(end) if end.success => "success",
            Some(_) => "failed",
        };
        let log = end.and_then(|end| end.log);
        let checksum = |crc32: u32| format!("crc32:{crc32:08x}");
        Self {
            info,
            token,
            state,
            failure_reason: end.filter(|end| !end.success).map(|end| end.failure_reason),
            checksum: log.map(|(_, crc32)| checksum(crc32)),
            output: log.map(|(bytesize, crc32)| Output { checksum: checksum(crc32), bytesize }),
            exit_code: end.and_then(|end| end.exit_code),
        }
    }
}

/// The part of a log that the server does not have yet.
#[derive(Debug, Default)]
pub struct Pending {
    stored: u64,
    bytes: Vec<u8>,
}

impl Pending {
    /// `bytes` follow what the server has.
    pub fn new(stored: u64, bytes: Vec<u8>) -> Self {
        Self { stored, bytes }
    }

    /// Where the server's log ends, as far as we know.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Where what we have ends.
    pub fn end(&self) -> u64 {
        self.stored + self.bytes.len() as u64
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What the server does not have.
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes bytes of the log. Those that are known are skipped; a gap is an error with the
    /// offset that is missing.
    pub fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), u64> {
        let end = self.end();
        if offset > end {
            return Err(end);
        }
        let known = usize::try_from(end - offset).unwrap_or(usize::MAX).min(data.len());
        self.bytes.extend_from_slice(&data[known..]);
        Ok(())
    }

    /// What is to be sent next, from [`Pending::stored`] on.
    pub fn piece(&self) -> &[u8] {
        &self.bytes[..self.bytes.len().min(MAX_PIECE_BYTES)]
    }

    /// The server has so many bytes more.
    pub fn sent(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.stored += length as u64;
    }

    /// The server's log ends there. `false` if we have no bytes to go on with: they are
    /// needed from this offset.
    pub fn go_to(&mut self, at: u64) -> bool {
        let is_known = (self.stored..=self.end()).contains(&at);
        if is_known {
            self.sent(usize::try_from(at - self.stored).unwrap_or(0));
        } else {
            self.restart(at);
        }
        is_known
    }

    /// Begins anew at an offset, without bytes.
    pub fn restart(&mut self, at: u64) {
        self.stored = at;
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &'static str)]) -> Answer {
        Answer::new(status, |name| {
            headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        })
    }

    #[test]
    fn pauses_grow_are_bounded_and_heed_the_server() {
        assert_eq!(pause(0, None, 1.0), FIRST_PAUSE);
        assert_eq!(pause(2, None, 1.0), FIRST_PAUSE * 4);
        assert_eq!(pause(u32::MAX, None, 1.0), LONGEST_PAUSE);
        assert_eq!(pause(9, None, 0.0), LONGEST_PAUSE / 2);
        let asked = |text| pause(3, retry_after(text), 1.0);
        assert_eq!(asked("7"), Duration::from_secs(7));
        assert_eq!(asked("0"), FIRST_PAUSE);
        assert_eq!(asked("18446744073709551615"), LONGEST_PAUSE);
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), FIRST_PAUSE * 8);
        assert_eq!(answer(429, &[("retry-after", "3")]).retry_after(), Some(3 * FIRST_PAUSE * 2));
        assert!(answer(429, &[]).may_pass() && !answer(403, &[]).may_pass());
    }

    #[test]
    fn answers_are_understood() {
        let interval = |text| {
            let headers = [("x-gitlab-trace-update-interval", text)];
            answer(200, &headers).to_update().and_then(|ack| ack.update_interval)
        };
        assert_eq!(interval("10"), Some(Duration::from_secs(10)));
        assert_eq!(interval("0"), None);
        assert_eq!(interval("-1"), None);
        assert_eq!(interval("1e99"), None);
        assert_eq!(interval("86400"), Some(LONGEST_UPDATE_INTERVAL));
        let job = |word| answer(200, &[("job-status", word)]).to_update().map(|a| a.job);
        assert_eq!(job("canceling"), Some(JobState::Canceling));
        assert_eq!(job("canceled"), Some(JobState::Over));
        assert_eq!(job("running"), Some(JobState::Running));
        assert_eq!(answer(416, &[("range", "0-17")]).to_piece(), Some(Patched::Elsewhere(17)));
        assert_eq!(answer(416, &[("range", "")]).to_piece(), Some(Patched::Nowhere));
        assert_eq!(answer(500, &[]).to_piece(), None);
        assert_eq!(answer(412, &[]).to_final_state(), Some(Finished::LogDiffers));
        assert_eq!(answer(404, &[]).to_final_state(), Some(Finished::Over));
    }

    #[test]
    fn bytes_are_taken_once_and_never_with_a_gap() {
        let mut pending = Pending::new(10, Vec::new());
        assert_eq!(pending.take(10, b"abc"), Ok(()));
        assert_eq!(pending.take(11, b"bcd"), Ok(()));
        assert_eq!(pending.take(10, b"ab"), Ok(()));
        assert_eq!((pending.end(), pending.rest()), (14, &b"abcd"[..]));
        assert_eq!(pending.take(15, b"f"), Err(14));
        assert!(pending.go_to(12));
        assert_eq!((pending.stored(), pending.piece()), (12, &b"cd"[..]));
        assert!(!pending.go_to(3));
        assert_eq!(pending.take(0, b"0123"), Ok(()));
        assert_eq!((pending.stored(), pending.rest()), (3, &b"3"[..]));
    }

    #[test]
    fn an_update_says_what_is_known() {
        let outcome = Outcome::script_failure(7);
        let end = FinalState::of(&outcome, &[], Some((5, 0xAB)));
        let body = serde_json::to_value(Update::new((), "t", Some(&end))).expect("JSON");
        let expected = serde_json::json!({
            "info": null, "token": "t", "state": "failed", "failure_reason": "script_failure",
            "checksum": "crc32:000000ab", "exit_code": 7,
            "output": {"checksum": "crc32:000000ab", "bytesize": 5},
        });
        assert_eq!(body, expected);
        let body = serde_json::to_value(Update::new((), "t", None)).expect("JSON");
        assert_eq!(body, serde_json::json!({"info": null, "token": "t", "state": "running"}));
    }
}
