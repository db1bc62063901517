//! Faults on demand: what a server, or the network before it, does wrong, how often or
//! how long, and at which call.

use std::time::{Duration, Instant};

/// A call of the runner API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /jobs/request`.
    RequestJob,
    /// `PUT /jobs/:id` with `running`.
    Touch,
    /// `PUT /jobs/:id` with a final state.
    Finish,
    /// `PATCH /jobs/:id/trace`.
    Trace,
    /// `POST /jobs/:id/artifacts`.
    Upload,
    /// `GET /jobs/:id/artifacts`.
    Download,
    /// `POST /runners/verify`.
    Verify,
    /// Any call.
    Any,
}

impl Endpoint {
    /// How many there are beside `Any`.
    pub(super) const COUNT: usize = 7;
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The call is not processed; this is answered.
    Answer {
        /// HTTP status.
        status: u16,
        /// Headers.
        headers: Vec<(&'static str, String)>,
    },
    /// The connection ends before the call is processed.
    LoseRequest,
    /// The call is processed, then the connection ends without an answer.
    LoseAnswer,
    /// The answer ends in the middle of its body.
    CutAnswer,
    /// Nothing is processed or answered for as long as the client waits.
    Hang,
    /// The call is processed after a while.
    Delay(Duration),
    /// The body of the answer comes byte by byte, with a pause after each.
    SlowBody(Duration),
}

impl Fault {
    /// Answers with a bare status.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new() }
    }

    /// Answers with a status and `Retry-After`, however absurd.
    pub fn retry_after(status: u16, value: &str) -> Self {
        Self::Answer { status, headers: vec![("retry-after", value.into())] }
    }

    /// Answers a final state with 202: not stored yet, say it again after this time.
    pub fn not_yet(again: Duration) -> Self {
        let seconds = again.as_secs_f64().to_string();
        Self::Answer {
            status: 202,
            headers: vec![
                ("job-status", "running".into()),
                ("x-gitlab-trace-update-interval", seconds),
            ],
        }
    }

    /// Refuses a log, as if it ended at this offset.
    pub fn wrong_range(end: u64) -> Self {
        let headers = vec![("range", format!("0-{end}")), ("job-status", "running".into())];
        Self::Answer { status: 416, headers }
    }
}

enum Left {
    Times(u32),
    Until(Instant),
}

/// The faults that are due.
#[derive(Default)]
pub(super) struct Faults(Vec<(Endpoint, Fault, Left)>);

impl Faults {
    pub(super) fn times(&mut self, n: u32, endpoint: Endpoint, fault: Fault) {
        self.0.push((endpoint, fault, Left::Times(n)));
    }

    pub(super) fn until(&mut self, end: Instant, endpoint: Endpoint, fault: Fault) {
        self.0.push((endpoint, fault, Left::Until(end)));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for a call that came now.
    pub(super) fn take(&mut self, endpoint: Endpoint, now: Instant) -> Option<Fault> {
        if self.0.is_empty() {
            return None;
        }
        self.0.retain(|(_, _, left)| match left {
            Left::Times(n) => *n > 0,
            Left::Until(end) => now < *end,
        });
        let is_due = |at: &Endpoint| *at == endpoint || *at == Endpoint::Any;
        let (_, fault, left) = self.0.iter_mut().find(|(at, ..)| is_due(at))?;
        if let Left::Times(n) = left {
            *n -= 1;
        }
        Some(fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_ends_after_its_times_or_its_time() {
        let now = Instant::now();
        let mut faults = Faults::default();
        faults.times(2, Endpoint::Trace, Fault::Hang);
        faults.until(now + Duration::from_secs(1), Endpoint::Any, Fault::LoseAnswer);
        let mut take = |endpoint, millis| {
            faults.take(endpoint, now + Duration::from_millis(millis)).map(|f| format!("{f:?}"))
        };
        assert_eq!(take(Endpoint::Trace, 0).as_deref(), Some("Hang"));
        assert_eq!(take(Endpoint::Touch, 0).as_deref(), Some("LoseAnswer"));
        assert_eq!(take(Endpoint::Trace, 0).as_deref(), Some("Hang"));
        assert_eq!(take(Endpoint::Trace, 999).as_deref(), Some("LoseAnswer"));
        assert_eq!(take(Endpoint::Trace, 1000), None);
    }
}
