//! The manager's end of the console.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Answer, Question};

/// A question is short, and asked at once.
const MAX_QUESTION_BYTES: u64 = 64 * 1024;
const CONVERSATION_LIMIT: Duration = Duration::from_secs(10);
/// Conversations at a time; others wait.
const MAX_CONVERSATIONS: usize = 16;

/// Answers questions until it is dropped. Where there can be no socket, a warning is all
/// that happens.
pub(crate) async fn serve(
    state_dir: &Path,
    answer: impl Fn(&Question) -> Answer + Send + Sync + 'static,
) {
    let path = super::path(state_dir);
    // Nobody else has this state: what is there is left over.
    let _ = std::fs::remove_file(&path);
    let bound = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    });
    let listener = match bound {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(socket = %path.display(), %error, "there is no console: `mayfly status` will not work");
            return;
        }
    };
    let _removed_at_the_end = Removed(path);
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(MAX_CONVERSATIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let talk = converse(stream, &*answer);
                    if let Ok(Err(error)) = timeout(CONVERSATION_LIMIT, talk).await {
                        tracing::debug!(%error, "a conversation at the console failed");
                    }
                    drop(place);
                });
            }
            // Out of file descriptors, most likely: not for long.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn converse(
    stream: UnixStream,
    answer: &impl Fn(&Question) -> Answer,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    (&mut stream).take(MAX_QUESTION_BYTES).read_until(b'\n', &mut line).await?;
    let answer = match serde_json::from_slice(&line) {
        Ok(question) => answer(&question),
        Err(error) => Answer::Refused(format!("this is no question: {error}")),
    };
    let mut reply = serde_json::to_vec(&answer)?;
    reply.push(b'\n');
    stream.write_all(&reply).await?;
    stream.shutdown().await
}
