//! What is under way, and where instances stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mayfly_plugin::{Error, InstanceState, InstanceStatus};
use tokio_util::sync::CancellationToken;

use super::Group;
use super::removal::Cause;
use crate::daemon::{Container, State as Stands};

/// Every set is bounded by the group's size: what no list shows any more is forgotten.
#[derive(Default)]
pub(super) struct State {
    /// Instances that a task is making, and how to stop it. A container may not exist yet.
    pub(super) making: BTreeMap<String, CancellationToken>,
    /// Instances that this plugin made, as long as a list may not have shown them.
    pub(super) born: BTreeSet<String>,
    /// Instances to be deleted; they stay until no list has them.
    pub(super) doomed: BTreeSet<String>,
    /// Those of them that a task is deleting now.
    pub(super) ending: BTreeSet<String>,
    /// What the last update listed.
    listed: BTreeSet<String>,
    /// Instances that failed before a list had them.
    pub(super) failed: BTreeSet<String>,
    knows_key: BTreeSet<String>,
}

impl State {
    pub(super) fn knows_key(&self, id: &str) -> bool {
        self.knows_key.contains(id)
    }

    pub(super) fn set_knows_key(&mut self, id: &str) {
        self.knows_key.insert(id.to_owned());
    }

    /// Where an instance stands, and why it must be deleted if it must.
    fn judge(&self, container: &Container) -> (InstanceState, Option<Fault>) {
        let id = &container.name;
        if self.doomed.contains(id) {
            return (InstanceState::Deleting, None);
        }
        if self.making.contains_key(id) {
            return (InstanceState::Creating, None);
        }
        match container.state {
            Stands::Running => (InstanceState::Running, None),
            Stands::Paused => (InstanceState::Suspended, None),
            // This list may be older than the start.
            Stands::Created if self.born.contains(id) => (InstanceState::Creating, None),
            Stands::Created => (InstanceState::Deleting, Some(Fault::LeftOver)),
            Stands::Ended => (InstanceState::Deleting, Some(Fault::Ended)),
        }
    }
}

/// Why nobody can use an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A plugin ended between making and starting it.
    LeftOver,
    /// Its first process has ended.
    Ended,
}

/// What the daemon lists, and what was promised when it was asked: in between, an instance
/// may come to be that the list lacks.
pub(super) struct Look {
    pub(super) containers: Vec<Container>,
    promised: BTreeSet<String>,
}

impl Look {
    /// Instances that exist, or may, beside the listed ones.
    pub(super) fn unlisted(&self, state: &State) -> BTreeSet<String> {
        let is_listed = |id: &String| self.containers.iter().any(|one| one.name == *id);
        let all = self.promised.iter().chain(state.making.keys());
        all.filter(|id| !is_listed(id) && !state.failed.contains(*id)).cloned().collect()
    }
}

impl Group {
    pub(super) async fn look(&self) -> Result<Look, Error> {
        let promised = self.state().making.keys().cloned().collect();
        let containers = self.daemon.list(&self.owned, None).await?;
        Ok(Look { containers, promised })
    }

    pub(super) async fn update(self: &Arc<Self>) -> Result<Vec<InstanceStatus>, Error> {
        let look = self.look().await?;
        let mut guard = self.state();
        let state = &mut *guard;
        let mut statuses = Vec::with_capacity(look.containers.len());
        let mut listed = look.unlisted(state);
        for id in &listed {
            let stands = match state.doomed.contains(id) {
                true => InstanceState::Deleting,
                false => InstanceState::Creating,
            };
            statuses.push(InstanceStatus::new(id, stands));
        }
        for container in &look.containers {
            let (stands, fault) = state.judge(container);
            if fault == Some(Fault::LeftOver) {
                tracing::warn!(instance = container.name, "removing what was never started");
            }
            if fault.is_some() {
                state.doomed.insert(container.name.clone());
            }
            if stands == InstanceState::Deleting {
                let cause = if fault == Some(Fault::Ended) { Cause::ItsEnd } else { Cause::Wish };
                self.start_removal(state, &container.name, &container.id, cause);
            }
            statuses.push(InstanceStatus::new(&container.name, stands));
            listed.insert(container.name.clone());
        }
        let mut gone: BTreeSet<String> = state.listed.difference(&listed).cloned().collect();
        gone.extend(std::mem::take(&mut state.failed));
        gone.retain(|id| !listed.contains(id));
        statuses.extend(gone.iter().map(|id| InstanceStatus::new(id, InstanceState::Deleted)));
        for set in [&mut state.born, &mut state.doomed, &mut state.knows_key] {
            set.retain(|id| listed.contains(id));
        }
        state.listed = listed;
        Ok(statuses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: Stands) -> Container {
        Container {
            id: "0".into(),
            name: "x".into(),
            state,
            labels: BTreeMap::new(),
            addresses: BTreeMap::new(),
            published: None,
        }
    }

    #[test]
    fn only_what_nobody_makes_is_left_over() {
        let mut state = State::default();
        let created = container(Stands::Created);
        assert_eq!(state.judge(&created), (InstanceState::Deleting, Some(Fault::LeftOver)));
        state.born.insert("x".into());
        assert_eq!(state.judge(&created), (InstanceState::Creating, None));
        state.making.insert("x".into(), CancellationToken::new());
        assert_eq!(state.judge(&container(Stands::Running)), (InstanceState::Creating, None));
        state.doomed.insert("x".into());
        assert_eq!(state.judge(&created), (InstanceState::Deleting, None));
    }

    #[test]
    fn what_comes_to_be_during_a_list_is_not_lost() {
        let promised = ["late", "failed", "x"].map(str::to_owned).into();
        let look = Look { containers: vec![container(Stands::Running)], promised };
        let mut state = State::default();
        state.making.insert("new".into(), CancellationToken::new());
        state.failed.insert("failed".into());
        assert_eq!(look.unlisted(&state), ["late", "new"].map(str::to_owned).into());
    }

    #[test]
    fn a_container_tells_where_its_instance_stands() {
        let state = State::default();
        let stands = |one| state.judge(&container(one)).0;
        assert_eq!(stands(Stands::Running), InstanceState::Running);
        assert_eq!(stands(Stands::Paused), InstanceState::Suspended);
        assert_eq!(state.judge(&container(Stands::Ended)).1, Some(Fault::Ended));
    }
}
