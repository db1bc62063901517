//! The job server, spoken to as GitLab Runner speaks to GitLab.
//!
//! The wire's shapes end here: the rest of the manager sees jobs, the answers of
//! `job::report`, which agents share, and what a failure means. A call makes one attempt; when to try again is its caller's
//! business, since it differs for a job request, a log and a final state.

mod client;
mod pace;
mod wire;

pub(crate) use client::{ApiError, Client, JobRequest, LogPiece};
pub(crate) use pace::Backoff;
