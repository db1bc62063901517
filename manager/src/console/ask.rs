//! The operator's end of the console.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Question};

/// A manager answers within milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// Thousands of instances.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody is there.
    #[error(
        "no manager answers at {}: is `mayfly run` running with this state directory, as this user?",
        .0.display()
    )]
    NoManager(PathBuf),
    /// Somebody is, and does not answer.
    #[error("the manager does not answer: {0}")]
    Io(#[from] std::io::Error),
    /// It answers something else, probably since it is of another version.
    #[error("the manager's answer is not understood ({0}); is it of this version?")]
    Unreadable(#[from] serde_json::Error),
}

/// Asks the manager that has this state.
pub(crate) fn ask(state_dir: &Path, question: &Question) -> Result<Answer, AskError> {
    let path = super::path(state_dir);
    let mut stream = UnixStream::connect(&path).map_err(|_| AskError::NoManager(path))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
