//! Pure. What a runner is given for a job: GitLab's payload, from a compiled job.

mod build;
mod expand;
mod predefined;
mod wire;

pub(super) use build::{Assignment, build};
pub(super) use predefined::slug;
pub(super) use wire::{Dependency, Payload};
