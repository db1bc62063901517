//! A provider that is told how many instances there shall be, and chooses by itself.
//!
//! The number is always told together with the ids that are to stay and to go; which
//! number it is, `target` decides. It is on disk before it is told, and numbers are told
//! one after the other: a change goes on also when its host does not wait any more.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_plugin::Error;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::answer::{Accepted, Entry, List, Login};
use crate::call::Caller;
use crate::config::CountScripts;
use crate::failure::Failure;
use crate::state_file::StateFile;
use crate::target::{Books, Order};

/// The scripts, and what the provider was told.
pub(crate) struct Count {
    caller: Caller,
    scripts: CountScripts,
    max_size: u32,
    /// Held over a whole change, and never over an answer that others wait for.
    state: Mutex<State>,
}

struct State {
    books: Books,
    file: StateFile,
}

impl Count {
    pub(crate) fn open(
        caller: Caller,
        scripts: CountScripts,
        max_size: u32,
    ) -> Result<Self, String> {
        let (file, books) = StateFile::open(&scripts.state_file)?;
        let state = Mutex::new(State { books, file });
        Ok(Self { caller, scripts, max_size, state })
    }

    pub(crate) async fn list(&self) -> Result<Vec<Entry>, Error> {
        let List(entries) = self
            .caller
            .ask("list", &self.scripts.list, json!({}))
            .await
            .map_err(|failure| failure.of("list"))?;
        Ok(entries)
    }

    pub(crate) async fn create(self: &Arc<Self>, n: u32) -> Result<u32, Error> {
        let count = Arc::clone(self);
        to_its_end(async move { count.more(n).await }).await
    }

    /// An instance that is gone counts as accepted.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        instances: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let count = Arc::clone(self);
        to_its_end(async move { count.fewer(instances).await }).await
    }

    async fn more(&self, n: u32) -> Result<u32, Error> {
        let mut state = self.state.lock().await;
        self.observe(&mut state).await?;
        let (accepted, order) = state.books.more(n, self.max_size, now_ms());
        let Some(order) = order else {
            return Ok(0);
        };
        state.file.write(&state.books)?;
        let staying = state.books.split(&[]).1;
        match self.scale(&order, &staying, &BTreeSet::new()).await {
            Ok(()) => {
                state.books.succeeded();
                state.file.write(&state.books)?;
                Ok(accepted)
            }
            Err(failure) => {
                state.books.failed();
                state.file.write(&state.books)?;
                Err(failure.of("scale"))
            }
        }
    }

    async fn fewer(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let mut state = self.state.lock().await;
        self.observe(&mut state).await?;
        let (going, staying) = state.books.split(&instances);
        let deleted = match &self.scripts.delete {
            Some(_) if !going.is_empty() => self.delete_first(&going, &staying).await?,
            _ => going.clone(),
        };
        let staying: BTreeSet<String> =
            staying.into_iter().chain(going.difference(&deleted).cloned()).collect();
        if let Some(order) = state.books.fewer(&deleted) {
            state.file.write(&state.books)?;
            self.scale(&order, &staying, &deleted).await.map_err(|failure| failure.of("scale"))?;
            state.books.succeeded();
            state.file.write(&state.books)?;
        }
        Ok(instances.into_iter().filter(|id| !staying.contains(id)).collect())
    }

    /// How to log in; `None` where only the list says it.
    pub(crate) async fn connect(&self, instance: &str) -> Result<Option<Login>, Error> {
        let Some(script) = &self.scripts.connect else {
            return Ok(None);
        };
        match self.caller.ask("connect", script, json!({"instance": instance})).await {
            Ok(login) => Ok(Some(login)),
            Err(Failure::NotOffered) => Ok(None),
            Err(failure) => Err(failure.of("connect")),
        }
    }

    async fn observe(&self, state: &mut State) -> Result<(), Error> {
        let entries = self.list().await?;
        let alive = entries.into_iter().filter(Entry::is_alive).map(|entry| entry.status.id);
        state.books.observe(&alive.collect(), now_ms());
        Ok(())
    }

    /// The hook gets the ids before any number is told; those it took.
    async fn delete_first(
        &self,
        going: &BTreeSet<String>,
        staying: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Error> {
        let Some(script) = &self.scripts.delete else {
            return Ok(BTreeSet::new());
        };
        let request = json!({"instances": going, "keep": staying});
        let answer = self.caller.ask("delete", script, request).await;
        let accepted = answer
            .and_then(|answer: Map<String, Value>| Accepted::read(answer, "deleted"))
            .map_err(|failure| failure.of("delete"))?;
        let deleted: BTreeSet<String> =
            accepted.instances.into_iter().filter(|id| going.contains(id)).collect();
        match accepted.error {
            Some(message) if deleted.is_empty() => {
                return Err(Failure::Refused { message }.of("delete"));
            }
            Some(error) => tracing::error!(error, "cannot delete all that was asked for"),
            None => {}
        }
        Ok(deleted)
    }

    async fn scale(
        &self,
        order: &Order,
        keep: &BTreeSet<String>,
        delete: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        let Order { desired, event, reason } = order;
        let arguments = [self.caller.group(), &desired.to_string(), reason, event];
        let arguments = arguments.into_iter().map(OsString::from).collect();
        let request = json!({
            "desired": desired, "reason": reason, "event": event,
            "keep": keep, "delete": delete,
        });
        tracing::info!(desired, event = *event, reason, "telling the provider a number");
        self.caller.run("scale", &self.scripts.scale, arguments, request).await.map(drop)
    }
}

/// Runs a change to its end, even if nobody hears of it.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(change).await.unwrap_or_else(|error| Err(Error::new(error.to_string())))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
