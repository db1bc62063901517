//! The embedded coordinator: a GitLab-style job server for one run of one pipeline.

mod context;
pub mod pipeline;
