//! What one configuration changes against another, and when that holds. Pure.
//!
//! Values of secrets are never shown, only that they differ.

mod docker;

use std::collections::BTreeSet;
use std::fmt::Debug;

use job::compose::docker::Docker;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Config, Runner};
use crate::secret::Secret;

/// When a change holds, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// A new entry: its plugin is started, jobs are asked for.
    Added,
    /// An entry that is gone: no more jobs, instances go as they get empty.
    Removed,
    /// At once.
    Now,
    /// For jobs that come from then on.
    NextJobs,
    /// For instances that come from then on.
    NextInstances,
    /// Instances of before get no more jobs and go as they get empty.
    Rolling,
    /// From the next start of the manager on; SIGTERM leaves running jobs alone.
    NextStart,
}

impl Effect {
    /// For people.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Added => "its plugin is started, jobs are asked for",
            Self::Removed => "no more jobs, instances go as they get empty",
            Self::Now => "at once",
            Self::NextJobs => "for the next jobs",
            Self::NextInstances => "for the next instances",
            Self::Rolling => "other instances, those of before go as they get empty",
            Self::NextStart => "from the next start on",
        }
    }
}

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// The entry's name; absent for the keys of the file's head.
    pub(crate) runner: Option<String>,
    /// As in the file; empty for a whole entry.
    pub(crate) key: String,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) effect: Effect,
}

/// All that differs, in the order of the file.
pub(crate) fn differences(before: &Config, after: &Config) -> Vec<Difference> {
    let mut found = Found { runner: None, list: Vec::new() };
    found.head(before, after);
    for entry in &before.runners {
        if after.runners.iter().all(|other| other.key() != entry.key()) {
            found.entry(entry, Effect::Removed);
        }
    }
    for entry in &after.runners {
        match before.runners.iter().find(|other| other.key() == entry.key()) {
            Some(other) => found.runner(other, entry),
            None => found.entry(entry, Effect::Added),
        }
    }
    found.list
}

struct Found {
    runner: Option<String>,
    list: Vec<Difference>,
}

impl Found {
    fn entry(&mut self, entry: &Runner, effect: Effect) {
        self.list.push(Difference {
            runner: Some(entry.name.clone()),
            key: String::new(),
            before: String::new(),
            after: String::new(),
            effect,
        });
    }

    fn key<T: PartialEq + Debug>(&mut self, key: &str, before: &T, after: &T, effect: Effect) {
        if before != after {
            let (before, after) = (format!("{before:?}"), format!("{after:?}"));
            let (runner, key) = (self.runner.clone(), key.to_owned());
            self.list.push(Difference { runner, key, before, after, effect });
        }
    }

    fn head(&mut self, before: &Config, after: &Config) {
        use Effect::{NextStart, Now};
        self.key("concurrent", &before.concurrent, &after.concurrent, Now);
        self.key("check_interval", &before.check_interval, &after.check_interval, NextStart);
        self.key("shutdown_timeout", &before.shutdown_timeout, &after.shutdown_timeout, NextStart);
        self.key("log_level", &before.log_level, &after.log_level, NextStart);
        self.key("log_format", &before.log_json, &after.log_json, NextStart);
        self.key("mayfly.state_dir", &before.state_dir, &after.state_dir, NextStart);
    }

    fn runner(&mut self, before: &Runner, after: &Runner) {
        use Effect::{NextJobs, Now};
        self.runner = Some(after.name.clone());
        self.key("name", &before.name, &after.name, Now);
        self.key("token", &before.server.token, &after.server.token, Now);
        let text = |of: &Runner| Secret::new(String::from_utf8_lossy(&of.server.ca_certificates));
        self.key("tls-ca-file", &text(before), &text(after), NextJobs);
        self.key("limit", &before.limit, &after.limit, Now);
        let (old, new) = (&before.request_concurrency, &after.request_concurrency);
        self.key("request_concurrency", old, new, Now);
        let (old, new) = (&before.report_alone_after, &after.report_alone_after);
        self.key("mayfly.report_alone_after", old, new, NextJobs);
        let (old, new) = (&before.containers_ahead, &after.containers_ahead);
        self.key("mayfly.containers_ahead", old, new, NextJobs);
        self.engine(before, after);
        self.limits(before, after);
        self.template(before, after);
    }

