//! The role that drives a job's containers for one stage: a child of the `job` role, told on
//! stdin what to do. What it prints is the job's; how the work ended beyond an exit code it
//! writes back on stdin, which is a socket.
//!
//! What a stage leaves for the next one lies with the daemon, under names made of the job's
//! key: this process may die at any moment, and whoever comes next finds all of it.

mod ahead;
mod clear;
mod daemon;
mod furnish;
mod images;
mod login;
mod ownership;
mod room;
mod script;
mod services;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use hyper::StatusCode;
use job::outcome::{FailureReason, Outcome};
use job::plan::{ContainerWork, Containers, Work};
use prost::Message as _;
use rustix::stdio::stdin;
use serde_json::Value;

use crate::Error;
use ahead::Ahead;
pub(crate) use ahead::run as run_ahead;
use daemon::{Ask, Daemon, Fault};
pub(crate) use ownership::{OWN, own};
pub(crate) use room::refusal;

/// How a stage's work ended.
enum Done {
    /// As a process does.
    Exit(u8),
    /// For a reason that an exit code cannot tell.
    Failed(Outcome),
}

/// Why work with containers came to nothing.
#[derive(Debug)]
enum Trouble {
    /// The daemon did not do what it was asked to.
    Daemon(&'static str, Fault),
    /// What the job's log says, with GitLab's reason.
    Outcome(Outcome),
}

impl Trouble {
    fn outcome(self) -> Outcome {
        match self {
            Self::Outcome(outcome) => outcome,
            Self::Daemon(what, fault) => {
                Outcome::failure(FailureReason::RunnerSystemFailure, format!("{what}: {fault}"))
            }
        }
    }
}

/// Names what was being done when the daemon failed.
trait While<T> {
    fn during(self, what: &'static str) -> Result<T, Trouble>;
}

impl<T> While<T> for Result<T, Fault> {
    fn during(self, what: &'static str) -> Result<T, Trouble> {
        self.map_err(|fault| Trouble::Daemon(what, fault))
    }
}

fn system_failure(message: impl Into<String>) -> Trouble {
    Trouble::Outcome(Outcome::failure(FailureReason::RunnerSystemFailure, message))
}

pub(crate) fn run() -> Result<ExitCode, Error> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(Error::io("cannot read the work"))?;
    let (containers, work) = read_work(&input)?;
    runtime()?.block_on(do_work(&containers, work, None))
}

fn read_work(input: &[u8]) -> Result<(Containers, Work), Error> {
    let work = ContainerWork::decode(input)
        .map_err(|error| Error::new(format!("the work cannot be read: {error}")))?;
    work.containers.zip(work.work).ok_or_else(|| Error::new("there is no work"))
}

/// Does what it was told to, with what was made ahead of the job.
async fn do_work(
    containers: &Containers,
    work: Work,
    ahead: Option<Ahead>,
) -> Result<ExitCode, Error> {
    let done = work_on(containers, work, ahead).await;
    Ok(match done.unwrap_or_else(|trouble| Done::Failed(trouble.outcome())) {
        Done::Exit(code) => ExitCode::from(code),
        Done::Failed(outcome) => {
            // Where nobody listens the exit code says at least that it failed.
            let _ = rustix::io::write(stdin(), &outcome.encode_to_vec());
            ExitCode::FAILURE
        }
    })
}

/// Whether the daemon will do. What jobs left on it that run no more is removed, and images
/// that jobs used lately elsewhere are pulled.
pub(crate) fn look(
    base: &Path,
    (instance, host): (&str, &str),
    images: &[&str],
) -> Result<ExitCode, Error> {
    let fault = |fault: Fault| Error::new(fault.to_string());
    let daemon = Daemon::of(host).map_err(fault)?;
    let busy = crate::slot::busy(base);
    runtime()?.block_on(async {
        let limit = Duration::from_secs(10);
        let version = daemon.call_within(Ask::get("/version"), limit).await.map_err(fault)?;
        if version["Os"] != "linux" {
            return Err(Error::new(format!(
                "the Docker daemon runs containers of {}: only Linux is supported",
                version["Os"]
            )));
        }
        clear::remove_orphans(&daemon, instance, &busy).await.map_err(fault)?;
        if let Some(short) = room::note_root(&daemon, base).await.map_err(fault)? {
            return Err(Error::new(short));
        }
        images::pull_ahead(&daemon, images).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("cannot wait for several things"))
}

async fn work_on(
    containers: &Containers,
    work: Work,
    ahead: Option<Ahead>,
) -> Result<Done, Trouble> {
    let mut job = Job::of(containers)?;
    match work {
        Work::Furnish(_) => {
            // Whoever made something ahead has cleared the slot.
            if ahead.is_none() {
                job.remove_leftovers().await;
            }
            let (fits, other) = match ahead {
                Some(ahead) if ahead.fits(containers) => (Some(ahead), None),
                other => (None, other),
            };
            let removed = async {
                if let Some(other) = other {
                    other.remove().await;
                }
            };
            let (furnished, ()) = tokio::join!(job.furnish(fits), removed);
            furnished.map(|()| Done::Exit(0))
        }
        Work::FirstScript(script) => job.script(&script, true).await,
        Work::Script(script) => job.script(&script, false).await,
        Work::HelperScript(script) => job.helper_script(&script).await,
        Work::Transfer(transfer) => {
            job.take_back().await?;
            run_transfer(&transfer)
        }
        Work::ServiceLogs(_) => {
            job.service_logs().await;
            Ok(Done::Exit(0))
        }
        Work::Clear(clear) => {
            job.clear(&clear.remove).await;
            Ok(Done::Exit(0))
        }
    }
}

/// The job whose containers are driven.
struct Job<'a> {
    daemon: Daemon,
    containers: &'a Containers,
    /// The name of its own network, if it is to have one.
    network: Option<String>,
}

impl<'a> Job<'a> {
    fn of(containers: &'a Containers) -> Result<Self, Trouble> {
        let daemon = Daemon::of(&containers.host).during("the Docker daemon cannot be reached")?;
        let mut job = Self { daemon, containers, network: None };
        job.network = containers.network.map(|_| job.name(furnish::NETWORK));
        Ok(job)
    }

