//! Artifacts to and from the server: a child of the agent, since HTTP and zip have no
//! place in the process that watches over the job.
//!
//! The order comes by stdin, so that its tokens are in no process list. What this process
//! prints goes to the job's log; its exit status is the stage's.

mod download;
mod extract;
mod files;
mod http;
mod upload;

use std::io::Read as _;
use std::process::ExitCode;

use job::plan::{Transfer, What};
use prost::Message as _;

use crate::Error;

pub(crate) fn run() -> Result<ExitCode, Error> {
    let mut order = Vec::new();
    std::io::stdin().read_to_end(&mut order).map_err(Error::io("cannot read the order"))?;
    let transfer =
        Transfer::decode(order.as_slice()).map_err(|error| Error::new(error.to_string()))?;
    let http = http::Http::new(&transfer)?;
    let result = match &transfer.what {
        Some(What::Download(download)) => download::run(&http, &transfer.project_dir, download),
        Some(What::Upload(upload)) => upload::run(&http, &transfer.project_dir, upload),
        None => Err(Error::new("an order for nothing")),
    };
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("ERROR: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