    fn engine(&mut self, before: &Runner, after: &Runner) {
        let (old, new) = (&before.engine, &after.engine);
        let mut key = |key: &str, old: &dyn Debug, new: &dyn Debug| {
            let (old, new) = (format!("{old:?}"), format!("{new:?}"));
            self.key(key, &Shown(old), &Shown(new), Effect::NextJobs);
        };
        key("builds_dir", &old.builds_dir, &new.builds_dir);
        key("cache_dir", &old.cache_dir, &new.cache_dir);
        // It may hold credentials.
        let (from, to) = (Secret::new(&*old.clone_url), Secret::new(&*new.clone_url));
        key("clone_url", &from, &to);
        key("environment", &names(&old.environment), &names(&new.environment));
        key("feature_flags", &old.feature_flags, &new.feature_flags);
        key("output_limit", &old.output_limit_bytes, &new.output_limit_bytes);
        key("debug_trace_disabled", &old.debug_trace_disabled, &new.debug_trace_disabled);
        key("custom_build_dir.enabled", &old.custom_build_dir, &new.custom_build_dir);
        key("artifact.upload_timeout", &old.upload_timeout, &new.upload_timeout);
        let scripts = |of: &job::compose::Runner| {
            [
                of.pre_get_sources_script.clone(),
                of.post_get_sources_script.clone(),
                of.pre_build_script.clone(),
                of.post_build_script.clone(),
            ]
            .map(Secret::new)
        };
        let words = ["pre_get_sources", "post_get_sources", "pre_build", "post_build"];
        for ((word, old), new) in words.into_iter().zip(scripts(old)).zip(scripts(new)) {
            self.key(&format!("{word}_script"), &old, &new, Effect::NextJobs);
        }
        if let (Some(old), Some(new)) = (&old.docker, &new.docker) {
            self.docker(old, new);
        }
        // Values may be secrets.
        if old.environment != new.environment && names(&old.environment) == names(&new.environment)
        {
            let (old, new) = (Secret::new("a"), Secret::new("b"));
            self.key("environment", &old, &new, Effect::NextJobs);
        }
    }

    fn docker(&mut self, before: &Docker, after: &Docker) {
        for (old, new) in docker::keys(before).into_iter().zip(docker::keys(after)) {
            let key = format!("docker.{}", old.name);
            match old.value == new.value {
                true => {}
                false if old.shown == new.shown => {
                    self.key(&key, &Secret::new("a"), &Secret::new("b"), Effect::NextJobs);
                }
                false => self.key(&key, &Shown(old.shown), &Shown(new.shown), Effect::NextJobs),
            }
        }
    }

