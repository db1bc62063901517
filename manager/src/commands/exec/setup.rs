//! What a run needs before it begins: which file and jobs, where logs go, and the
//! configuration of the manager inside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use scheduler::limits::Throttle;
use scheduler::policy::Policy;
use scheduler::{Limits, Schedule};

use super::Flags;
use super::containers::Containers;
use crate::config::{Autoscaler, Config, Runner, Server, Template};
use crate::coordinator::Project;
use crate::secret::Secret;

/// Directories of logs that are kept.
const KEPT_LOGS: usize = 20;
/// A run that was killed leaves instances behind; they end themselves after this.
const LEASE: &str = "1m";
/// Longer logs are cut: the coordinator's own limit.
const OUTPUT_LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// Between jobs an instance waits for the next one until the run ends.
const IDLE_TIME: Duration = Duration::from_secs(3600);

/// The first word is the file if it looks like one; the rest are jobs.
pub(super) fn file_and_jobs(words: &[String], here: &Path) -> (Option<PathBuf>, Vec<String>) {
    let is_file = |word: &String| {
        let named = word.ends_with(".yml") || word.ends_with(".yaml");
        named || here.join(word).is_file()
    };
    match words.split_first() {
        Some((first, jobs)) if is_file(first) => (Some(first.into()), jobs.to_vec()),
        _ => (None, words.to_vec()),
    }
}

/// The directory above `here` that has a `.git`; `here` where there is none.
pub(super) fn repository_root(here: &Path) -> &Path {
    here.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(here)
}

/// A fresh directory for this run's logs. Of those in the default place only the newest
/// are kept.
pub(super) fn log_directory(wanted: Option<&Path>, project: &Project) -> std::io::Result<PathBuf> {
    if let Some(wanted) = wanted {
        std::fs::create_dir_all(wanted)?;
        return std::path::absolute(wanted);
    }
    let base = match std::env::var_os("XDG_STATE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into()))
            .join(".local/state"),
    };
    let base = base.join("mayfly/exec");
    std::fs::create_dir_all(&base)?;
    forget_old(&base);
    let time = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    for attempt in 0..1000 {
        let dir = base.join(format!("{time}-{}-{attempt}", project.name()));
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| dir),
        }
    }
    Err(std::io::Error::other("no free name"))
}

fn forget_old(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    // Names begin with the time.
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.sort();
    let surplus = dirs.len().saturating_sub(KEPT_LOGS - 1);
    for dir in &dirs[..surplus] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Where a run takes place.
pub(super) struct Place<'a> {
    /// Of this run alone.
    pub(super) directory: &'a Path,
    /// The coordinator's.
    pub(super) url: &'a str,
    /// The runner's.
    pub(super) token: &'a str,
    /// Where jobs run in containers.
    pub(super) containers: Option<Containers>,
}

/// One runner, served by local instances.
pub(super) fn config(flags: &Flags, place: &Place<'_>, isolation: &str) -> Config {
    let directory = place.directory;
    let plugin_config = serde_json::json!({
        "name": "exec",
        "root": directory.join("instances"),
        "max_size": flags.instances,
        "isolation": isolation,
        "lease": LEASE,
    });
    let limits = Limits {
        max_instances: flags.instances,
        throttle: Throttle::Unlimited,
        ..Limits::default()
    };
    let policy = Policy { idle_time: IDLE_TIME, ..Policy::default() };
    let autoscaler = Autoscaler {
        template: Template {
            plugin: "fleeting-plugin-local".into(),
            plugin_config: Secret::new(plugin_config.to_string()),
            docker_host: place.containers.as_ref().map(Containers::host),
            ..Template::default()
        },
        limits,
        schedule: Schedule::new(vec![policy]),
        instance_ready_command: String::new(),
        instance_acquire_timeout: Duration::from_secs(120),
        update_interval: Duration::from_secs(5),
        update_interval_when_expecting: Duration::from_millis(500),
        delete_instances_on_shutdown: true,
        ..Autoscaler::default()
    };
    let runner = Runner {
        name: "exec".into(),
        server: Server {
            url: place.url.to_owned(),
            token: Secret::new(place.token),
            id: 1,
            ca_certificates: Vec::new(),
        },
        limit: 0,
        request_concurrency: 1,
        engine: engine(place),
        autoscaler,
        // The server ends with this process.
        report_alone_after: Duration::ZERO,
        // Jobs of a pipeline differ, and soon there is no next one.
        containers_ahead: false,
    };
    Config {
        concurrent: flags.instances,
        check_interval: Duration::from_millis(100),
        shutdown_timeout: Duration::from_secs(20),
        log_level: None,
        log_json: false,
        system_id: "r_mayflyexec00".into(),
        // A first attempt that failed may still be closing its own.
        state_dir: directory.join(format!("state-{isolation}")),
        config_dir: directory.to_owned(),
        runners: vec![runner],
    }
}

fn engine(place: &Place<'_>) -> job::compose::Runner {
    let containers = place.containers.as_ref();
    job::compose::Runner {
        name: "exec".into(),
        short_token: containers.map_or("exec", Containers::short_token).into(),
        version: env!("CARGO_PKG_VERSION").into(),
        // Logs are read as plain files.
        feature_flags: [("FF_TIMESTAMPS".to_owned(), false)].into(),
        output_limit_bytes: OUTPUT_LIMIT_BYTES,
        server: job::compose::Server {
            api_url: format!("{}/api/v4/", place.url),
            ca_certificates: Vec::new(),
            user_agent: crate::USER_AGENT.into(),
        },
        docker: containers.map(Containers::options),
        ..job::compose::Runner::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_job() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("plain"), "").expect("written");
        let words = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let (file, jobs) = file_and_jobs(&words, dir.path());
            (file.map(|file| file.display().to_string()), jobs.join(","))
        };
        assert_eq!(words(&[]), (None, String::new()));
        assert_eq!(words(&["test", "lint"]), (None, "test,lint".into()));
        assert_eq!(words(&["ci.yml", "lint"]), (Some("ci.yml".into()), "lint".into()));
        assert_eq!(words(&["plain"]), (Some("plain".into()), String::new()));
    }
}
