//! The job server, spoken to as GitLab Runner speaks to GitLab.
//!
//! The wire's shapes end here: the rest of the manager sees jobs, acknowledgements and
//! what a failure means. A call makes one attempt; when to try again is its caller's
//! business, since it differs for a job request, a log and a final state.

mod client;
mod pace;
mod wire;

pub(crate) use client::{
    Ack, ApiError, Client, FinalState, Finished, JobRequest, JobState, LogPiece, Patched,
};
pub(crate) use pace::Backoff;