    fn limits(&mut self, before: &Runner, after: &Runner) {
        use Effect::{NextInstances, NextJobs, Now};
        let (old, new) = (&before.autoscaler, &after.autoscaler);
        let mut key = |key: &str, old: &dyn Debug, new: &dyn Debug, effect| {
            let (old, new) = (Shown(format!("{old:?}")), Shown(format!("{new:?}")));
            self.key(&format!("autoscaler.{key}"), &old, &new, effect);
        };
        let (from, to) = (&old.limits, &new.limits);
        key("capacity_per_instance", &from.capacity, &to.capacity, Now);
        key("max_use_count", &from.max_use_count, &to.max_use_count, Now);
        key("max_instances", &from.max_instances, &to.max_instances, Now);
        key("scale_throttle", &from.throttle, &to.throttle, Now);
        key("deletion_retry_interval", &from.deletion_retry, &to.deletion_retry, Now);
        let changed = if old.schedule == new.schedule { "as before" } else { "changed" };
        key("policy", &Shown("as before".into()), &Shown(changed.into()), Now);
        key("update_interval", &old.update_interval, &new.update_interval, Now);
        let word = "update_interval_when_expecting";
        key(word, &old.update_interval_when_expecting, &new.update_interval_when_expecting, Now);
        let (from, to) = (&old.instance_ready_command, &new.instance_ready_command);
        key("instance_ready_command", from, to, NextInstances);
        let (from, to) = (&old.instance_acquire_timeout, &new.instance_acquire_timeout);
        key("instance_acquire_timeout", from, to, NextJobs);
        key("failure_threshold", &old.failure_threshold, &new.failure_threshold, Now);
        let (from, to) = (old.shutdown_deletion_interval, new.shutdown_deletion_interval);
        key("shutdown_deletion_interval", &from, &to, Now);
        let (from, to) = (old.shutdown_deletion_retries, new.shutdown_deletion_retries);
        key("shutdown_deletion_retries", &from, &to, Now);
        let (from, to) = (&old.delete_instances_on_shutdown, &new.delete_instances_on_shutdown);
        key("delete_instances_on_shutdown", from, to, Now);
    }

    fn template(&mut self, before: &Runner, after: &Runner) {
        let (old, new) = (&before.autoscaler.template, &after.autoscaler.template);
        self.key("autoscaler.plugin", &old.plugin, &new.plugin, Effect::Rolling);
        for key in changed_keys(&old.plugin_config, &new.plugin_config) {
            let (old, new) = (Secret::new("a"), Secret::new("b"));
            let key = format!("autoscaler.plugin_config.{key}");
            self.key(&key, &old, &new, Effect::Rolling);
        }
        let executor = |of: &super::Template| match of.docker_host {
            Some(_) => Shown("docker-autoscaler".into()),
            None => Shown("instance".into()),
        };
        self.key("executor", &executor(old), &executor(new), Effect::Rolling);
        if let (Some(from), Some(to)) = (&old.docker_host, &new.docker_host) {
            self.key("docker.host", from, to, Effect::Rolling);
        }
        let (from, to) = (&old.settings.connector, &new.settings.connector);
        self.key("autoscaler.connector_config", from, to, Effect::Rolling);
        let (from, to) = (&old.use_external_addr, &new.use_external_addr);
        self.key("autoscaler.connector_config.use_external_addr", from, to, Effect::Rolling);
        let names =
            |of: &super::Template| -> Vec<_> { of.plugin_environment.keys().cloned().collect() };
        self.key("mayfly.plugin_environment", &names(old), &names(new), Effect::Rolling);
    }
}

/// A text that is shown as it is.
#[derive(PartialEq)]
struct Shown(String);

impl Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn names(environment: &[String]) -> Vec<&str> {
    environment.iter().filter_map(|variable| variable.split('=').next()).collect()
}

