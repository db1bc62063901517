//! `mayfly instance`: the instances of a running manager, and what an operator may do
//! with them.

use clap::{Args, Subcommand};

use super::status::{status_of, table};
use super::{Exit, state_dir};
use crate::cli::ConfigFlags;
use crate::console::{Answer, Question, ask};
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
            match ask(&state_dir, &Question::Drain { instance: id.clone() }) {
                Ok(Answer::Draining { jobs: 0 }) => println!("{id} is being deleted"),
                Ok(Answer::Draining { jobs }) => {
                    println!("{id} gets no more jobs, and is deleted when its {jobs} have ended");
                }
                Ok(Answer::Refused(why)) => {
                    eprintln!("error: {why}; see `mayfly instance list`");
                    return Exit::Failed;
                }
                Ok(other) => {
                    eprintln!("error: the manager answered {other:?}");
                    return Exit::Failed;
                }
                Err(error) => {
                    eprintln!("error: {error}");
                    return Exit::Failed;
                }
            }
            Exit::Success
        }
    }
}
