//! The embedded coordinator: a GitLab-style job server for one run of one pipeline.

mod context;
mod git;
pub mod pipeline;
pub mod snapshot;
