//! Who is served: the runners of the configuration, those that wait for their plugin, and
//! those that only drain since their entry is gone or makes other instances.
//!
//! Invariant: two groups never drive the same group of a provider at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scheduler::plan::Reason;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::known::{Known, Left, is_same};
use super::workshop::Workshop;
use crate::config::{self, Template};
use crate::group::{Group, Source};
use crate::runner::Runner;

/// Pauses between attempts to start a plugin beside those that run.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The same where it only waits for another group to drain.
const DRAINING_PAUSE: Duration = Duration::from_secs(15);

/// All runners of the process.
pub(super) struct Roster {
    pub(super) workshop: Workshop,
    pub(super) known: Known,
    served: Mutex<Vec<Served>>,
    /// Entries whose plugin did not start, by their keys; cancelled when they change.
    waiting: Mutex<BTreeMap<String, CancellationToken>>,
    tasks: TaskTracker,
}

/// One that is served.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) runner: Arc<Runner>,
    /// It only drains.
    pub(super) retired: bool,
}

impl Roster {
    pub(super) fn new(workshop: Workshop) -> Arc<Self> {
        let known = Known::new(workshop.shared.state.groups());
        let (served, waiting) = (Mutex::default(), Mutex::default());
        Arc::new(Self { workshop, known, served, waiting, tasks: TaskTracker::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn served(&self) -> Vec<Served> {
        self.lock().clone()
    }

    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        self.lock().iter().map(|one| Arc::clone(&one.runner.group)).collect()
    }

    /// Who serves an entry.
    pub(super) fn of(&self, key: &str, retired: bool) -> Option<Arc<Runner>> {
        let served = self.lock();
        let one = served.iter().find(|o| o.retired == retired && o.runner.config.key() == key);
        one.map(|one| Arc::clone(&one.runner))
    }

    /// Whether a retired group still has the provider's group of a source. Some plugins give
    /// all their groups one name: then a new one waits without need.
    pub(super) fn is_draining(&self, source: &Source) -> bool {
        let is_same = |other: &Source| {
            other.id == source.id && other.template.plugin == source.template.plugin
        };
        self.lock().iter().any(|one| one.retired && is_same(&one.runner.group.source()))
    }

    /// All entries at once, at the start. First all take up what they had: it counts before
    /// new jobs do. Failures come with their entry.
    pub(super) async fn start(
        self: &Arc<Self>,
        entries: Vec<config::Runner>,
    ) -> Vec<(config::Runner, StartError)> {
        for left in self.known.take_rest(&entries) {
            self.tasks.spawn(Arc::clone(self).drain_left(left));
        }
        let mut building = JoinSet::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let roster = Arc::clone(self);
            building.spawn(async move {
                let built = roster.build(&entry).await;
                (index, entry, built)
            });
        }
        let mut built = building.join_all().await;
        built.sort_by_key(|(index, ..)| *index);
        let (mut runners, mut failures) = (Vec::new(), Vec::new());
        for (_, entry, result) in built {
            match result {
                Ok(runner) => {
                    self.take_up(&runner, false);
                    runners.push(runner);
                }
                Err(error) => failures.push((entry, error)),
            }
        }
        for runner in runners {
            self.workshop.shared.jobs.spawn(runner.feed());
        }
        failures
    }

    /// The runner of an entry, with the group that it had under the last process if that
    /// still makes its instances. If not, that one drains.
    async fn build(self: &Arc<Self>, entry: &config::Runner) -> Result<Arc<Runner>, StartError> {
        let source = self.workshop.source(entry).await?;
        if self.is_draining(&source) {
            source.provider.stop().await;
            return Err(StartError::Draining(source.id));
        }
        let mut left = self.known.take(entry).into_iter();
        let mut outdated = false;
        let key = match left.next() {
            Some((key, group)) if is_same(&group, entry) => key,
            Some((key, group)) if group.provider_id == source.id => {
                outdated = true;
                key
            }
            other => {
                if let Some(left) = other {
                    self.tasks.spawn(Arc::clone(self).drain_left(left));
                }
                self.known.fresh_key(entry)
            }
        };
        for left in left {
            self.tasks.spawn(Arc::clone(self).drain_left(left));
        }
        let group = self.workshop.group(key.clone(), entry, source.clone());
        let runner = self.workshop.runner(entry, group, None)?;
        if outdated {
            let name = &entry.name;
            tracing::info!(
                runner = name,
                "the template is another one: instances of before go as they get empty"
            );
            runner.group.outdate(std::future::ready(())).await;
        }
        self.workshop.write_down(&key, entry, &source, false).await;
        Ok(runner)
    }

    /// Begins to serve a runner's group; its jobs of before go on.
    fn take_up(&self, runner: &Arc<Runner>, retired: bool) {
        self.tasks.spawn(Arc::clone(&runner.group).control());
        runner.recover();
        self.lock().push(Served { runner: Arc::clone(runner), retired });
        if !retired {
            let verifier = Arc::clone(runner);
            self.tasks.spawn(async move { verifier.verify().await });
        }
    }

    /// Serves a new entry, as soon as its plugin starts.
    pub(super) async fn add(self: &Arc<Self>, entry: config::Runner) {
        match self.build(&entry).await {
            Ok(runner) => self.begin(&runner).await,
            Err(error) => self.wait_for(entry, &error),
        }
    }

    /// Serves a runner whose group is new to this process.
    pub(super) async fn begin(&self, runner: &Arc<Runner>) {
        // An ending has counted its groups already.
        if self.workshop.shared.draining.is_cancelled() {
            return runner.group.detach().await;
        }
        self.take_up(runner, false);
        self.workshop.shared.jobs.spawn(Arc::clone(runner).feed());
    }

    /// Another runner takes the place of one, with the same group.
    pub(super) fn swap(&self, before: &Arc<Runner>, runner: Arc<Runner>) {
        before.stop.cancel();
        for one in self.lock().iter_mut().filter(|one| Arc::ptr_eq(&one.runner, before)) {
            one.runner = Arc::clone(&runner);
        }
        self.workshop.shared.jobs.spawn(runner.feed());
    }

    /// Tries an entry's plugin again and again, where that may help.
    pub(super) fn wait_for(self: &Arc<Self>, entry: config::Runner, error: &StartError) {
        if !error.may_pass() {
            tracing::error!(runner = entry.name, %error, "this runner is left out");
            return;
        }
        tracing::error!(runner = entry.name, %error, "this runner waits for its plugin");
        let changed = self.workshop.shared.draining.child_token();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(entry.key(), changed.clone());
        let longest = match error {
            StartError::Draining(_) => DRAINING_PAUSE,
            _ => LONGEST_PAUSE,
        };
        let roster = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changed.cancelled() => return,
                }
                let built = roster.build(&entry).await;
                if changed.is_cancelled() {
                    if let Ok(runner) = built {
                        roster.put_away(&runner).await;
                    }
                    return;
                }
                match built {
                    Ok(runner) => return roster.begin(&runner).await,
                    Err(error) => tracing::warn!(%error, "still waiting for a plugin"),
                }
                pause = (pause * 2).min(longest);
            }
        });
    }

    /// A runner that was built and is not wanted any more.
    async fn put_away(&self, runner: &Arc<Runner>) {
        runner.group.detach().await;
        let state = &self.workshop.shared.state;
        if let Some(left) = state.groups().into_iter().find(|(key, _)| *key == runner.key) {
            self.known.give_back(left);
        } else {
            state.remove_group(&runner.key);
            self.known.unused(&runner.key);
        }
    }

    /// Entries that waited for their plugin are decided anew.
    pub(super) fn forget_waiting(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into_values().for_each(|changed| changed.cancel());
    }

    /// A runner gets no more jobs; its instances go as they get empty, and it with them.
    pub(super) async fn retire(self: &Arc<Self>, runner: &Arc<Runner>) {
        runner.stop.cancel();
        for one in self.lock().iter_mut().filter(|one| Arc::ptr_eq(&one.runner, runner)) {
            one.retired = true;
        }
        runner.group.end_for(Reason::Outdated);
        let source = runner.group.source();
        self.workshop.write_down(&runner.key, &runner.config, &source, true).await;
        self.tasks.spawn(Arc::clone(self).see_off(Arc::clone(runner)));
    }

    async fn see_off(self: Arc<Self>, runner: Arc<Runner>) {
        if !runner.group.emptied().await {
            return;
        }
        self.workshop.shared.state.remove_group(&runner.key);
        runner.group.detach().await;
        // Until then nobody else drives the provider's group.
        self.lock().retain(|one| !Arc::ptr_eq(&one.runner, &runner));
        let name = &runner.config.name;
        tracing::info!(runner = name, group = runner.key, "the last of its instances is gone");
    }

    /// One that was retired is wanted again. `false` if it is over.
    pub(super) async fn revive(&self, runner: &Arc<Runner>, entry: &config::Runner) -> bool {
        if !runner.group.revive() {
            return false;
        }
        for one in self.lock().iter_mut().filter(|one| Arc::ptr_eq(&one.runner, runner)) {
            one.retired = false;
        }
        let source = runner.group.source();
        self.workshop.write_down(&runner.key, entry, &source, false).await;
        true
    }

    /// Drains a group that the last process left and whose entry is gone, or makes other
    /// instances.
    async fn drain_left(self: Arc<Self>, (key, record): Left) {
        let template = match Template::from_text(&record.template) {
            Ok(template) => template,
            Err(error) => {
                tracing::error!(group = key, %error, "what the group was made from cannot be read; its instances stay");
                return;
            }
        };
        let name = &record.name;
        tracing::info!(
            runner = name,
            group = key,
            "its entry is gone or makes other instances: what is left of it drains"
        );
        let entry = config::Runner::of_before(
            (record.name.clone(), record.url.clone(), record.runner.clone()),
            record.ca_certificates.clone().into_bytes(),
            template,
        );
        let mut pause = FIRST_PAUSE;
        let source = loop {
            match self.workshop.source(&entry).await {
                Ok(source) => break source,
                Err(error) => {
                    tracing::warn!(group = key, %error, "a group that is to drain waits for its plugin");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.workshop.shared.draining.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let group = self.workshop.group(key, &entry, source);
        match self.workshop.runner(&entry, group, None) {
            Ok(runner) if !self.workshop.shared.draining.is_cancelled() => {
                self.take_up(&runner, true);
                self.retire(&runner).await;
            }
            Ok(runner) => runner.group.detach().await,
            Err(error) => tracing::error!(%error, "a group cannot be drained"),
        }
    }

    /// Starts the plugin of a source anew, in the background: it may have gone meanwhile.
    pub(super) fn restore(self: &Arc<Self>, group: Arc<Group>, before: Source) {
        let roster = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                match roster.workshop.provider(&before.template).await {
                    Ok(provider) => {
                        return group.replace_source(Source { provider, ..before }).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the plugin of before does not start any more")
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = roster.workshop.shared.draining.cancelled() => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Ends all groups and plugins. Instances go where the configuration says so.
    pub(super) async fn end(&self, delete_within: Option<Duration>) {
        let mut ends = JoinSet::new();
        let all: Vec<Served> = self.lock().drain(..).collect();
        for Served { runner, .. } in all {
            let autoscaler = &runner.config.autoscaler;
            let retries = autoscaler.shutdown_deletion_retries;
            let at_least = autoscaler.shutdown_deletion_interval * retries;
            let limit = delete_within
                .filter(|_| autoscaler.delete_instances_on_shutdown)
                .map(|limit| limit.max(at_least));
            ends.spawn(async move { end(&runner.group, limit).await });
        }
        while ends.join_next().await.is_some() {}
    }
}

/// Deletes the instances, if it has time for that, and ends the plugin.
async fn end(group: &Group, delete_within: Option<Duration>) {
    if let Some(limit) = delete_within {
        let left = group.delete_all(limit).await;
        if left > 0 {
            tracing::error!(left, "instances are still there, the next start takes them over");
        }
    }
    group.detach().await;
}
