//! What calls change: creating, deleting, suspending, resuming.

use std::collections::BTreeSet;
use std::time::Duration;

use instances::failed::Failed;
use mayfly_plugin::Error;

use super::{Cloud, GROUP};
use crate::config::{MAX_SIZE_LIMIT, Machines, Options};
use crate::facts::{Deletion, Facts, Power, Step};
use crate::fate::FateKind;
use crate::fault::Refusal;
use crate::ledger::{Entry, Record};

/// What is to be created, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Creation {
    pub(crate) n: u32,
    /// They come into being so much later.
    pub(crate) late_by: Duration,
    /// They get ids of instances that are gone.
    pub(crate) reuse_ids: bool,
}

impl Cloud {
    /// Creates instances as far as the quota has room, and returns how many.
    pub(crate) fn create(
        &mut self,
        options: &Options,
        creation: Creation,
        now_ms: u64,
    ) -> Result<u32, Error> {
        let existing = u32::try_from(self.facts.len()).unwrap_or(u32::MAX);
        let most = options.quota.unwrap_or(MAX_SIZE_LIMIT).min(MAX_SIZE_LIMIT);
        let room = most.saturating_sub(existing);
        if room == 0 && creation.n > 0 {
            return Err(Refusal::Quota.message().into());
        }
        let n = creation.n.min(room);
        let first = self.group.next_number;
        self.group.next_number += u64::from(n);
        let mut ids = Vec::new();
        for number in first..self.group.next_number {
            let old = if creation.reuse_ids { self.id_of_before() } else { None };
            ids.push((number, old.unwrap_or_else(|| format!("sim-{number:05}"))));
        }
        // A number is given out once, whatever happens from here on.
        self.store.write(GROUP, &self.group)?;
        for (number, id) in ids {
            let created_ms = now_ms + millis(creation.late_by);
            let facts = plan(options, (number, id), created_ms);
            self.store.add(&facts)?;
            self.facts.insert(facts.id.clone(), facts);
        }
        Ok(n)
    }

    fn id_of_before(&mut self) -> Option<String> {
        let is_free = |id: &str| !self.facts.contains_key(id);
        let place = self.group.gone.iter().rposition(|gone| is_free(&gone.id))?;
        Some(self.group.gone.remove(place).id)
    }

    /// Accepts deletions; what is gone already counts as accepted.
    pub(crate) fn delete(
        &mut self,
        options: &Options,
        ids: &[String],
        stay: Duration,
        now_ms: u64,
    ) -> Result<(), Failed> {
        for id in ids {
            let Some(facts) = self.facts.get_mut(id).filter(|facts| facts.deletion.is_none())
            else {
                continue;
            };
            let takes = options.times.delete.of(options.seed, "delete", facts.number);
            let begins_ms = now_ms + millis(stay);
            let gone_ms = begins_ms + millis(takes);
            facts.deletion = Some(Deletion { begins_ms, gone_ms });
            self.store.put(facts)?;
        }
        Ok(())
    }

    /// Switches instances off or on, those that exist; returns their ids.
    pub(crate) fn switch(
        &mut self,
        options: &Options,
        (ids, on): (&[String], bool),
        now_ms: u64,
    ) -> Result<Vec<String>, Failed> {
        let mut switched = Vec::new();
        for id in ids {
            let Some(facts) = self.facts.get_mut(id) else { continue };
            switched.push(id.clone());
            let is_off = matches!(facts.power, Power::Off { .. });
            if is_off != on {
                continue;
            }
            let takes = options.times.suspend.as_ref();
            let takes = takes.map(|it| it.of(options.seed, "suspend", facts.number));
            let until_ms = now_ms + millis(takes.unwrap_or_default());
            let (power, step, later) = match on {
                true => (Power::Resuming { until_ms }, Step::Resuming, Step::Resumed),
                false => (Power::Off { until_ms }, Step::Suspending, Step::Suspended),
            };
            facts.power = power;
            facts.told.remove(&later);
            self.store.put(facts)?;
            let (instance, number) = (facts.id.clone(), facts.number);
            let entry = Entry::Step { instance, number, step };
            self.ledger.write(&[Record { at_ms: now_ms, entry }])?;
        }
        Ok(switched)
    }
}

/// What will become of an instance if nobody interferes.
fn plan(options: &Options, (number, id): (u64, String), created_ms: u64) -> Facts {
    let takes = |wait: &crate::wait::Wait, purpose| millis(wait.of(options.seed, purpose, number));
    let times = &options.times;
    let listed_ms = created_ms + takes(&times.listed_after, "listed_after");
    let mut facts = Facts {
        id,
        number,
        has_ssh: options.machines == Machines::Ssh,
        created_ms,
        listed_ms,
        running_ms: Some(listed_ms.max(created_ms + takes(&times.boot, "boot"))),
        timeout_ms: None,
        interrupt_ms: None,
        killed_ms: None,
        deletion: None,
        power: Power::On,
        told: BTreeSet::new(),
    };
    // Each entry has a chance of its own.
    let fates = (options.seed..).zip(&options.fates);
    for (_, fate) in fates.filter(|(seed, fate)| fate.meets(number, *seed)) {
        let after_ms = millis(fate.after());
        let since_boot_ms = facts.running_ms.unwrap_or(created_ms) + after_ms;
        match fate.kind {
            FateKind::NeverBoots => facts.running_ms = None,
            FateKind::Timeout => facts.timeout_ms = Some(listed_ms.max(created_ms + after_ms)),
            FateKind::Kill => facts.killed_ms = Some(since_boot_ms),
            FateKind::Interrupt => {
                facts.interrupt_ms = Some(since_boot_ms);
                facts.killed_ms = Some(since_boot_ms + millis(fate.notice()));
            }
        }
    }
    facts
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 8)
}
