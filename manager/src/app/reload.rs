//! A changed configuration, taken up while jobs run: limits and policies at once, other
//! templates rolling, entries that are new or gone. No job notices.

use std::sync::Arc;

use super::roster::Roster;
use crate::config::{self, Config, Difference, Effect, differences};
use crate::group::{Source, Tuning};
use crate::runner::{Runner, resize};

/// Takes up changed configurations, one after the other.
pub(crate) struct Reloader {
    pub(super) roster: Arc<Roster>,
    /// What is in force.
    pub(super) config: Config,
}

impl Reloader {
    /// Returns when everything of it is under way.
    pub(crate) async fn apply(&mut self, config: Config) {
        let shared = &self.roster.workshop.shared;
        if shared.draining.is_cancelled() {
            return;
        }
        for one in differences(&self.config, &config) {
            let Difference { key, before, after, .. } = one;
            if one.effect == Effect::NextStart {
                tracing::warn!(key, before, after, "this change holds from the next start on");
            }
        }
        resize(&shared.permits, self.config.concurrent, config.concurrent);
        self.config = config;
        let entries = self.config.runners.clone();
        self.roster.forget_waiting();
        let keys: Vec<String> = entries.iter().map(config::Runner::key).collect();
        for one in self.roster.served() {
            if !one.retired && !keys.contains(&one.runner.config.key()) {
                let runner = &one.runner.config.name;
                tracing::info!(
                    runner,
                    "its entry is gone: no more jobs, instances go as they get empty"
                );
                self.roster.retire(&one.runner).await;
            }
        }
        for entry in entries {
            let key = entry.key();
            match self.roster.of(&key, false) {
                Some(runner) if runner.config == entry => {}
                Some(runner) => self.change(&runner, entry).await,
                None => self.add(&key, entry).await,
            }
        }
    }

    async fn add(&self, key: &str, entry: config::Runner) {
        let template = &entry.autoscaler.template;
        let draining = self.roster.of(key, true);
        match draining.filter(|runner| runner.group.source().template == *template) {
            Some(runner) => {
                tracing::info!(runner = entry.name, "its entry is back");
                if let Err(error) = self.roster.revive(&runner, &entry).await {
                    tracing::error!(runner = entry.name, %error, "the entry cannot be served");
                }
                runner.group.retune(tuning(&entry));
            }
            None => {
                tracing::info!(runner = entry.name, "a new entry");
                self.roster.add(entry).await;
            }
        }
    }

    async fn change(&self, runner: &Arc<Runner>, entry: config::Runner) {
        let group = Arc::clone(&runner.group);
        if group.source().template != entry.autoscaler.template {
            return self.change_template(runner, entry).await;
        }
        group.retune(tuning(&entry));
        runner.resize(entry.limit);
        self.swap(runner, &entry);
    }

    /// The same group under another entry.
    fn swap(&self, runner: &Arc<Runner>, entry: &config::Runner) {
        match self.roster.workshop.runner(entry, Arc::clone(&runner.group), Some(runner)) {
            Ok(next) => self.roster.swap(runner, next),
            Err(error) => {
                tracing::error!(runner = entry.name, %error, "the change is not used, the entry of before is");
            }
        }
    }

    /// The plugin, or what it makes instances from, is another one. The old plugin ends
    /// first, since it may hold what the new one needs; where that does not start, it comes
    /// back.
    async fn change_template(&self, runner: &Arc<Runner>, entry: config::Runner) {
        let (group, name) = (&runner.group, &entry.name);
        let before = group.source();
        before.provider.stop().await;
        let source = match self.roster.workshop.source(&entry).await {
            Ok(source) => source,
            Err(error) => {
                tracing::error!(runner = name, %error, "the changed plugin does not start: the one of before stays in force");
                return self.restore(runner, before).await;
            }
        };
        match group.is_of(&source, &before.id).await {
            Ok(true) => {
                tracing::info!(
                    runner = name,
                    "instances are made from another template: those of before go as they get empty"
                );
                group.replace_source(source).await;
                group.retune(tuning(&entry));
                runner.resize(entry.limit);
                self.swap(runner, &entry);
                self.roster.workshop.write_down(runner, false).await;
            }
            Ok(false) => {
                tracing::info!(
                    runner = name,
                    "instances come from another group: those of before go as they get empty"
                );
                self.restore(runner, before).await;
                self.roster.retire(runner).await;
                self.begin(runner, entry, source).await;
            }
            Err(error) => {
                tracing::error!(runner = name, %error, "the changed plugin cannot list its instances: the one of before stays in force");
                source.provider.stop().await;
                self.restore(runner, before).await;
            }
        }
    }

    async fn begin(&self, before: &Arc<Runner>, entry: config::Runner, source: Source) {
        let key = self.roster.fresh_key(&entry);
        let group = self.roster.workshop.group(key, &entry, source);
        match self.roster.workshop.runner(&entry, group, Some(before)) {
            Ok(runner) => {
                self.roster.workshop.write_down(&runner, false).await;
                self.roster.begin(&runner);
            }
            Err(error) => {
                tracing::error!(runner = entry.name, %error, "the entry cannot be served")
            }
        }
    }

    /// Brings a plugin back that was stopped.
    async fn restore(&self, runner: &Arc<Runner>, before: Source) {
        if let Some(source) = self.roster.started_again(before) {
            runner.group.replace_source(source).await;
        }
    }
}

/// What of an entry holds at once.
pub(super) fn tuning(entry: &config::Runner) -> Tuning {
    let autoscaler = &entry.autoscaler;
    Tuning {
        name: entry.name.clone(),
        ready_command: autoscaler.instance_ready_command.clone(),
        instance_acquire_timeout: autoscaler.instance_acquire_timeout,
        shutdown_deletion_interval: autoscaler.shutdown_deletion_interval,
        failure_threshold: autoscaler.failure_threshold,
        limits: autoscaler.limits.clone(),
        schedule: autoscaler.schedule.clone(),
        update_interval: autoscaler.update_interval,
        update_interval_when_expecting: autoscaler.update_interval_when_expecting,
    }
}
