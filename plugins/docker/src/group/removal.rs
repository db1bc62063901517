//! Ending instances: accepted at once, done in the background, tried again at each list.

use std::sync::Arc;

use mayfly_plugin::Error;

use super::{Group, listing::State};

/// Why a container is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nobody wants it.
    Wish,
    /// It has ended by itself: its log says why, as long as it exists.
    ItsEnd,
}

impl Group {
    /// Dooms instances of this group; all others are gone already, as far as it knows.
    pub(super) async fn decrease(
        self: &Arc<Self>,
        instances: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        // Nothing but what the labels of this group give is ever removed.
        let look = self.look().await?;
        let mut state = self.state();
        let unlisted = look.unlisted(&state);
        for id in &instances {
            let making = state.making.get(id).cloned();
            if let Some(making) = &making {
                state.doomed.insert(id.clone());
                making.cancel();
            } else if let Some(container) = look.containers.iter().find(|one| one.name == *id) {
                state.doomed.insert(id.clone());
                self.start_removal(&mut state, id, &container.id, Cause::Wish);
            } else if unlisted.contains(id) {
                // It came to be a moment ago: the next list removes it.
                state.doomed.insert(id.clone());
            }
        }
        Ok(instances)
    }

    /// Removes in the background; does nothing if that is under way, or if the task that
    /// makes it will do so.
    pub(super) fn start_removal(
        self: &Arc<Self>,
        state: &mut State,
        id: &str,
        container: &str,
        cause: Cause,
    ) {
        if state.making.contains_key(id) || !state.ending.insert(id.to_owned()) {
            return;
        }
        let (group, id, container) = (Arc::clone(self), id.to_owned(), container.to_owned());
        tokio::spawn(async move {
            let place = group.removals.acquire().await;
            if cause == Cause::ItsEnd {
                let log = group.daemon.last_words(&container).await;
                tracing::warn!(instance = id, log, "instance ended by itself");
            }
            if let Err(error) = group.daemon.remove(&container).await {
                tracing::error!(instance = id, %error, "cannot remove, will try again");
            }
            drop(place);
            group.state().ending.remove(&id);
        });
    }
}
