//! Who is served: the runners of the configuration, those that wait for their plugin, and
//! those that only drain since their entry is gone or makes other instances.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scheduler::plan::Reason;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::workshop::{Built, Workshop};
use crate::config::{self, Template};
use crate::group::{Group, Source};
use crate::runner::Runner;
use crate::state::GroupRecord;

/// Pauses between attempts to start a plugin beside those that run.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// All runners of the process.
pub(super) struct Roster {
    pub(super) workshop: Workshop,
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
        let (served, waiting) = (Mutex::default(), Mutex::default());
        Arc::new(Self { workshop, served, waiting, tasks: TaskTracker::new() })
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

    /// A name for a group of an entry that no other has.
    pub(super) fn fresh_key(&self, entry: &config::Runner) -> String {
        let mut used: Vec<String> = self.lock().iter().map(|one| one.runner.key.clone()).collect();
        used.extend(self.workshop.shared.state.groups().into_iter().map(|(key, _)| key));
        let numbered = (2..).map(|n| format!("{}|{n}", entry.key()));
        let mut names = std::iter::once(entry.key()).chain(numbered);
        names.find(|name| !used.contains(name)).unwrap_or_default()
    }

    /// All entries at once, at the start: a plugin that hangs holds no other up. First all
    /// take up what they had: it counts before new jobs do. Failures come with their entry.
    pub(super) async fn start(
        self: &Arc<Self>,
        entries: Vec<config::Runner>,
    ) -> Vec<(config::Runner, StartError)> {
        let mut known = self.workshop.shared.state.groups();
        let mut building = JoinSet::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let text = entry.autoscaler.template.to_text();
            let place = place_of(&known, &entry.key(), text.reveal());
            let known = place.map(|place| known.swap_remove(place));
            let roster = Arc::clone(self);
            building.spawn(async move {
                let fresh = roster.fresh_key(&entry);
                let built = roster.workshop.build(&entry, known, fresh).await;
                (index, entry, built)
            });
        }
        let mut built = building.join_all().await;
        built.sort_by_key(|(index, ..)| *index);
        let (mut runners, mut failures) = (Vec::new(), Vec::new());
        for (_, entry, result) in built {
            match result {
                Ok(Built { runner, before }) => {
                    known.extend(before);
                    self.take_up(&runner, false);
                    runners.push(runner);
                }
                Err(error) => failures.push((entry, error)),
            }
        }
        for (key, record) in known {
            self.tasks.spawn(Arc::clone(self).drain_left(key, record));
        }
        for runner in runners {
            self.workshop.shared.jobs.spawn(runner.feed());
        }
        failures
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
        match self.workshop.build(&entry, None, self.fresh_key(&entry)).await {
            Ok(built) => self.begin(&built.runner),
            Err(error) => self.wait_for(entry, &error),
        }
    }

    pub(super) fn begin(&self, runner: &Arc<Runner>) {
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
        let roster = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changed.cancelled() => return,
                }
                let mut known = roster.workshop.shared.state.groups();
                let text = entry.autoscaler.template.to_text();
                let place = place_of(&known, &entry.key(), text.reveal());
                let known = place.map(|place| known.swap_remove(place));
                let fresh = roster.fresh_key(&entry);
                match roster.workshop.build(&entry, known, fresh).await {
                    Ok(Built { runner, before }) => {
                        if let Some((key, record)) = before {
                            roster.tasks.spawn(Arc::clone(&roster).drain_left(key, record));
                        }
                        return roster.begin(&runner);
                    }
                    Err(error) => tracing::warn!(%error, "still waiting for a plugin"),
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
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
        self.workshop.write_down(runner, true).await;
        self.tasks.spawn(Arc::clone(self).see_off(Arc::clone(runner)));
    }

    async fn see_off(self: Arc<Self>, runner: Arc<Runner>) {
        if !runner.group.emptied().await {
            return;
        }
        runner.group.detach().await;
        self.workshop.shared.state.remove_group(&runner.key);
        self.lock().retain(|one| !Arc::ptr_eq(&one.runner, &runner));
        tracing::info!(
            runner = runner.config.name,
            group = runner.key,
            "the last of its instances is gone"
        );
    }

    /// One that was retired is wanted again.
    pub(super) async fn revive(
        &self,
        runner: &Arc<Runner>,
        entry: &config::Runner,
    ) -> Result<(), StartError> {
        runner.group.revive();
        for one in self.lock().iter_mut().filter(|one| Arc::ptr_eq(&one.runner, runner)) {
            one.retired = false;
        }
        let next = self.workshop.runner(entry, Arc::clone(&runner.group), Some(runner))?;
        self.workshop.write_down(&next, false).await;
        self.swap(runner, next);
        Ok(())
    }

    /// Drains a group that the last process left and whose entry is gone, or makes other
    /// instances.
    async fn drain_left(self: Arc<Self>, key: String, record: GroupRecord) {
        let (runner, name) = (record.runner.clone(), record.name.clone());
        let entry = match Template::from_text(&record.template) {
            Ok(template) => {
                let certificates = record.ca_certificates.into_bytes();
                config::Runner::of_before(
                    (record.name, record.url, record.runner),
                    certificates,
                    template,
                )
            }
            Err(error) => {
                tracing::error!(group = key, %error, "what the group was made from cannot be read; its instances stay");
                return;
            }
        };
        tracing::info!(
            runner,
            name,
            group = key,
            "its entry is gone or makes other instances: what is left of it drains"
        );
        let mut pause = FIRST_PAUSE;
        let source = loop {
            match self.workshop.source(&entry).await {
                Ok(source) => break source,
                Err(error) => {
                    tracing::warn!(group = key, %error, "a group that is to drain waits for its plugin")
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
            Ok(runner) => {
                self.take_up(&runner, true);
                self.retire(&runner).await;
            }
            Err(error) => tracing::error!(%error, "a group cannot be drained"),
        }
    }

    /// The plugin of a source, started anew.
    pub(super) fn started_again(&self, before: Source) -> Option<Source> {
        match self.workshop.provider(&before.template) {
            Ok(provider) => Some(Source { provider, ..before }),
            Err(error) => {
                tracing::error!(%error, "the plugin of before does not start any more");
                None
            }
        }
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

/// The group that an entry had, where there are several the one with the same template.
fn place_of(known: &[(String, GroupRecord)], runner: &str, template: &str) -> Option<usize> {
    let is_of = |(_, group): &(String, GroupRecord)| !group.retired && group.runner == runner;
    let is_same = |one: &(String, GroupRecord)| is_of(one) && one.1.template == template;
    known.iter().position(is_same).or_else(|| known.iter().position(is_of))
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
