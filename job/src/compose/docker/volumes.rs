//! `volumes`: what of the daemon's machine containers see, and what outlives a job.

use super::{Docker, Instance};
use crate::ahead::plain;
use crate::compose::Context;

/// Stands for the instance, where several of them share a daemon.
const INSTANCE: &str = "${MAYFLY_INSTANCE}";

/// The volumes of one job's containers.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// `source:inside[:mode]`, as the daemon reads them.
    pub(super) binds: Vec<String>,
    /// Directories inside whose content ends with the job.
    pub(super) passing: Vec<String>,
    /// Named volumes that outlive the job.
    pub(super) kept: Vec<String>,
    /// Where the builds directory is, if the configuration says so.
    pub(super) builds: Option<String>,
}

impl Volumes {
    pub(super) fn of(context: &Context<'_>, docker: &Docker, instance: &Instance) -> Self {
        let mut volumes = Self::default();
        for text in &docker.volumes {
            // Not a variable of the job: another value would be another instance's place.
            let text = text.replace(INSTANCE, &plain(&instance.id));
            let text = context.variables.expand(&text);
            let (source, inside) = match text.split_once(':') {
                Some((source, rest)) => (Some(source), rest.split(':').next().unwrap_or(rest)),
                None => (None, text.as_str()),
            };
            let inside = inside.trim_end_matches('/');
            match source {
                Some(source) if inside == context.place.builds_dir => {
                    volumes.builds = Some(source.to_owned());
                }
                Some(_) => volumes.binds.push(text),
                None if inside == context.place.builds_dir => {}
                None => volumes.add(context, docker, instance, inside),
            }
        }
        volumes
    }

    /// A directory inside without a source.
    fn add(&mut self, context: &Context<'_>, docker: &Docker, instance: &Instance, inside: &str) {
        if docker.disable_cache {
            return self.passing.push(inside.to_owned());
        }
        // As in GitLab Runner: of this runner, project and slot, so that no two jobs that
        // run at the same time share one.
        let project = context.job.job_info.project_id;
        let name = format!(
            "mayfly-{}-project-{project}-slot-{}-cache-{:08x}",
            context.runner.short_token,
            instance.slot,
            crc32fast::hash(inside.as_bytes())
        );
        if docker.cache_dir.is_empty() {
            self.binds.push(format!("{name}:{inside}"));
            self.kept.push(name);
        } else {
            let dir = docker.cache_dir.trim_end_matches('/');
            self.binds.push(format!("{dir}/{name}:{inside}"));
        }
    }
}
