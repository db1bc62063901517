//! What a changed configuration changes while jobs run.

use std::sync::{Arc, Mutex, PoisonError};

use super::Served;
use crate::config::{Autoscaler, Config};
use crate::group::Tuning;
use crate::runner::{Shared, resize};

/// Takes up a changed configuration, as far as that can be done while jobs run.
pub(crate) struct Tuner {
    pub(super) served: Arc<Mutex<Vec<Served>>>,
    pub(super) shared: Shared,
    pub(super) concurrent: u32,
}

impl Tuner {
    /// Policies, limits and intervals hold at once. Returns the names of runners of which
    /// more has changed, or which are new or gone: that waits for the next start.
    pub(crate) fn apply(&mut self, config: &Config) -> Vec<String> {
        resize(&self.shared.permits, self.concurrent, config.concurrent);
        self.concurrent = config.concurrent;
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = Vec::new();
        for entry in &config.runners {
            match served.iter().find(|one| one.runner.key == entry.key()) {
                Some(one) => {
                    one.runner.group.retune(tuning(&entry.autoscaler));
                    one.runner.resize(entry.limit);
                    if !one.runner.config.is_but_tuned(entry) {
                        waiting.push(entry.name.clone());
                    }
                }
                None => waiting.push(entry.name.clone()),
            }
        }
        let is_gone = |one: &&Served| config.runners.iter().all(|e| e.key() != one.runner.key);
        waiting.extend(served.iter().filter(is_gone).map(|one| one.runner.config.name.clone()));
        waiting
    }
}

pub(super) fn tuning(autoscaler: &Autoscaler) -> Tuning {
    Tuning {
        limits: autoscaler.limits.clone(),
        schedule: autoscaler.schedule.clone(),
        update_interval: autoscaler.update_interval,
        update_interval_when_expecting: autoscaler.update_interval_when_expecting,
    }
}
