//! The end of a job that its agent told of: the rest of the log, the final state, and the
//! word to the agent that nothing more is needed of it.

use std::time::Duration;

use job::report::{FinalState, Finished, JobState, MAX_PIECE_BYTES, UPDATE_INTERVAL};
use job::wire::{Done, Finished as AgentFinished, from_agent, to_agent};

use tokio::time::timeout;

use super::follow::Follow;
use super::log::{Delivery, Sent, send};

/// An agent that was told that all is done ends at once; its slot is free then.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// An agent that has log to send sends it at once; its instance may have to come back.
const READ_ON_LIMIT: Duration = Duration::from_secs(5 * 60);

impl Follow<'_> {
    /// Brings the whole log and the final state to the server. Where the server does not
    /// take the log, the final state still comes, without the log's checksum.
    pub(super) async fn deliver(&mut self, finished: &AgentFinished) {
        let mut delivery = Delivery::default();
        let reasons = self.record.failure_reasons.clone();
        let whole = Some((finished.log_bytes, finished.log_crc32));
        let mut state = FinalState::of(&self.outcome, &reasons, whole);
        while self.server != JobState::Over {
            self.hold_line().await;
            if state.log.is_some() && !self.deliver_log(finished, &mut delivery).await {
                state.log = None;
                continue;
            }
            match self.runner.client.finish(self.record.job, &self.token, &state).await {
                Ok(Finished::Accepted | Finished::Over) => return,
                Ok(Finished::NotYet(ack)) => {
                    if delivery.is_over() {
                        return;
                    }
                    tokio::time::sleep(ack.update_interval.unwrap_or(UPDATE_INTERVAL)).await;
                }
                Ok(Finished::LogDiffers) if delivery.resend() => {
                    tracing::info!("the server's log is not the whole, sending it again");
                    self.restart_log(0).await;
                }
                Ok(Finished::LogDiffers) => {
                    tracing::error!("the server keeps saying that the log is not the whole");
                    if state.log.take().is_none() {
                        return;
                    }
                }
                Err(error) => {
                    if !delivery.wait(&error).await {
                        return;
                    }
                }
            }
        }
    }

    /// An agent that hears nothing takes its manager for gone, and tells the server itself.
    async fn hold_line(&mut self) {
        if self.line.as_ref().is_some_and(|line| !line.is_closed()) {
            return;
        }
        let join = self.joiner.join(&self.acquisition, self.pending.end());
        if let Ok(Ok(line)) = timeout(LEAVE_LIMIT, join).await {
            self.joined(line).await;
        }
    }

    /// Sends the log to its end. `false` if the server will not have it, or if it is lost.
    async fn deliver_log(&mut self, finished: &AgentFinished, delivery: &mut Delivery) -> bool {
        let mut is_lost = false;
        while self.pending.stored() < finished.log_bytes {
            let piece = (self.pending.stored() + MAX_PIECE_BYTES as u64).min(finished.log_bytes);
            while !is_lost && self.pending.end() < piece {
                self.give_credit().await;
                is_lost = !timeout(READ_ON_LIMIT, self.read_on()).await.unwrap_or(false);
                if is_lost {
                    tracing::error!("the end of the log was lost with its instance");
                }
            }
            if self.pending.is_empty() {
                return false;
            }
            match send(&mut self.pending, self.runner, &self.record, &self.token).await {
                Ok(Sent::Ack(ack)) => {
                    delivery.backoff.succeeded();
                    if ack.is_some_and(|ack| ack.job == JobState::Over) {
                        self.server = JobState::Over;
                        return false;
                    }
                }
                Ok(Sent::NeedFrom(at)) => {
                    if !delivery.resend() {
                        return false;
                    }
                    self.restart_log(at).await;
                }
                Err(error) => {
                    if !delivery.wait(&error).await {
                        return false;
                    }
                }
            }
        }
        true
    }

    async fn restart_log(&mut self, at: u64) {
        self.pending.restart(at);
        self.line = None;
    }

    /// Reads some more of the log of a job that has ended. `false` if there is no way.
    async fn read_on(&mut self) -> bool {
        loop {
            let Some(line) = &mut self.line else {
                match self.joiner.join(&self.acquisition, self.pending.end()).await {
                    Ok(line) => self.joined(line).await,
                    Err(_) => return false,
                }
                continue;
            };
            match line.next().await {
                Some(from_agent::Message::Log(log)) => {
                    let before = self.pending.end();
                    let is_next = self.pending.take(log.offset, &log.data).is_ok();
                    if is_next && self.pending.end() > before {
                        // Only what brings us on says that the way is good.
                        self.joiner.heard();
                        return true;
                    }
                }
                Some(from_agent::Message::Refused(_)) => return false,
                Some(_) => {}
                None => self.line = None,
            }
        }
    }

    /// The agent may forget the job: the server has all of it.
    pub(super) async fn done(&mut self) {
        let leave = async {
            if self.line.is_none()
                && let Some(connection) = self.acquisition.connection().await
                && let Ok(line) = connection.attach(&self.record.job_key, self.pending.end()).await
            {
                self.line = Some(line);
            }
            self.say(to_agent::Message::Done(Done {})).await;
            // The slot is free once the agent has gone.
            if let Some(line) = &mut self.line {
                while line.next().await.is_some() {}
            }
        };
        let _ = timeout(LEAVE_LIMIT, leave).await;
    }
}
