//! The job's log on its way from the agent to the server, and the final state after it.

use std::time::Duration;

use bytes::Bytes;
use job::outcome::Outcome;
use job::report::{Ack, FinalState, Finished, JobState, Patched, Pending, UPDATE_INTERVAL};

use super::follow::Follow;
use crate::gitlab::{ApiError, Backoff, LogPiece};
use crate::runner::Runner;
use crate::secret::Secret;
use crate::state::JobRecord;

/// How long a final state is offered to a server that is down. GitLab drops a job that it
/// heard nothing of for an hour.
const DELIVERY_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How often the whole log is sent again because the server's is not ours.
const RESENDS: u32 = 3;
/// How often what the server refuses is offered again.
const REFUSALS: u32 = 3;

/// What became of sending some of the log.
pub(super) enum Sent {
    /// The server took some, or there was nothing.
    Ack(Option<Ack>),
    /// The server's log ends somewhere that we have no bytes for: they are needed from
    /// this offset.
    NeedFrom(u64),
}

/// Sends one piece of what is pending.
pub(super) async fn send(
    pending: &mut Pending,
    runner: &Runner,
    record: &JobRecord,
    token: &Secret,
) -> Result<Sent, ApiError> {
    if pending.is_empty() {
        return Ok(Sent::Ack(None));
    }
    let bytes = Bytes::copy_from_slice(pending.piece());
    let length = bytes.len();
    let piece = LogPiece { offset: pending.stored(), bytes, debug: record.debug_trace };
    match runner.client.patch_trace(record.job, token, piece).await? {
        Patched::Stored(ack) => {
            pending.sent(length);
            Ok(Sent::Ack(Some(ack)))
        }
        Patched::Elsewhere(at) if at == pending.stored() => {
            let what = "the server refuses the log's range, and wants the very same";
            Err(ApiError::Temporary { what: what.into(), retry_after: None })
        }
        Patched::Elsewhere(at) if pending.go_to(at) => Ok(Sent::Ack(None)),
        Patched::Elsewhere(at) => Ok(Sent::NeedFrom(at)),
        Patched::Nowhere => {
            let what = "the server refuses the log's range, and does not say which it wants";
            Err(ApiError::Temporary { what: what.into(), retry_after: None })
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
        /// The rest of the log; the outcome's last line follows it.
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
    let mut delivery = Delivery::default();
    // Its agent may have told the server more than we know of: then only the last words are
    // missing. They come after whatever is there.
    let mut last = outcome.last_line().into_bytes();
    let mut pending = Pending::new(stored, rest.to_vec());
    while !pending.is_empty() || !last.is_empty() {
        if pending.is_empty() {
            pending = Pending::new(pending.stored(), std::mem::take(&mut last));
        }
        match send(&mut pending, runner, record, &token).await {
            Ok(Sent::Ack(Some(ack))) if ack.job == JobState::Over => return,
            Ok(Sent::Ack(_)) => delivery.backoff.succeeded(),
            Ok(Sent::NeedFrom(at)) => {
                if !delivery.resend() {
                    break;
                }
                last = outcome.last_line().into_bytes();
                pending = Pending::new(at, Vec::new());
            }
            Err(error) => {
                // The final state matters more than its log.
                if !delivery.wait(&error).await {
                    break;
                }
            }
        }
    }
    let state = FinalState::of(outcome, &record.failure_reasons, None);
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
