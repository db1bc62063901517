//! The job's log on its way from the agent to the server, and the final state after it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use job::outcome::Outcome;

use super::follow::Follow;
use crate::gitlab::{Ack, ApiError, Backoff, FinalState, Finished, JobState, LogPiece, Patched};
use crate::runner::Runner;
use crate::secret::Secret;
use crate::state::JobRecord;

/// Most bytes of one PATCH, as in GitLab Runner.
pub(super) const MAX_PATCH_BYTES: usize = 1024 * 1024;
/// GitLab Runner's default of the time between two looks at a job.
pub(super) const UPDATE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a final state is offered to a server that is down. GitLab drops a job that it
/// heard nothing of for an hour.
const DELIVERY_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How often the whole log is sent again because the server's is not ours.
const RESENDS: u32 = 3;
/// How often what the server refuses is offered again.
const REFUSALS: u32 = 3;

/// The part of the log that the server does not have yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Where the server's log ends.
    pub(super) stored: u64,
    bytes: BytesMut,
}

/// What became of sending some of the log.
pub(super) enum Sent {
    /// The server took some, or there was nothing.
    Ack(Option<Ack>),
    /// The server's log ends somewhere that we have no bytes for: they are needed from
    /// this offset.
    NeedFrom(u64),
}

impl Pending {
    /// Where what we have ends.
    pub(super) fn end(&self) -> u64 {
        self.stored + self.bytes.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes bytes of the log. Those that are known are skipped; a gap is an error.
    pub(super) fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), u64> {
        let end = self.end();
        if offset > end {
            return Err(end);
        }
        let known = usize::try_from(end - offset).unwrap_or(usize::MAX).min(data.len());
        self.bytes.extend_from_slice(&data[known..]);
        Ok(())
    }

    /// What the server does not have.
    pub(super) fn rest(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Begins anew at an offset.
    pub(super) fn restart(&mut self, at: u64) {
        self.stored = at;
        self.bytes.clear();
    }

    /// Sends one piece.
    pub(super) async fn send(
        &mut self,
        runner: &Runner,
        record: &JobRecord,
        token: &Secret,
    ) -> Result<Sent, ApiError> {
        if self.bytes.is_empty() {
            return Ok(Sent::Ack(None));
        }
        let length = self.bytes.len().min(MAX_PATCH_BYTES);
        let piece = Bytes::copy_from_slice(&self.bytes[..length]);
        let piece = LogPiece { offset: self.stored, bytes: piece, debug: record.debug_trace };
        match runner.client.patch_trace(record.job, token, piece).await? {
            Patched::Stored(ack) => {
                let _ = self.bytes.split_to(length);
                self.stored += length as u64;
                Ok(Sent::Ack(Some(ack)))
            }
            Patched::Elsewhere(at) => {
                if (self.stored..=self.end()).contains(&at) {
                    let skip = usize::try_from(at - self.stored).unwrap_or(0);
                    let _ = self.bytes.split_to(skip);
                    self.stored = at;
                    return Ok(Sent::Ack(None));
                }
                self.restart(at);
                Ok(Sent::NeedFrom(at))
            }
        }
    }
}

/// How a job ended, and what is left to be delivered of it.
pub(crate) enum Ended<'a> {
    /// Its agent said so, and still has the log.
    ByAgent(Box<Follow<'a>>, job::wire::Finished),
    /// Without an agent's word: these bytes end the log.
    Without {
        outcome: Outcome,
        stored: u64,
        /// The rest of the log, `outcome`'s last line included.
        rest: Vec<u8>,
        /// Whether the server may be told at all: it may have given the job up.
        silent: bool,
    },
}

impl Ended<'_> {
    pub(super) fn outcome(&self) -> &Outcome {
        match self {
            Self::ByAgent(follow, _) => follow.outcome(),
            Self::Without { outcome, .. } => outcome,
        }
    }
}

/// Delivers log and final state, trying as long as it makes sense.
pub(super) async fn deliver<'a>(
    runner: &Runner,
    record: &JobRecord,
    ended: Ended<'a>,
) -> Option<Box<Follow<'a>>> {
    match ended {
        Ended::ByAgent(mut follow, finished) => {
            follow.deliver(&finished).await;
            follow.done().await;
            Some(follow)
        }
        Ended::Without { outcome, stored, rest, silent } => {
            if !silent {
                deliver_rest(runner, record, &outcome, (stored, &rest)).await;
            }
            None
        }
    }
}

