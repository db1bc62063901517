//! The parts that this binary plays inside a container.
//!
//! ```text
//! instance: the first process, collects orphans
//!   ├─ sshd: the SSH server ─► jobs
//!   └─ the command that the operator wants beside it
//! ```
//! Everything runs as the container's user. Settings come as an argument, where everybody
//! may read them: nothing in them is secret, and the server's own key never leaves its
//! memory.

mod instance;
mod server;

use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

pub(crate) const INSTANCE: &str = "instance";
const SSHD: &str = "sshd";
/// Of the SSH server: one that jobs do not want for themselves.
pub(crate) const PORT: u16 = 20022;

/// What the plugin tells an instance.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InstanceSettings {
    /// The name that logs in.
    pub(crate) user: String,
    /// Where commands start; the user's home where `None`.
    pub(crate) home: Option<String>,
    /// Runs beside the server; nothing where empty.
    pub(crate) command: Vec<String>,
}

impl InstanceSettings {
    pub(crate) fn to_argument(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// A failed step inside a container; goes to its log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("cannot {0}: {1}")]
    Failed(&'static str, std::io::Error),
    #[error("the SSH server ended: {0}")]
    Server(String),
    #[error("{0}")]
    Unusable(&'static str),
}

/// Plays the part that the first argument names; `None` if it names none. Must run before
/// any thread exists.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    let role = args.next()?;
    let argument = args.next();
    let result = match role.as_str() {
        INSTANCE => instance::run(&argument?),
        SSHD => server::run(&argument?),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(ended) => {
            eprintln!("{ended}");
            ExitCode::FAILURE
        }
    })
}

fn settings(argument: &str) -> Result<InstanceSettings, Ended> {
    serde_json::from_str(argument).map_err(|error| Ended::Failed("read settings", error.into()))
}

/// This binary in another role.
fn role_command(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role);
    command
}
