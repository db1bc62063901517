//! The Docker of an instance whose jobs run in containers: its agent looks at it.

use std::time::Duration;

use super::connection::Facts;
use super::prepare::quote;

/// Looking removes leftovers and pulls images, for two minutes at most.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// The daemon that jobs need, and what it should have.
pub(crate) struct Docker {
    /// The provider's name for the instance.
    pub(crate) instance: String,
    /// As in `DOCKER_HOST`; empty is the instance's own.
    pub(crate) host: String,
    /// Images that jobs used lately.
    pub(crate) images: Vec<String>,
}

impl Docker {
    /// The command that looks at the daemon.
    pub(super) fn command(&self, facts: &Facts) -> String {
        let words = ["docker", "--base", &facts.base, "--instance", &self.instance, "--host"];
        let words = words.into_iter().chain([self.host.as_str()]);
        let words = words.chain(self.images.iter().map(String::as_str)).map(quote);
        format!("exec {} {}", quote(&facts.agent), words.collect::<Vec<_>>().join(" "))
    }
}
