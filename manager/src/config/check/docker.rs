//! `[runners.docker]` of a `docker-autoscaler`: where containers come from, and what is
//! allowed.
//!
//! What GitLab Runner would fail every job for is an error here. Keys without effect are
//! warned of, each with its reason; `docs/config.md` lists them.

mod host_options;
mod values;

use std::collections::BTreeSet;
use std::time::Duration;

use job::compose::docker::{Docker, PullPolicy, Service};

use super::super::file::{DockerTable, RunnerEntry, ServiceTable};
use super::super::report::Findings;
use super::{Surroundings, positive, warn_about_variables};

/// GitLab's defaults.
const BUILDS_DIR: &str = "/builds";
const CACHE_DIR: &str = "/cache";
const WAIT_FOR_SERVICES: Duration = Duration::from_secs(30);

/// What a text should have been, and how that is written.
type Expected = (&'static str, &'static str);

const POLICY: Expected =
    ("is no pull policy", "use \"always\", \"if-not-present\" or \"never\", one or a list of them");

/// Has an entry's jobs run in containers.
pub(super) fn apply(
    engine: &mut job::compose::Runner,
    entry: &RunnerEntry,
    at: &str,
    around: &Surroundings,
    findings: &mut Findings,
) {
    for (text, key, default) in [
        (&mut engine.builds_dir, "builds_dir", BUILDS_DIR),
        (&mut engine.cache_dir, "cache_dir", CACHE_DIR),
    ] {
        if text.is_empty() {
            default.clone_into(text);
        } else if !text.starts_with('/') || text.trim_matches('/').is_empty() {
            let message = format!("{text:?} is no directory that a container can have of its own");
            let hint = format!("write an absolute path, such as {default:?}");
            findings.error(&format!("{at}.{key}"), message, hint);
        }
    }
    engine.custom_build_dir = entry.custom_build_dir.enabled.unwrap_or(true);
    refuse_macos(entry, at, findings);
    let Some(keys) = &entry.docker else {
        findings.error(
            &format!("{at}.executor"),
            format!("the entry {:?} has no [runners.docker] table", entry.name),
            "add the table, with `image` for jobs that name none",
        );
        return;
    };
    let mut table = Table { keys, at: format!("{at}.docker"), around, findings };
    engine.docker = Some(table.docker());
}

/// GitLab lists Linux and Windows for this executor.
fn refuse_macos(entry: &RunnerEntry, at: &str, findings: &mut Findings) {
    let os = entry.autoscaler.as_ref().map_or("", |table| &table.connector_config.os);
    if ["darwin", "macos"].iter().any(|name| os.eq_ignore_ascii_case(name)) {
        findings.error(
            &format!("{at}.autoscaler.connector_config.os"),
            "docker-autoscaler needs Linux instances: macOS has no Docker daemon of its own",
            "use Linux instances, or executor = \"instance\"",
        );
    }
}

/// The table that is read, and where its findings go.
struct Table<'a> {
    keys: &'a DockerTable,
    at: String,
    around: &'a Surroundings,
    findings: &'a mut Findings,
}

