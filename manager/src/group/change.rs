//! What changes a group while it runs: other numbers, another source of instances, its end.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use scheduler::boot::BootTimes;
use scheduler::fleet::Ask;
use scheduler::plan::Reason;

use super::{Group, Inner, Source, Tuning};
use crate::state::{AskRecord, StateError};

/// Between two looks at whether a group that ends is empty.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Group {
    /// Works with these numbers from now on.
    pub(crate) fn retune(&self, mut tuning: Tuning) {
        tuning.limits.provider_max_size = self.source().max_size;
        *self.tuning.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tuning);
        self.changed.notify_one();
        self.capacity_changed.notify_waiters();
    }

    /// Instances come from there from now on.
    pub(crate) async fn replace_source(&self, source: Source) {
        let before = std::mem::replace(
            &mut *self.source.lock().unwrap_or_else(PoisonError::into_inner),
            source,
        );
        if !Arc::ptr_eq(&before.provider, &self.provider()) {
            before.provider.stop().await;
        }
        self.retune(self.tuning().as_ref().clone());
    }

    /// What is there, or asked for, gets no more jobs: the template is another one. That is
    /// on disk first, then comes what brings the other one, then it holds.
    pub(crate) async fn outdate(&self, replace: impl Future<Output = ()>) {
        let doomed = Reason::Outdated.as_str();
        let (instances, asks) = {
            let mut inner = self.lock();
            let Inner { fleet, records, .. } = &mut *inner;
            records.values_mut().for_each(|record| record.doomed = doomed.into());
            let instances = records.iter().map(|(id, record)| (id.0.clone(), record.clone()));
            let ask = |ask: &Ask| {
                let record = AskRecord { n: ask.cap, doomed: doomed.into() };
                (ask.id.0.to_string(), record)
            };
            (instances.collect::<Vec<_>>(), fleet.asks().iter().map(ask).collect::<Vec<_>>())
        };
        let written = async {
            self.state.put_instances(&self.key, &instances).await?;
            for (id, ask) in asks {
                self.state.put_ask(&self.key, &id, ask).await?;
            }
            Ok::<_, StateError>(())
        };
        if let Err(error) = written.await {
            tracing::error!(%error, "cannot write down that instances are outdated");
        }
        replace.await;
        {
            let mut inner = self.lock();
            inner.fleet.doom_all(Reason::Outdated);
            // Another template takes another time to come up.
            inner.fleet.boots = BootTimes::default();
        }
        self.changed.notify_one();
    }

    /// Whether a source drives the very instances of this group: the plugin says so by the
    /// name of its group, `id` being the one of before; or there is nothing to be lost.
    pub(crate) fn is_of(&self, source: &Source, id: &str) -> bool {
        source.id == id || self.is_empty()
    }

    /// Whether nothing is there and nothing is asked for, as far as a list has shown.
    fn is_empty(&self) -> bool {
        let inner = self.lock();
        let fleet = &inner.fleet;
        fleet.is_known() && fleet.instances().next().is_none() && fleet.asks().is_empty()
    }

    /// Everything is to go, as soon as it holds no job.
    pub(crate) fn end_for(&self, reason: Reason) {
        self.lock().ends.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// It is wanted again. `false` if it is over.
    pub(crate) fn revive(&self) -> bool {
        let is_over = {
            let mut inner = self.lock();
            inner.ends = inner.ends.filter(|_| inner.over);
            inner.over
        };
        self.changed.notify_one();
        self.capacity_changed.notify_waiters();
        !is_over
    }

    /// Resolves once nothing is left of a group that ends, and nobody can revive it any
    /// more; `false` if it was revived before.
    pub(crate) async fn emptied(&self) -> bool {
        loop {
            if self.lock().ends.is_none() {
                return false;
            }
            // Jobs whose instances are gone may still have to be told to the server.
            if self.is_empty() && self.jobs.is_empty() {
                let mut inner = self.lock();
                inner.over = inner.ends.is_some();
                return inner.over;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
