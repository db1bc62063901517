//! Making instances: a promise with a name at once, the container in the background.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mayfly_plugin::Error;
use tokio_util::sync::CancellationToken;

use super::removal::Cause;
use super::{Group, greeting};
use crate::daemon::State as Stands;
use crate::image::Batch;
use crate::spec;

/// From the start of a container until its server greets.
const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(50);

impl Group {
    /// Promises up to `n` instances, as far as the group has room for them.
    pub(super) async fn increase(self: &Arc<Self>, n: u32) -> Result<u32, Error> {
        if n == 0 {
            return Ok(0);
        }
        // Held throughout: the room must not be given away twice.
        let _counting = self.counting.lock().await;
        self.image.check().await?;
        let look = self.look().await?;
        let mut state = self.state();
        let existing = look.containers.len() + look.unlisted(&state).len();
        let limit = self.options.max_size;
        let room = limit.saturating_sub(u32::try_from(existing).unwrap_or(u32::MAX));
        if room == 0 {
            return Err(Error::new(format!(
                "the group is full: {existing} of max_size = {limit} containers exist"
            )));
        }
        let batch = Arc::new(Batch::default());
        for _ in 0..n.min(room) {
            let id = format!("mayfly-{}-{:08x}", self.options.name, rand::random::<u32>());
            let cancelled = CancellationToken::new();
            state.making.insert(id.clone(), cancelled.clone());
            state.born.insert(id.clone());
            let (group, batch) = (Arc::clone(self), Arc::clone(&batch));
            tokio::spawn(async move { group.make(id, &batch, cancelled).await });
        }
        Ok(n.min(room))
    }

    /// The whole making of one instance; what it leaves behind is in the state.
    async fn make(self: Arc<Self>, id: String, batch: &Batch, cancelled: CancellationToken) {
        let mut container = None;
        let result = tokio::select! {
            result = self.build(&id, batch, &mut container) => result,
            // The call under way is dropped; a container it made anyway is in the next list.
            () = cancelled.cancelled() => Err("it is not wanted any more".to_owned()),
        };
        if let (Err(why), false) = (&result, cancelled.is_cancelled()) {
            let log = match &container {
                Some(container) => self.daemon.last_words(container).await,
                None => String::new(),
            };
            let why = self.explain(why, &log);
            tracing::error!(instance = id, error = why, log, "cannot make an instance");
        }
        let mut state = self.state();
        state.making.remove(&id);
        if result.is_ok() {
            return;
        }
        match container {
            Some(container) => {
                state.doomed.insert(id.clone());
                self.start_removal(&mut state, &id, &container, Cause::Wish);
            }
            None => {
                // The call that was dropped may still make it: then it is left over.
                state.born.remove(&id);
                state.failed.insert(id);
            }
        }
    }

    async fn build(
        &self,
        id: &str,
        batch: &Batch,
        made: &mut Option<String>,
    ) -> Result<(), String> {
        self.image.ensure(batch).await?;
        let _place = self.creations.acquire().await.map_err(|error| error.to_string())?;
        let individual =
            spec::Individual { id, user: self.user(), runs_as: self.runs_as(), boot: &self.boot };
        let body = spec::body(&self.options, &self.owned, &individual);
        let text = |error: crate::daemon::DaemonError| error.to_string();
        let container = &*made.insert(self.daemon.create(id, &body).await.map_err(text)?);
        for network in self.options.container.networks.iter().skip(1) {
            self.daemon.connect(network, container).await.map_err(text)?;
        }
        self.daemon.upload(container, self.files.whole.clone()).await.map_err(text)?;
        self.daemon.start(container).await.map_err(text)?;
        let greeted = tokio::time::timeout(READY_LIMIT, self.await_greeting(id)).await;
        greeted.unwrap_or_else(|_| {
            Err(format!(
                "its SSH server cannot be reached within {READY_LIMIT:?}: can this machine reach \
                 the container's network? reach = \"published\" goes by the daemon's machine"
            ))
        })
    }

    /// Waits until a job could log in.
    async fn await_greeting(&self, id: &str) -> Result<(), String> {
        loop {
            let found = self.find(id).await.map_err(|error| error.to_string())?;
            let container = found.ok_or("somebody removed its container")?;
            if container.state == Stands::Ended {
                return Err("its first process ended at once".into());
            }
            // The server needs no more than moments to come up; the loop has the limit.
            if let Some(address) = self.address(&container)
                && greeting(&address).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Adds what the operator can do where the cause is known.
    fn explain(&self, why: &str, log: &str) -> String {
        let hints = BTreeMap::from([
            ("no such file or directory", "the image has no loader for this plugin's binary"),
            ("GLIBC_", "the image's glibc is older than this plugin's"),
            ("error while loading shared libraries", "the image lacks libraries of this plugin"),
        ]);
        let hint = hints.iter().find(|(sign, _)| why.contains(*sign) || log.contains(*sign));
        match hint {
            Some((_, hint)) if self.files.needs_libraries => format!(
                "{why}: {hint}: this build is linked dynamically; use the static one that `make \
                 build` makes"
            ),
            _ => why.to_owned(),
        }
    }
}