impl Table<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.error(&format!("{}.{key}", self.at), message, hint);
    }

    fn warn(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.warn(&format!("{}.{key}", self.at), message, hint);
    }

    /// What a text means; `None` where it is wrong, which is told.
    fn word<T>(
        &mut self,
        key: &str,
        text: &str,
        parse: fn(&str) -> Option<T>,
        (fault, hint): Expected,
    ) -> Option<T> {
        let meaning = parse(text);
        if meaning.is_none() {
            self.error(key, format!("{text:?} {fault}"), hint);
        }
        meaning
    }

    /// What the entries of a list mean.
    fn words<T>(
        &mut self,
        key: &str,
        texts: &[String],
        parse: fn(&str) -> Option<T>,
        expected: Expected,
    ) -> Vec<T> {
        texts.iter().filter_map(|text| self.word(key, text, parse, expected)).collect()
    }

    fn count(&mut self, key: &str, value: i64) -> u32 {
        positive(value, &format!("{}.{key}", self.at), 0, self.findings)
    }

    fn docker(&mut self) -> Docker {
        let keys = self.keys;
        self.warn_about_ignored();
        let (pull_policies, allowed_pull_policies) = self.pull_policies();
        Docker {
            host: self.host(),
            image: keys.image.clone(),
            pull_policies,
            allowed_pull_policies,
            allowed_images: keys.allowed_images.clone(),
            allowed_services: keys.allowed_services.clone(),
            allowed_privileged_images: keys.allowed_privileged_images.clone(),
            allowed_privileged_services: keys.allowed_privileged_services.clone(),
            allowed_users: keys.allowed_users.clone(),
            user: self.user(),
            hostname: keys.hostname.clone(),
            privileged: keys.privileged,
            services_privileged: keys.services_privileged,
            disable_entrypoint_overwrite: keys.disable_entrypoint_overwrite,
            volumes: self.volumes(),
            disable_cache: keys.disable_cache,
            cache_dir: self.cache_dir(),
            services: self.services(),
            services_limit: self.services_limit(),
            wait_for_services: match u64::try_from(keys.wait_for_services_timeout) {
                Ok(0) => WAIT_FOR_SERVICES,
                Ok(seconds) => Duration::from_secs(seconds),
                Err(_) => Duration::ZERO,
            },
            helper_image: keys.helper_image.clone(),
            network_mode: keys.network_mode.clone(),
            enable_ipv6: keys.enable_ipv6,
            network_mtu: self.count("network_mtu", keys.network_mtu),
            labels: keys.container_labels.clone(),
            build: self.build_options(),
            service: self.service_options(),
        }
    }

    fn host(&mut self) -> String {
        let own = "the agent on an instance speaks to that instance's own daemon, over its socket";
        let host = &self.keys.host;
        if !host.is_empty() && !host.starts_with("unix:///") {
            let hint = "leave it out, or name the socket: \"unix:///run/docker.sock\"";
            self.error("host", format!("is not supported: {own}"), hint);
        }
        if self.keys.tls_verify {
            self.error("tls_verify", format!("is not supported: {own}"), "remove the key");
        } else if !self.keys.tls_cert_path.is_empty() {
            self.warn("tls_cert_path", "counts only with tls_verify, and is ignored", "remove it");
        }
        host.clone()
    }

    /// `pull_policy` and `allowed_pull_policies`. Their intersection holds for a job that
    /// names none; one that does is held against the allowed ones only.
    fn pull_policies(&mut self) -> (Vec<PullPolicy>, Vec<PullPolicy>) {
        let (texts, allowed) = (&self.keys.pull_policy.0, &self.keys.allowed_pull_policies);
        let own = self.words("pull_policy", texts, PullPolicy::named, POLICY);
        let allowed = self.words("allowed_pull_policies", allowed, PullPolicy::named, POLICY);
        let effective = if own.is_empty() { &[PullPolicy::PullAlways][..] } else { &own };
        if !allowed.is_empty() && !effective.iter().any(|policy| allowed.contains(policy)) {
            self.warn(
                "allowed_pull_policies",
                "has none of pull_policy (\"always\" where that is absent)",
                "a job that names no pull policy of its own fails: let the two share one",
            );
        }
        (own, allowed)
    }

    /// The user wins over the job's, so one that is not allowed fails every job.
    fn user(&mut self) -> String {
        let (user, allowed) = (&self.keys.user, &self.keys.allowed_users);
        if !user.is_empty() && !allowed.is_empty() && !allowed.contains(user) {
            self.error(
                "user",
                format!("{user:?} is not one of allowed_users"),
                "add it there, or remove one of the two keys",
            );
        }
        user.clone()
    }

    fn volumes(&mut self) -> Vec<String> {
        let mut places = BTreeSet::new();
        let mut volumes = Vec::new();
        for text in self.keys.volumes.iter().filter(|text| !text.is_empty()) {
            match values::volume(text) {
                Err(why) => self.error(
                    "volumes",
                    format!("{text:?} {why}"),
                    "write \"/inside\" or \"/outside:/inside\", after it perhaps \":ro\"",
                ),
                Ok(volume) if !places.insert(volume.inside) => self.error(
                    "volumes",
                    format!("{text:?} is the second volume at {}", volume.inside),
                    "keep one of them",
                ),
                Ok(volume) => volumes.push(volume.text.to_owned()),
            }
        }
        volumes
    }

    fn cache_dir(&mut self) -> String {
        let dir = &self.keys.cache_dir;
        if !dir.is_empty() && !dir.starts_with('/') {
            self.error(
                "cache_dir",
                format!("{dir:?} is relative: it is a directory on the instance"),
                "write an absolute path, or leave it out for volumes of the daemon",
            );
        }
        dir.clone()
    }

    fn services(&mut self) -> Vec<Service> {
        let mut names = BTreeSet::new();
        let services = self.keys.services.iter().enumerate();
        services.map(|(index, keys)| self.service(index, keys, &mut names)).collect()
    }

    /// One service; its aliases are not those of the services before it.
    fn service<'a>(
        &mut self,
        index: usize,
        keys: &'a ServiceTable,
        names: &mut BTreeSet<&'a str>,
    ) -> Service {
        let at = format!("services[{index}]");
        if keys.name.trim().is_empty() {
            self.error(&format!("{at}.name"), "is missing", "name the service's image");
        }
        let separates = |c: char| c == ',' || c.is_whitespace();
        let aliases: Vec<&str> =
            keys.alias.split(separates).filter(|alias| !alias.is_empty()).collect();
        if let Some(taken) = aliases.iter().find(|alias| names.contains(*alias)) {
            self.warn(
                &format!("{at}.alias"),
                format!("{taken:?} is the alias of a service before this one, too"),
                "give each its own: a job reaches only one of them by this name",
            );
        }
        names.extend(&aliases);
        let key = format!("{}.{at}.environment", self.at);
        warn_about_variables(&keys.environment, &key, self.findings);
        if keys.suspend_data_path.as_ref().is_some_and(says_something) {
            self.warn(&format!("{at}.suspend_data_path"), "is ignored: it is Kubernetes'", "");
        }
        Service {
            name: keys.name.clone(),
            aliases: aliases.into_iter().map(str::to_owned).collect(),
            entrypoint: keys.entrypoint.clone(),
            command: keys.command.clone(),
            environment: keys.environment.clone(),
        }
    }

    /// Negative and absent are no limit. Services of the configuration count, too.
    fn services_limit(&mut self) -> Option<u32> {
        let limit = u32::try_from(self.keys.services_limit?).ok()?;
        let count = self.keys.services.len();
        if count > usize::try_from(limit).unwrap_or(usize::MAX) {
            self.error(
                "services_limit",
                format!("{limit} is less than the number of this entry's own services, {count}"),
                "raise it, or remove services: every job would fail",
            );
        }
        Some(limit)
    }

    fn warn_about_ignored(&mut self) {
        let (keys, of_helper) = (self.keys, "only an image named by helper_image is used");
        let ignored = [
            ("isolation", &keys.isolation, "it is for Windows containers"),
            ("mac_address", &keys.mac_address, "addresses are the daemon's choice"),
            ("pid_mode", &keys.pid_mode, "each container has processes of its own"),
            ("volume_driver", &keys.volume_driver, "volumes are of the daemon's own driver"),
            (
                "volume_driver_ops",
                &keys.volume_driver_ops,
                "volumes are of the daemon's own driver",
            ),
            ("volume_keep", &keys.volume_keep, "volumes without a name end with their container"),
            ("services_devices", &keys.services_devices, "services get no devices of the host"),
            (
                "service_slot_cgroup_template",
                &keys.service_slot_cgroup_template,
                "control groups by slot are not supported; service_cgroup_parent is",
            ),
            ("helper_image_flavor", &keys.helper_image_flavor, of_helper),
            ("helper_image_autoset_arch_and_os", &keys.helper_image_autoset_arch_and_os, of_helper),
        ];
        for (key, value, why) in ignored {
            if value.as_ref().is_some_and(says_something) {
                self.warn(key, format!("is ignored: {why}"), "");
            }
        }
    }
}

/// Whether a value is another than that of an absent key.
fn says_something(value: &toml::Value) -> bool {
    match value {
        toml::Value::Boolean(on) => *on,
        toml::Value::String(text) => !text.is_empty(),
        toml::Value::Array(list) => !list.is_empty(),
        toml::Value::Table(table) => !table.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
