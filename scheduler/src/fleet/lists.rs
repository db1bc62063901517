//! What the provider lists, against what we know: who is new, who is gone, whose ask it was.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fleet, Gone, Instance, InstanceId, Origin, Seen};
use crate::time::Moment;

/// An instance that is missing from this many lists, and for this long, is gone.
const MISSES: u32 = 3;
const MISSING_FOR: Duration = Duration::from_secs(30);
/// One that runs jobs is given longer: its connection will tell sooner.
const BUSY_MISSING_FOR: Duration = Duration::from_secs(300);

/// Ids of what is over that are remembered.
const OVER: usize = 10_000;
/// What shows up this soon after the first list, and nobody asked for, was there before.
const EARLY: Duration = Duration::from_secs(180);

/// How long lists have been read when one comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListAge {
    First,
    Early,
    Late,
}

impl Fleet {
    /// A complete list of the provider's instances, whose call began at `begun`. Returns
    /// the instances that are gone.
    pub fn listed(&mut self, list: &[(InstanceId, Seen)], begun: Moment, now: Moment) -> Vec<Gone> {
        let age = match self.lists {
            None => ListAge::First,
            Some((first, _)) if now.since(first) < EARLY => ListAge::Early,
            Some(_) => ListAge::Late,
        };
        self.lists = Some((self.lists.map_or(now, |(first, _)| first), begun));
        for (id, seen) in list {
            self.saw(id, *seen, age, now);
        }
        self.asks.listed(begun, now);
        let named: BTreeMap<&InstanceId, Seen> =
            list.iter().map(|(id, seen)| (id, *seen)).collect();
        let mut gone = Vec::new();
        let mut failed = 0;
        self.instances.retain(|id, instance| {
            let stays = match named.get(id) {
                Some(Seen::Deleted) => false,
                Some(_) => true,
                None => !instance.missed(now, MISSES, (MISSING_FOR, BUSY_MISSING_FOR)),
            };
            if !stays {
                failed += u32::from(instance.never_came_up());
                gone.push(instance.farewell());
            }
            stays
        });
        for _ in 0..failed {
            self.creation.boot_failed(now);
        }
        self.remember_over(list, &gone);
        self.check();
        gone
    }

    fn remember_over(&mut self, list: &[(InstanceId, Seen)], gone: &[Gone]) {
        if self.over.len() >= OVER {
            self.over.clear();
        }
        let instances = &self.instances;
        let over = list
            .iter()
            .filter(|(id, seen)| seen.is_over() && !instances.contains_key(id))
            .map(|(id, _)| id)
            .chain(gone.iter().map(|gone| &gone.id));
        self.over.extend(over.cloned());
    }

    fn saw(&mut self, id: &InstanceId, seen: Seen, age: ListAge, now: Moment) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.saw(seen, now);
            return;
        }
        // Some plugins go on listing what is long gone. What is new may be what was asked
        // for, and have failed at once.
        let is_new = age != ListAge::First && !self.over.contains(id);
        if seen.is_over() && !(is_new && self.outstanding() > 0) {
            return;
        }
        self.over.remove(id);
        // On the first list all asks are those of before. It may have left something out.
        let is_early = age != ListAge::Late;
        // What is leaving this early may be of before. Whose ask it was that is gone already,
        // nobody can tell: others may be still to come.
        let is_gone = seen == Seen::Deleted;
        let is_suspect = is_gone || is_early && seen == Seen::Leaving;
        if is_suspect && self.asks.came_perhaps(now) && is_gone {
            self.creation.boot_failed(now);
        }
        if is_gone {
            return;
        }
        let ask = if is_suspect { None } else { self.asks.came() };
        // One that is given up this early may be of before, too, and run jobs.
        let origin = match &ask {
            Some(_) if is_early && seen == Seen::Timeout => Origin::Unrecorded,
            Some(_) => Origin::Asked,
            None if is_early => Origin::Unrecorded,
            None => Origin::Unexpected,
        };
        let mut instance = Instance::new(id.clone(), origin, now);
        if let Some(ask) = ask {
            instance.came_of(&ask);
        }
        instance.saw(seen, now);
        self.instances.insert(id.clone(), instance);
    }
}
