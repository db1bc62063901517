//! The caller's hold on a server.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Event, JobStatus, state::Server, trace::Trace};
use crate::coordinator::PipelineOutcome;

/// How long requests under way may go on after the end.
const GRACE: Duration = Duration::from_secs(5);

/// A server under way. Dropping it ends the server, at once for clones and held requests.
pub(crate) struct Handle {
    pub(super) server: Arc<Server>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) first: Mutex<Option<broadcast::Receiver<Event>>>,
    pub(super) outcome: watch::Receiver<Option<PipelineOutcome>>,
    pub(super) serving: Option<JoinHandle<io::Result<()>>>,
    pub(super) cut: CancellationToken,
}

impl Handle {
    /// Events. The first receiver gets all since the start, a later one those from now on. A
    /// receiver that lags misses events, not facts: [`Handle::jobs`] and the log files have them.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.events.subscribe())
    }

    /// Where every job stands now, in the order of the pipeline.
    pub(crate) fn jobs(&self) -> Vec<JobStatus> {
        self.server.statuses()
    }

    /// The file with the whole log of a job; it appears with the first byte.
    ///
    /// # Panics
    /// When the pipeline has no such job.
    pub(crate) fn trace_path(&self, job: usize) -> PathBuf {
        Trace::path(&self.server.options, job, &self.server.pipeline.jobs[job].name)
    }

    /// The server's address as jobs reach it.
    pub(crate) fn url(&self) -> &str {
        &self.server.url
    }

    /// The outcome, once there is one.
    #[cfg(test)]
    pub(super) fn result(&self) -> Option<PipelineOutcome> {
        *self.outcome.borrow()
    }

    /// Waits for the outcome.
    pub(crate) async fn finished(&self) -> PipelineOutcome {
        let mut outcome = self.outcome.clone();
        let known = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome);
        known.unwrap_or(PipelineOutcome::Canceled)
    }

    /// Cancels what has not ended: waiting jobs at once, running ones by asking their runners,
    /// who still run `after_script`.
    pub(crate) fn cancel(&self) {
        self.server.ledger.cancel(false);
    }

    /// Cancels what has not ended without waiting for runners; they are turned away.
    pub(crate) fn abort(&self) {
        self.server.ledger.cancel(true);
    }

    /// Begins the end without waiting for it.
    #[cfg(test)]
    pub(super) fn server_stop(&self) {
        self.server.stop.cancel();
    }

    /// Ends the server: held requests are answered, others get a few seconds.
    pub(crate) async fn shutdown(mut self) {
        self.server.stop.cancel();
        let Some(mut serving) = self.serving.take() else { return };
        if timeout(GRACE, &mut serving).await.is_err() {
            self.cut.cancel();
            drop(timeout(GRACE, serving).await);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.server.stop.cancel();
        if self.serving.is_some() {
            self.cut.cancel();
        }
    }
}
