//! The way back to a job whose line is lost, over the instance's connection of now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::connect::{AgentLine, Connection};
use crate::group::Acquisition;

/// An agent that cannot be joined for so long, on an instance that can be reached, is
/// lost.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Joins a job again and again, until its agent speaks or is lost.
pub(super) struct Joiner {
    job_key: String,
    /// The connection on which no agent has spoken yet, and since when.
    silent: Option<(Arc<Connection>, Instant)>,
    /// Goes on while nobody waits for it: opening a channel must not be cut short, the
    /// server would count it for ever.
    attempt: Option<AbortOnDropHandle<Attempt>>,
}

struct Attempt {
    silent: Option<(Arc<Connection>, Instant)>,
    line: Result<AgentLine, NoLine>,
}

enum NoLine {
    /// There is no way any more.
    Ever(String),
    Yet,
}

impl Joiner {
    pub(super) fn new(job_key: &str) -> Self {
        Self { job_key: job_key.to_owned(), silent: None, attempt: None }
    }

    /// A new line. An error is final. Cancel-safe.
    pub(super) async fn join(
        &mut self,
        acquisition: &Acquisition,
        from: u64,
    ) -> Result<AgentLine, String> {
        loop {
            let attempt = self.attempt.get_or_insert_with(|| {
                let (connection, silent) = (acquisition.connection(), self.silent.clone());
                let attempt = attempt(connection, silent, self.job_key.clone(), from);
                AbortOnDropHandle::new(tokio::spawn(attempt))
            });
            let result = attempt.await;
            self.attempt = None;
            let Attempt { silent, line } = result.map_err(|error| error.to_string())?;
            self.silent = silent;
            match line {
                Ok(line) => return Ok(line),
                Err(NoLine::Ever(why)) => return Err(why),
                Err(NoLine::Yet) => {}
            }
        }
    }

    /// The agent spoke: the way is good.
    pub(super) fn heard(&mut self) {
        self.silent = None;
    }
}

async fn attempt(
    connection: impl Future<Output = Option<Arc<Connection>>>,
    silent: Option<(Arc<Connection>, Instant)>,
    job_key: String,
    from: u64,
) -> Attempt {
    let Some(connection) = connection.await else {
        let why = "its instance was lost while the job ran".into();
        return Attempt { silent, line: Err(NoLine::Ever(why)) };
    };
    let before = silent.filter(|(on, _)| Arc::ptr_eq(on, &connection)).map(|(_, since)| since);
    if before.is_some() {
        tokio::time::sleep(PAUSE).await;
    }
    let since = before.unwrap_or_else(Instant::now);
    let is_late = since.elapsed() > LIMIT;
    let line = match connection.attach(&job_key, from).await {
        _ if is_late => Err(NoLine::Ever("the job's agent does not answer any more".into())),
        Ok(line) => Ok(line),
        Err(error) => {
            tracing::debug!(%error, "the job cannot be joined yet");
            Err(NoLine::Yet)
        }
    };
    Attempt { silent: Some((connection, since)), line }
}
