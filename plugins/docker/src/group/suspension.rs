//! Suspending instances: their processes are frozen, their memory and network stay.

use std::sync::Arc;

use mayfly_plugin::{Error, Partial};
use tokio::task::JoinSet;

use super::Group;
use crate::daemon::{Container, State as Stands};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Suspend,
    Resume,
}

impl Group {
    pub(super) async fn suspend(self: &Arc<Self>, ids: Vec<String>) -> Result<Partial, Error> {
        self.change(ids, Wish::Suspend).await
    }

    pub(super) async fn resume(self: &Arc<Self>, ids: Vec<String>) -> Result<Partial, Error> {
        self.change(ids, Wish::Resume).await
    }

    async fn change(self: &Arc<Self>, ids: Vec<String>, wish: Wish) -> Result<Partial, Error> {
        let containers = self.daemon.list(&self.owned, None).await?;
        let mut changes = JoinSet::new();
        let mut failures = Vec::new();
        for id in ids {
            match containers.iter().find(|container| container.name == id) {
                None => failures.push(format!("instance {id} does not exist")),
                Some(container) => {
                    let (group, container) = (Arc::clone(self), container.clone());
                    changes.spawn(async move {
                        let changed = group.change_one(&container, wish).await;
                        (container.name, changed)
                    });
                }
            }
        }
        let mut partial = Partial::default();
        while let Some(ended) = changes.join_next().await {
            match ended {
                Ok((id, Ok(()))) => partial.succeeded.push(id),
                Ok((id, Err(why))) => failures.push(format!("{id}: {why}")),
                Err(error) => failures.push(error.to_string()),
            }
        }
        partial.succeeded.sort_unstable();
        partial.error = (!failures.is_empty()).then(|| failures.join("; "));
        Ok(partial)
    }

    async fn change_one(&self, container: &Container, wish: Wish) -> Result<(), String> {
        let _place = self.removals.acquire().await.map_err(|error| error.to_string())?;
        let changed = match (wish, container.state) {
            (Wish::Suspend, Stands::Paused) | (Wish::Resume, Stands::Running) => return Ok(()),
            (Wish::Suspend, Stands::Running) => self.daemon.pause(&container.id).await,
            (Wish::Resume, Stands::Paused) => self.daemon.unpause(&container.id).await,
            (_, Stands::Created | Stands::Ended) => return Err("does not run".into()),
        };
        changed.map_err(|error| error.to_string())
    }
}
