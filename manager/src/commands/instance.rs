//! `mayfly instance`: the instances of a running manager, and what an operator may do
//! with them.

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
            let jobs = match answer_of(&state_dir, &Question::Drain { instance: id.clone() }) {
                Some(Answer::Draining { jobs }) => Some(jobs),
                Some(other) => unexpected(&other),
                None => None,
            };
            match jobs {
                None => return Exit::Failed,
                Some(0) => println!("{id} is being deleted"),
                Some(jobs) => {
                    println!("{id} gets no more jobs, and is deleted when its {jobs} have ended");
                }
            }
            Exit::Success
        }
    }
}
