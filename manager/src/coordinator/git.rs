//! Runs the `git` program: with a clean environment, a deadline, and words for its failures.
//!
//! A command started here sees the repository it is pointed at and nothing else: variables
//! that a git hook or alias leaves in the environment are taken away. It never asks the user
//! anything, never runs a hook, and dies with the future that waits for it.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Variables that tie git to a repository: `git rev-parse --local-env-vars`, without those that
/// only carry settings.
const LOCAL_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DEFAULT_HASH",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INDEX_VERSION",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROTOCOL",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];
/// Settings that make a command do exactly what it is asked for: no hooks, no daemons, no
/// signatures, no housekeeping, no translation.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "core.safecrlf=false",
    "commit.gpgSign=false",
    "log.showSignature=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "add.ignoreErrors=false",
    "advice.addEmbeddedRepo=false",
    "i18n.commitEncoding=UTF-8",
    "i18n.logOutputEncoding=UTF-8",
];
/// Longest part of git's own words that is passed on, in characters.
const DETAIL_LIMIT: usize = 1000;

/// Why a git command gave no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    #[error("git is not installed, or not in PATH")]
    Missing,
    #[error("git could not be run")]
    Spawn(#[source] std::io::Error),
    #[error("git took longer than {} s", .0.as_secs())]
    Deadline(Duration),
    #[error("git said: {0}")]
    Failed(String),
}

/// `git` in `directory`; standard input is empty, output is captured by [`output`].
pub(super) fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    for variable in LOCAL_VARIABLES {
        command.env_remove(variable);
    }
    for setting in SETTINGS {
        command.arg("-c").arg(setting);
    }
    command
        .arg("-C")
        .arg(directory)
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_DEFAULT_REF_FORMAT", "files")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs `git ARGUMENTS` in `directory` and gives its standard output.
pub(super) async fn run<A: AsRef<OsStr>>(
    directory: &Path,
    arguments: &[A],
    deadline: Duration,
) -> Result<Vec<u8>, GitError> {
    let mut command = command(directory);
    command.args(arguments);
    output(command, None, deadline).await
}

/// Runs a prepared command, feeding it `input`, and gives its standard output.
pub(super) async fn output(
    mut command: Command,
    input: Option<&[u8]>,
    deadline: Duration,
) -> Result<Vec<u8>, GitError> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => GitError::Missing,
        _ => GitError::Spawn(error),
    })?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command that ends without reading its input says why by its status.
            drop(stdin.write_all(input).await);
        }
    };
    let both = async { tokio::join!(child.wait_with_output(), feed).0 };
    let output = timeout(deadline, both)
        .await
        .map_err(|_| GitError::Deadline(deadline))?
        .map_err(GitError::Spawn)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words.trim().chars().take(DETAIL_LIMIT).collect();
    Err(GitError::Failed(if words.is_empty() { output.status.to_string() } else { words }))
}

/// A command's output as text, without the line break at its end.
pub(super) fn line(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).trim_end_matches(['\n', '\r']).to_string()
}
