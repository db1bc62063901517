//! The engine: what a GitLab job is, and how it becomes a trace and an outcome.
//!
//! * [`payload`] is the job as GitLab hands it out.
//! * [`variables`] expands what it defines.
//! * [`compose`] makes a [`plan`] of it: the ordered stages with their scripts.
//! * [`sequence`] says which stage comes next, given how the last one ended.
//! * [`place`] says where a stage runs: as a process on the instance, for now.
//! * [`ahead`] says what can be made for a job that is not there yet.
//! * [`trace`] is the only writer of the job's log.
//! * [`report`] is what the server is told of a job, and what its answers mean.
//! * [`wire`] carries plans and traces between manager and agent.
//!
//! Everything but `place` and `wire` is pure. Nothing here speaks HTTP or SSH, or knows
//! providers.

pub mod ahead;
pub mod compose;
pub mod outcome;
pub mod payload;
pub mod place;
pub mod plan;
pub mod report;
pub mod sequence;
pub mod trace;
pub mod variables;
pub mod wire;
