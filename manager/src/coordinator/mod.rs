//! The embedded coordinator: a GitLab-style job server for one run of one pipeline.
//!
//! Two halves. [`pipeline`] compiles a pipeline file, and is pure. [`server`] speaks the runner
//! API for the compiled pipeline and serves a [`snapshot`] of the working tree; the rules by
//! which jobs follow each other are a pure state machine of their own. It shares no type with
//! the manager's GitLab client: the two meet on the wire, as with any GitLab.

mod context;
mod git;
mod payload;
pub(crate) mod pipeline;
mod run;
pub(crate) mod server;
pub(crate) mod snapshot;

pub(crate) use context::{Context, Executor, Project};
pub(crate) use run::{JobOutcome, JobState, PipelineOutcome};