/// The keys whose values differ, of two JSON objects.
fn changed_keys(before: &Secret, after: &Secret) -> Vec<String> {
    let read = |json: &Secret| serde_json::from_str::<Map<String, Value>>(json.reveal());
    let (before, after) = (read(before).unwrap_or_default(), read(after).unwrap_or_default());
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Autoscaler, Server, Template};

    fn entry(name: &str, plugin_config: &str) -> Runner {
        Runner {
            name: name.into(),
            server: Server {
                url: "https://gitlab.example".into(),
                token: Secret::new("glrt-a"),
                id: name.len() as u64,
                ca_certificates: Vec::new(),
            },
            limit: 0,
            request_concurrency: 1,
            engine: job::compose::Runner::default(),
            autoscaler: Autoscaler {
                template: Template {
                    plugin_config: Secret::new(plugin_config),
                    ..Template::default()
                },
                ..Autoscaler::default()
            },
            report_alone_after: Duration::ZERO,
            containers_ahead: false,
        }
    }

    fn config(runners: Vec<Runner>) -> Config {
        Config {
            concurrent: 1,
            check_interval: Duration::from_secs(3),
            shutdown_timeout: Duration::from_secs(30),
            log_level: None,
            log_json: false,
            system_id: String::new(),
            state_dir: "/state".into(),
            config_dir: "/config".into(),
            runners,
        }
    }

    /// The same entry with containers, with the daemon's socket at `host`.
    fn with_docker(mut entry: Runner, docker: Docker) -> Runner {
        entry.autoscaler.template.docker_host = Some(docker.host.clone());
        entry.engine.docker = Some(docker);
        entry
    }

    fn told(before: &Config, after: &Config) -> Vec<String> {
        let line = |one: Difference| {
            let Difference { runner, key, before, after, effect } = one;
            format!("{} {key} {before} {after} {effect:?}", runner.unwrap_or_default())
        };
        differences(before, after).into_iter().map(line).collect()
    }

    #[test]
    fn every_change_is_told_with_its_effect_and_no_secret() {
        let before = config(vec![entry("a", r#"{"image":"1","key":"sesame"}"#), entry("gone", "")]);
        let mut after = config(vec![entry("a", r#"{"image":"2","zone":"z"}"#), entry("added", "")]);
        assert!(told(&before, &before).is_empty());
        after.concurrent = 4;
        let runner = &mut after.runners[0];
        runner.server.token = Secret::new("glrt-b");
        runner.autoscaler.limits.max_instances = 7;
        runner.autoscaler.instance_ready_command = "true".into();
        runner.engine.environment = vec!["TOKEN=hidden".into()];
        assert_eq!(
            told(&before, &after),
            [
                " concurrent 1 4 Now",
                "gone    Removed",
                "a token set set Now",
                r#"a environment [] ["TOKEN"] NextJobs"#,
                "a autoscaler.max_instances 0 7 Now",
                r#"a autoscaler.instance_ready_command "" "true" NextInstances"#,
                "a autoscaler.plugin_config.image set set Rolling",
                "a autoscaler.plugin_config.key set set Rolling",
                "a autoscaler.plugin_config.zone set set Rolling",
                "added    Added",
            ]
        );
    }

    #[test]
    fn containers_change_with_the_next_jobs_and_their_daemon_with_the_instances() {
        let service = |variable: &str| job::compose::docker::Service {
            name: "postgres:17".into(),
            environment: vec![variable.into()],
            ..Default::default()
        };
        let mut docker = Docker { services: vec![service("PASSWORD=a")], ..Docker::default() };
        docker.build.security_opt = vec!["seccomp={\"a\":1}".into()];
        let plain = config(vec![entry("a", "")]);
        let before = config(vec![with_docker(entry("a", ""), docker.clone())]);
        assert!(told(&before, &before).is_empty());
        let containers = told(&plain, &before);
        assert_eq!(containers, ["a executor instance docker-autoscaler Rolling"]);
        docker.image = "alpine:3".into();
        docker.services = vec![service("PASSWORD=b")];
        docker.pull_policies = vec![job::compose::docker::PullPolicy::PullNever];
        docker.build.memory = 1 << 30;
        docker.build.security_opt = vec!["seccomp={\"b\":1}".into()];
        docker.service.nano_cpus = 500_000_000;
        docker.host = "unix:///run/other.sock".into();
        let after = config(vec![with_docker(entry("a", ""), docker)]);
        assert_eq!(
            told(&before, &after),
            [
                r#"a docker.image "" "alpine:3" NextJobs"#,
                r#"a docker.pull_policy [] ["never"] NextJobs"#,
                "a docker.services set set NextJobs",
                "a docker.security_opt set set NextJobs",
                "a docker.memory 0 1073741824 NextJobs",
                "a docker.service_cpus 0.0 0.5 NextJobs",
                r#"a docker.host "" "unix:///run/other.sock" Rolling"#,
            ]
        );
    }
}
