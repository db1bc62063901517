//! `mayfly-agent`: runs one job on an instance, with or without a manager listening.
//!
//! Not a daemon: the manager starts one `job` per idle slot over SSH, where it waits for
//! a plan on stdin. On `go` it leaves the connection behind, is the only writer of the
//! job's log, and keeps log and result on disk. `attach` joins a job over any later
//! connection. The supervising process has one thread; what needs HTTP is a child.

mod alone;
mod attach;
mod audience;
mod clock;
mod containers;
mod descendants;
mod http;
mod listener;
mod outputs;
mod report;
mod slot;
mod stage;
mod store;
mod supervisor;
mod survive;
mod transfer;
mod waiting;

use std::path::PathBuf;
use std::process::ExitCode;

/// The role that moves artifacts, a child of the `job` role.
const TRANSFER: &str = "transfer";
/// The role that drives the containers of a job for one stage, likewise.
const CONTAINERS: &str = "containers";
/// The role that tells the server of a job without a manager, another such child.
const REPORT: &str = "report";

const USAGE: &str =
    "mayfly-agent runs a job on an instance for a mayfly manager, which starts it over SSH.

usage: mayfly-agent job --base DIR --slot N      wait for a plan on stdin
       mayfly-agent attach --base DIR --job KEY  join a job
       mayfly-agent slots --base DIR             list the slots on which jobs run
       mayfly-agent survive --base DIR --start   begin to test whether processes stay
       mayfly-agent survive --base DIR --look    tell by the exit status
       mayfly-agent docker --base DIR --instance ID --host HOST [IMAGE ...]
                                                 test the Docker daemon, remove what is left there,
                                                 pull images
       mayfly-agent version
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["job", "--base", base, "--slot", slot] => match slot.parse() {
            Ok(slot) => waiting::run(&PathBuf::from(base), slot),
            Err(_) => Err(Error::new(format!("--slot {slot}: not a number"))),
        },
        ["attach", "--base", base, "--job", key] => attach::run(&PathBuf::from(base), key),
        ["survive", "--base", base, step] => survive::run(&PathBuf::from(base), step),
        ["slots", "--base", base] => {
            slot::busy(&PathBuf::from(base)).iter().for_each(|number| println!("{number}"));
            Ok(ExitCode::SUCCESS)
        }
        ["docker", "--base", base, "--instance", instance, "--host", host, images @ ..] => {
            containers::look(&PathBuf::from(base), (instance, host), images)
        }
        [TRANSFER] => transfer::run(),
        [CONTAINERS] => containers::run(),
        [CONTAINERS, job::place::AHEAD] => containers::run_ahead(),
        [containers::OWN, dir, user, group] => containers::own(dir, user, group),
        [REPORT] => report::run(),
        ["version" | "--version"] => {
            println!("mayfly-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("mayfly-agent: {error}");
        ExitCode::FAILURE
    })
}

/// Why the agent gave up, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Error(String);

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Adds what was being done to an error of the system.
    fn io(what: &str) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl From<job::wire::FrameError> for Error {
    fn from(error: job::wire::FrameError) -> Self {
        Self(error.to_string())
    }
}
