//! The job server: GitLab's runner API, artifacts and git over HTTP, for one run.
//!
//! It serves whoever reaches its address and knows a token: the runner's to take jobs, a
//! job's to report on it, to exchange artifacts and to clone the snapshot. Nothing else is
//! served; every body, wait and connection has a bound. Registration, caches and container
//! registries are absent.

mod answer;
mod artifacts;
mod event;
mod fetch;
mod handle;
mod ledger;
mod listener;
mod multipart;
mod options;
mod report;
mod request;
mod routes;
mod start;
mod state;
mod trace;

pub(crate) use event::{Event, EventKind, JobStatus};
pub(crate) use handle::Handle;
pub(crate) use options::{Limits, Options};
pub(crate) use start::{new_token, start};

#[cfg(test)]
mod tests;
