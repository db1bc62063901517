//! What a host asks before each start of a binary: the first one, and those after its death.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::failure::StartCause;

/// Says whether a binary may be run now, and if not, why and what to do. May block.
#[derive(Clone)]
pub(super) struct Gate(Arc<Ask>);

type Ask = dyn Fn() -> Result<(), String> + Send + Sync;

impl Gate {
    pub(super) fn new(ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// An answer that does not come within `limit` is a no.
    pub(super) async fn ask(&self, limit: Duration) -> Result<(), StartCause> {
        let ask = Arc::clone(&self.0);
        let answer = tokio::task::spawn_blocking(move || ask());
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer.map_err(StartCause::Refused),
            Ok(Err(error)) => Err(StartCause::Refused(error.to_string())),
            Err(_) => Err(StartCause::Refused(format!(
                "it could not be looked at within {} s; does its file system answer?",
                limit.as_secs_f32()
            ))),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
