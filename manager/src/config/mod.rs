//! The configuration: GitLab's `config.toml`, what it says and what it means.
//!
//! `file` mirrors the keys, `check` turns them into meanings and reports everything that
//! is wrong at once, `report` shows where. Our own keys live in `[mayfly]` and
//! `[runners.mayfly]`, which GitLab Runner ignores.

mod check;
mod difference;
mod document;
mod faults;
mod file;
mod report;
mod system_id;
mod template;

use std::path::{Path, PathBuf};
use std::time::Duration;

use scheduler::{Limits, Schedule};

use crate::secret::Secret;

pub(crate) use difference::{Difference, Effect, differences};
pub(crate) use report::ConfigError;
pub(crate) use template::Template;

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Most jobs of the whole process.
    pub(crate) concurrent: u32,
    /// Pause between job requests that found nothing.
    pub(crate) check_interval: Duration,
    /// How long an abort may take.
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log_level: Option<String>,
    pub(crate) log_json: bool,
    /// Identifies this manager beside others with the same token.
    pub(crate) system_id: String,
    /// Where recovery state and keys lie.
    pub(crate) state_dir: PathBuf,
    /// The directory of the configuration file.
    pub(crate) config_dir: PathBuf,
    pub(crate) runners: Vec<Runner>,
}

/// One `[[runners]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) server: Server,
    /// `limit`; 0 is none.
    pub(crate) limit: u32,
    /// `request_concurrency`, at least 1.
    pub(crate) request_concurrency: u32,
    /// What the engine needs to know of the entry.
    pub(crate) engine: job::compose::Runner,
    pub(crate) autoscaler: Autoscaler,
    /// How long an agent is without a manager before it tells the server of its job by
    /// itself; zero is never.
    pub(crate) report_alone_after: Duration,
    /// Whether the container of a likely next job is made before the job is there.
    pub(crate) containers_ahead: bool,
}

/// How to speak to the job server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Server {
    /// Without a slash at its end.
    pub(crate) url: String,
    pub(crate) token: Secret,
    /// The runner's id; 0 where the configuration is older than GitLab 15.3.
    pub(crate) id: u64,
    /// `tls-ca-file`, as PEM.
    pub(crate) ca_certificates: Vec<u8>,
}

impl Runner {
    /// An entry that is gone, as far as draining its instances needs it: its name, server
    /// and key.
    pub(crate) fn of_before(
        (name, url, key): (String, String, String),
        ca_certificates: Vec<u8>,
        template: Template,
    ) -> Self {
        let suffix = key.rsplit('|').next().unwrap_or_default();
        let server = Server {
            url,
            token: Secret::default(),
            id: suffix.parse().unwrap_or(0),
            ca_certificates,
        };
        Self {
            name,
            server,
            limit: 0,
            request_concurrency: 1,
            engine: job::compose::Runner {
                short_token: suffix.into(),
                ..job::compose::Runner::default()
            },
            autoscaler: Autoscaler { template, ..Autoscaler::default() },
            report_alone_after: Duration::ZERO,
            containers_ahead: false,
        }
    }

    /// Names the entry in state: the server and the runner, never the token.
    pub(crate) fn key(&self) -> String {
        match self.server.id {
            0 => format!("{}|{}", self.server.url, self.engine.short_token),
            id => format!("{}|{id}", self.server.url),
        }
    }
}

/// `[runners.autoscaler]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Autoscaler {
    pub(crate) template: Template,
    pub(crate) limits: Limits,
    pub(crate) schedule: Schedule,
    pub(crate) instance_ready_command: String,
    pub(crate) instance_acquire_timeout: Duration,
    pub(crate) update_interval: Duration,
    pub(crate) update_interval_when_expecting: Duration,
    pub(crate) delete_instances_on_shutdown: bool,
    /// How often a deletion is asked for again while the manager ends, and how many times.
    pub(crate) shutdown_deletion_interval: Duration,
    pub(crate) shutdown_deletion_retries: u32,
    /// Jobs in a row that an instance may fail to take.
    pub(crate) failure_threshold: u32,
}

impl Default for Autoscaler {
    /// GitLab's defaults.
    fn default() -> Self {
        Self {
            template: Template::default(),
            limits: Limits::default(),
            schedule: Schedule::default(),
            instance_ready_command: String::new(),
            instance_acquire_timeout: Duration::from_secs(15 * 60),
            update_interval: Duration::from_secs(60),
            update_interval_when_expecting: Duration::from_secs(2),
            delete_instances_on_shutdown: false,
            shutdown_deletion_interval: Duration::from_secs(10),
            shutdown_deletion_retries: 3,
            failure_threshold: 3,
        }
    }
}

/// A configuration and what is odd about it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Each one ready to be shown.
    pub(crate) warnings: Vec<String>,
}

/// Where the configuration is when no flag says so, as in GitLab Runner.
pub(crate) fn default_path() -> PathBuf {
    let file = "config.toml";
    if rustix::process::geteuid().is_root() {
        return Path::new("/etc/gitlab-runner").join(file);
    }
    match std::env::var_os("HOME") {
        Some(home) if !home.is_empty() => Path::new(&home).join(".gitlab-runner").join(file),
        _ => file.into(),
    }
}

/// Reads and checks a configuration file.
pub(crate) fn load(path: &Path, state_dir: Option<&Path>) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let document = document::Document::parse(path, &text)?;
    let (file, mut findings) = document.read()?;
    // Absolute, whatever the working directory is later.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let surroundings = check::Surroundings {
        config_dir: absolute(path).parent().unwrap_or(Path::new("/")).to_owned(),
        state_dir: state_dir.map(absolute),
        file_mode: mode(path),
    };
    let config = check::check(&file, &surroundings, &mut findings);
    let (errors, warnings) = document.render(findings);
    match config {
        Some(config) if errors.is_empty() => Ok(Loaded { config, warnings }),
        _ => Err(ConfigError::Faulty { errors, warnings }),
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode())
}