    /// The name of something that is made for the job.
    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.containers.prefix)
    }

    /// Whether the daemon takes no connection: one that ends does so before it stops its
    /// containers. One under load answers late, and is there.
    pub(super) async fn is_daemon_gone(&self) -> bool {
        let answer = self.daemon.call_within(Ask::get("/_ping"), Duration::from_secs(2)).await;
        matches!(answer, Err(Fault::Unreachable(_) | Fault::Broken(_)))
    }

    /// What the daemon says of a container, by name or id.
    pub(super) async fn container(&self, name: &str) -> Result<Option<Value>, Trouble> {
        let path = format!("/containers/{name}/json");
        match self.daemon.call(Ask::get(&path)).await {
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => Ok(None),
            other => other.map(Some).during("a container cannot be looked at"),
        }
    }
}

/// Starts another role of the agent with its whole input; its output is this one's.
fn start_role(role: &str, input: &[u8]) -> std::io::Result<Child> {
    let mut child = Command::new("/proc/self/exe").arg(role).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    Ok(child)
}

/// Artifacts are the business of another role.
fn run_transfer(transfer: &[u8]) -> Result<Done, Trouble> {
    let failed = |error: std::io::Error| system_failure(format!("cannot move artifacts: {error}"));
    let started = start_role(crate::TRANSFER, transfer);
    let status = started.and_then(|mut child| child.wait()).map_err(failed)?;
    Ok(Done::Exit(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// A line of the job's log.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    // Nobody reads it any more: the agent is gone, and kills this process in a moment.
    let _ = writeln!(stdout, "{line}");
}

/// A line that should be seen.
fn warn(line: &str) {
    say(&format!("{}{line}{}", job::trace::colour::YELLOW, job::trace::colour::RESET));
}