async fn deliver_rest(
    runner: &Runner,
    record: &JobRecord,
    outcome: &Outcome,
    (stored, rest): (u64, &[u8]),
) {
    let token = Secret::new(record.token.clone());
    let mut pending = Pending { stored, bytes: BytesMut::from(rest) };
    let mut delivery = Delivery::default();
    while !pending.is_empty() {
        match pending.send(runner, record, &token).await {
            Ok(Sent::Ack(Some(ack))) if ack.job == JobState::Over => return,
            Ok(Sent::Ack(_)) => delivery.backoff.succeeded(),
            // The bytes before are lost with the instance: the last words still come.
            Ok(Sent::NeedFrom(at)) => {
                if !delivery.resend() {
                    break;
                }
                pending.restart(at);
                pending.bytes.extend_from_slice(rest);
            }
            Err(error) => {
                // The final state matters more than its log.
                if !delivery.wait(&error).await {
                    break;
                }
            }
        }
    }
    let state = final_state(outcome, &record.failure_reasons, None);
    loop {
        match runner.client.finish(record.job, &token, &state).await {
            Ok(Finished::NotYet(ack)) if !delivery.is_over() => {
                tokio::time::sleep(ack.update_interval.unwrap_or(UPDATE_INTERVAL)).await
            }
            Ok(Finished::NotYet(_)) => return,
            Ok(Finished::Accepted | Finished::Over | Finished::LogDiffers) => return,
            Err(error) => {
                if !delivery.wait(&error).await {
                    return;
                }
            }
        }
    }
}

pub(super) fn final_state(
    outcome: &Outcome,
    known: &[String],
    log: Option<(u64, u32)>,
) -> FinalState {
    FinalState {
        success: outcome.success,
        failure_reason: outcome.reason().for_server(known),
        exit_code: outcome.exit_code,
        log,
    }
}

/// Patience with a server that does not take what it is given.
pub(super) struct Delivery {
    pub(super) backoff: Backoff,
    begun: tokio::time::Instant,
    resends: u32,
    refusals: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        let begun = tokio::time::Instant::now();
        Self { backoff: Backoff::default(), begun, resends: 0, refusals: 0 }
    }
}

impl Delivery {
    /// Waits before the next attempt. `false` if there shall be none.
    pub(super) async fn wait(&mut self, error: &ApiError) -> bool {
        let retry_after = match error {
            ApiError::Temporary { retry_after, .. } => *retry_after,
            // A proxy on the way may have said it.
            ApiError::Forbidden(_) | ApiError::Refused(_) if self.refusals < REFUSALS => {
                self.refusals += 1;
                None
            }
            ApiError::Forbidden(_) | ApiError::Refused(_) => {
                self.refusals = 0;
                tracing::error!(%error, "the server does not take the job's end");
                return false;
            }
        };
        if self.is_over() {
            tracing::error!(%error, "gave up telling the server how the job ended");
            return false;
        }
        if self.backoff.failures() == 0 {
            tracing::warn!(%error, "cannot tell the server how the job ended, trying again");
        }
        tokio::time::sleep(self.backoff.failed(retry_after)).await;
        true
    }

    /// Whether it took longer than makes sense.
    pub(super) fn is_over(&self) -> bool {
        self.begun.elapsed() > DELIVERY_LIMIT
    }

    /// Whether the whole log may be sent once more.
    pub(super) fn resend(&mut self) -> bool {
        self.resends += 1;
        self.resends <= RESENDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_once_and_never_with_a_gap() {
        let mut pending = Pending { stored: 10, bytes: BytesMut::new() };
        assert_eq!(pending.take(10, b"abc"), Ok(()));
        assert_eq!(pending.take(11, b"bcd"), Ok(()));
        assert_eq!(pending.take(10, b"ab"), Ok(()));
        assert_eq!((pending.end(), &pending.bytes[..]), (14, &b"abcd"[..]));
        assert_eq!(pending.take(15, b"f"), Err(14));
        pending.restart(3);
        assert_eq!(pending.take(0, b"0123"), Ok(()));
        assert_eq!((pending.stored, &pending.bytes[..]), (3, &b"3"[..]));
    }
}
