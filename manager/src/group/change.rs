//! What changes a group while it runs: other numbers, another source of instances, its end.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mayfly_plugin::host::CallError;
use scheduler::fleet::{InstanceId, Seen};
use scheduler::plan::Reason;

use super::{Group, Source, Tuning};

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

    /// Instances come from there from now on. Where the template is another one, those that
    /// are there get no more jobs.
    pub(crate) async fn replace_source(&self, source: Source) {
        let is_other = self.source().template != source.template;
        let before = std::mem::replace(
            &mut *self.source.lock().unwrap_or_else(PoisonError::into_inner),
            source,
        );
        if !Arc::ptr_eq(&before.provider, &self.provider()) {
            before.provider.stop().await;
        }
        self.retune(self.tuning().as_ref().clone());
        if is_other {
            self.outdate().await;
        }
    }

    /// What is there gets no more jobs. On disk before anything is done about it.
    pub(crate) async fn outdate(&self) {
        let records = {
            let mut inner = self.lock();
            inner.fleet.doom_all(Reason::Outdated);
            for record in inner.records.values_mut() {
                record.doomed = Reason::Outdated.as_str().into();
            }
            inner.records.clone()
        };
        for (id, record) in records {
            if let Err(error) = self.state.put_instance(&self.key, &id.0, &record).await {
                tracing::error!(%error, "cannot write down that an instance is outdated");
                break;
            }
        }
        self.changed.notify_one();
    }

    /// Whether a provider drives the very instances of this group: it lists one of them, or
    /// there is none to be lost.
    /// `id` is the name by which the group was known until now.
    pub(crate) async fn is_of(&self, source: &Source, id: &str) -> Result<bool, CallError> {
        let (ours, asks) = {
            let inner = self.lock();
            let ours = inner.fleet.instances().map(|instance| instance.id().clone());
            (ours.collect::<BTreeSet<InstanceId>>(), inner.fleet.asks().len())
        };
        if ours.is_empty() && asks == 0 {
            return Ok(true);
        }
        if source.id != id {
            return Ok(false);
        }
        let is_ours = |(id, seen): &(InstanceId, Seen)| *seen != Seen::Deleted && ours.contains(id);
        Ok(ours.is_empty() || source.provider.list().await?.iter().any(is_ours))
    }

    /// Everything is to go, as soon as it holds no job.
    pub(crate) fn end_for(&self, reason: Reason) {
        self.lock().ends.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// It is wanted again.
    pub(crate) fn revive(&self) {
        self.lock().ends = None;
        self.changed.notify_one();
        self.capacity_changed.notify_waiters();
    }

    /// Resolves once nothing is left of a group that ends; `false` if it was revived.
    pub(crate) async fn emptied(&self) -> bool {
        loop {
            {
                let inner = self.lock();
                if inner.ends.is_none() {
                    return false;
                }
                let jobs = inner.fleet.waiting() + inner.fleet.reserved();
                if inner.fleet.instances().next().is_none()
                    && inner.fleet.asks().is_empty()
                    && jobs == 0
                {
                    return true;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
