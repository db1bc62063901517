//! A changed configuration, taken up while jobs run: limits and policies at once, other
//! templates rolling, entries that are new or gone. No job notices.

use std::sync::Arc;

use tokio::task::JoinSet;

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

/// Whether an entry is served as it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Done,
    /// Its plugin does not start: the template of before stays in force.
    Unfinished,
}

impl Reloader {
    /// Returns when everything of it is under way: whether all of it is.
    pub(crate) async fn apply(&mut self, config: Config) -> bool {
        let shared = &self.roster.workshop.shared;
        if shared.draining.is_cancelled() {
            return true;
        }
        for one in differences(&self.config, &config) {
            let Difference { key, before, after, .. } = one;
            if one.effect == Effect::NextStart {
                tracing::warn!(key, before, after, "this change holds from the next start on");
            }
        }
        resize(&shared.permits, self.config.concurrent, config.concurrent);
        self.config = config;
        self.roster.forget_waiting();
        let keys: Vec<String> = self.config.runners.iter().map(config::Runner::key).collect();
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
        // A plugin that hangs holds no other entry up.
        let mut entries = JoinSet::new();
        for entry in self.config.runners.clone() {
            entries.spawn(take_up(Arc::clone(&self.roster), entry));
        }
        entries.join_all().await.into_iter().all(|change| change == Change::Done)
    }
}

async fn take_up(roster: Arc<Roster>, entry: config::Runner) -> Change {
    let key = entry.key();
    if let Some(runner) = roster.of(&key, false) {
        return change(&roster, &runner, entry).await;
    }
    if let Some(runner) = roster.of(&key, true)
        && roster.revive(&runner, &entry).await
    {
        tracing::info!(runner = entry.name, "its entry is back");
        // It was stopped: another one takes its place in any case.
        return change_any(&roster, &runner, entry).await;
    }
    tracing::info!(runner = entry.name, "a new entry");
    roster.add(entry).await;
    Change::Done
}

async fn change(roster: &Arc<Roster>, runner: &Arc<Runner>, entry: config::Runner) -> Change {
    if runner.config == entry { Change::Done } else { change_any(roster, runner, entry).await }
}

async fn change_any(roster: &Arc<Roster>, runner: &Arc<Runner>, entry: config::Runner) -> Change {
    let before = runner.group.source();
    if before.template != entry.autoscaler.template {
        return change_template(roster, runner, entry, before).await;
    }
    swap(roster, runner, &entry);
    roster.workshop.write_down(&runner.key, &entry, &before, false).await;
    Change::Done
}

/// The same group under another entry.
fn swap(roster: &Roster, runner: &Arc<Runner>, entry: &config::Runner) {
    let max_size = runner.group.source().max_size;
    if entry.autoscaler.limits.max_instances > max_size {
        let wanted = entry.autoscaler.limits.max_instances;
        tracing::warn!(
            runner = entry.name,
            wanted,
            max_size,
            "max_instances is more than the provider's group allows: that holds"
        );
    }
    runner.group.retune(tuning(entry));
    match roster.workshop.runner(entry, Arc::clone(&runner.group), Some(runner)) {
        Ok(next) => roster.swap(runner, next),
        Err(error) => {
            tracing::error!(runner = entry.name, %error, "the change is not used, the entry of before is");
        }
    }
}

/// The changed entry, but for what instances of before were prepared for.
fn on_template_of_before(
    entry: config::Runner,
    runner: &Runner,
    before: &Source,
) -> config::Runner {
    let mut rest = entry;
    let engine = runner.config.engine.clone();
    rest.autoscaler.template = before.template.clone();
    rest.engine = job::compose::Runner {
        docker: engine.docker,
        builds_dir: engine.builds_dir,
        cache_dir: engine.cache_dir,
        ..rest.engine
    };
    rest
}

/// The plugin, or what it makes instances from, is another one. The old plugin ends first,
/// since it may hold what the new one needs; where that does not start, it comes back.
async fn change_template(
    roster: &Arc<Roster>,
    runner: &Arc<Runner>,
    entry: config::Runner,
    before: Source,
) -> Change {
    let (group, name) = (&runner.group, &entry.name);
    before.provider.stop().await;
    let source = match roster.workshop.source(&entry).await {
        Ok(source) => source,
        Err(error) => {
            tracing::error!(runner = name, %error, "the changed plugin does not start: the one of before stays in force");
            let rest = on_template_of_before(entry, runner, &before);
            roster.restore(Arc::clone(group), before);
            swap(roster, runner, &rest);
            return Change::Unfinished;
        }
    };
    if group.is_of(&source, &before.id) {
        tracing::info!(
            runner = name,
            "instances are made from another template: those of before go as they get empty"
        );
        let replace = async {
            roster.workshop.write_down(&runner.key, &entry, &source, false).await;
            group.replace_source(source.clone()).await;
        };
        group.outdate(replace).await;
        swap(roster, runner, &entry);
        return Change::Done;
    }
    if roster.is_draining(&source) {
        tracing::error!(
            runner = name,
            group = source.id,
            "this group of the provider still drains: the one of before stays in force"
        );
        source.provider.stop().await;
        roster.restore(Arc::clone(group), before);
        return Change::Unfinished;
    }
    tracing::info!(
        runner = name,
        "instances come from another group: those of before go as they get empty"
    );
    roster.restore(Arc::clone(group), before);
    roster.retire(runner).await;
    let key = roster.known.fresh_key(&entry);
    let group = roster.workshop.group(key.clone(), &entry, source.clone());
    match roster.workshop.runner(&entry, group, Some(runner)) {
        Ok(runner) => {
            roster.workshop.write_down(&key, &entry, &source, false).await;
            roster.begin(&runner).await;
        }
        Err(error) => tracing::error!(runner = name, %error, "the entry cannot be served"),
    }
    Change::Done
}

/// What of an entry holds at once.
pub(super) fn tuning(entry: &config::Runner) -> Tuning {
    let autoscaler = &entry.autoscaler;
    Tuning {
        name: entry.name.clone(),
        ready_command: autoscaler.instance_ready_command.clone(),
        docker_host: autoscaler.template.docker_host.clone(),
        instance_acquire_timeout: autoscaler.instance_acquire_timeout,
        shutdown_deletion_interval: autoscaler.shutdown_deletion_interval,
        failure_threshold: autoscaler.failure_threshold,
        limits: autoscaler.limits.clone(),
        schedule: autoscaler.schedule.clone(),
        update_interval: autoscaler.update_interval,
        update_interval_when_expecting: autoscaler.update_interval_when_expecting,
    }
}
