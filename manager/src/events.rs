//! What happens to jobs, for whoever wants to see it live.

use std::time::SystemTime;

use job::wire::Progress;
use tokio::sync::broadcast;

/// Events that a slow listener may be behind.
const QUEUE: usize = 4096;

/// One thing that happened to a job.
#[derive(Clone, Debug)]
pub(crate) struct JobEvent {
    pub(crate) job: u64,
    pub(crate) at: SystemTime,
    pub(crate) what: JobStep,
}

/// What it was.
#[derive(Clone, Debug)]
pub(crate) enum JobStep {
    /// It was handed out to us.
    Taken,
    /// It has a slot.
    Bound { instance: String },
    /// Its plan is on the instance and was told to begin.
    Begun,
    /// A stage began or ended.
    Stage(Progress),
}

/// Tells events to listeners, if there are any.
#[derive(Clone, Debug)]
pub(crate) struct Events(broadcast::Sender<JobEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(QUEUE).0)
    }
}

impl Events {
    pub(crate) fn tell(&self, job: u64, what: JobStep) {
        // Nobody listening is the usual case.
        let _ = self.0.send(JobEvent { job, at: SystemTime::now(), what });
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<JobEvent> {
        self.0.subscribe()
    }
}
