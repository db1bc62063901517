//! `mayfly instance`: the instances of a running manager, and what an operator may do
//! with them.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use clap::{Args, Subcommand};

use super::status::{answer_of, status_of, table, unexpected};
use super::{Exit, state_dir};
use crate::cli::ConfigFlags;
use crate::console::{Answer, Question};
use crate::group::InstanceStatus;

#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// List all instances
    List {
        /// Print JSON, one object per instance
        #[arg(long)]
        json: bool,
    },
    /// Give an instance no more jobs, and delete it once it holds none
    Drain {
        /// The provider's id of it
        id: String,
    },
    /// Take a drain back: an instance that still runs jobs gets more again
    Keep {
        /// The provider's id of it
        id: String,
    },
    /// Delete an instance now
    Delete {
        /// The provider's id of it
        id: String,
        /// Stop the jobs on it; without this it must hold none
        #[arg(long)]
        stop_jobs: bool,
    },
    /// Log in to an instance with the manager's own key, by the ssh command
    Ssh {
        /// The provider's id of it
        id: String,
        /// A command for it, instead of a shell
        #[arg(last = true)]
        command: Vec<String>,
    },
}

pub(crate) fn run(flags: &Flags) -> Exit {
    let Some(state_dir) = state_dir(&flags.config) else {
        return Exit::Config;
    };
    match &flags.what {
        What::List { json } => {
            let Some(status) = status_of(&state_dir) else {
                return Exit::Failed;
            };
            let instances: Vec<InstanceStatus> =
                status.groups.into_iter().flat_map(|group| group.instances).collect();
            if *json {
                for instance in &instances {
                    println!("{}", serde_json::to_string(instance).unwrap_or_default());
                }
            } else {
                print!("{}", table(&instances));
            }
            Exit::Success
        }
        What::Drain { id } => {
            let question = Question::Drain { instance: id.clone() };
            remove(&state_dir, id, &question, "gets no more jobs, and is deleted when")
        }
        What::Keep { id } => keep(&state_dir, id),
        What::Delete { id, stop_jobs } => {
            let question = Question::Delete { instance: id.clone(), stop_jobs: *stop_jobs };
            remove(&state_dir, id, &question, "is deleted as soon as")
        }
        What::Ssh { id, command } => ssh(&state_dir, id, command),
    }
}

fn remove(state_dir: &Path, id: &str, question: &Question, when: &str) -> Exit {
    match answer_of(state_dir, question) {
        Some(Answer::Draining { jobs: 0 }) => println!("{id} is being deleted"),
        Some(Answer::Draining { jobs }) => println!("{id} {when} its {jobs} jobs have ended"),
        Some(other) => {
            unexpected::<()>(&other);
            return Exit::Failed;
        }
        None => return Exit::Failed,
    }
    Exit::Success
}

fn keep(state_dir: &Path, id: &str) -> Exit {
    match answer_of(state_dir, &Question::Keep { instance: id.to_owned() }) {
        Some(Answer::Kept) => println!("{id} gets jobs again"),
        Some(other) => {
            unexpected::<()>(&other);
            return Exit::Failed;
        }
        None => return Exit::Failed,
    }
    Exit::Success
}

/// Becomes the ssh command, which knows terminals. It trusts the host key that the manager
/// has pinned, and no other.
fn ssh(state_dir: &Path, id: &str, command: &[String]) -> Exit {
    let login = match answer_of(state_dir, &Question::Login { instance: id.to_owned() }) {
        Some(Answer::Login(login)) => login,
        Some(other) => {
            unexpected::<()>(&other);
            return Exit::Failed;
        }
        None => return Exit::Failed,
    };
    let known_hosts = format!("KnownHostsCommand=/bin/echo mayfly-instance {}", login.host_key);
    // ssh expands percent signs.
    let identity = state_dir.join("ssh_key").display().to_string().replace('%', "%%");
    let error = std::process::Command::new("ssh")
        .args(["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "UserKnownHostsFile=none", "-o", "GlobalKnownHostsFile=none"])
        .args(["-o", "HostKeyAlias=mayfly-instance", "-o", &known_hosts, "-i", &identity])
        .args(["-p", &login.port.to_string(), "-l", &login.user, "--", &login.host])
        .args(command)
        .exec();
    eprintln!("error: the ssh command cannot be run: {error}; is OpenSSH's client installed?");
    Exit::Failed
}
