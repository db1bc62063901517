//! Pure. `.gitlab-ci.yml` to a pipeline of jobs: the compiler.
//!
//! It understands a subset of GitLab's language and means by it what GitLab means; any other
//! keyword is a finding with a place and a way around it, never silently skipped. All
//! findings of a file come at once. `include`, `extends` and `rules` are absent.

mod compile;
mod containers;
mod diagnostic;
mod duration;
mod fields;
mod file;
mod graph;
mod job;
mod keywords;
mod model;
mod scalar;
mod yaml;

pub(crate) use compile::compile;
pub(crate) use diagnostic::Diagnostic;
pub(crate) use model::{
    AllowFailure, Artifacts, ArtifactsWhen, CompiledJob, Image, Need, Pipeline, Scripts, Service,
    Variable, When,
};

#[cfg(test)]
mod tests;
