//! What the provider lists, against what we know: who is new, who is gone, whose ask it was.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Answer, Fleet, Gone, Instance, InstanceId, Origin, Seen, ask};
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
        self.settle_asks(begun, now);
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

    /// Asks of which this list tells the truth count no longer. What appeared meanwhile was
    /// credited to the oldest ask: if that had no effect, it came of one after it, or of one
    /// that took the next one's in turn. Somebody waits for so many in vain.
    fn settle_asks(&mut self, begun: Moment, now: Moment) {
        let is_settled = |ask: &mut ask::Ask| match ask.answer {
            Answer::Unknown { truth_after } => begun >= truth_after,
            _ => false,
        };
        let mut settled: Vec<_> = self.asks.extract_if(.., is_settled).collect();
        settled.extend(self.spent.extract_if(.., is_settled));
        self.asks.iter_mut().for_each(|ask| ask.looked_for(begun));
        for settled in settled {
            let later = self.asks.iter_mut().filter(|ask| ask.id > settled.id);
            ask::doubt(later, settled.owed(), now);
        }
        self.close_asks();
    }

    /// Asks of which nothing more is to come, or to be said, are waited for no longer.
    pub(super) fn close_asks(&mut self) {
        let closed = self.asks.extract_if(.., |ask| !ask.is_open());
        self.spent.extend(closed.filter(ask::Ask::is_unknown));
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
        if seen.is_over() && !(is_new && self.asks.iter().any(|ask| ask.outstanding > 0)) {
            return;
        }
        self.over.remove(id);
        // On the first list all asks are those of before. It may have left something out.
        let is_early = age != ListAge::Late;
        // What is leaving this early may be of before. Whose ask it was that is gone already,
        // nobody can tell: others may be still to come.
        let is_gone = seen == Seen::Deleted;
        let is_suspect = is_gone || is_early && seen == Seen::Leaving;
        if is_suspect && ask::doubt(self.asks.iter_mut(), 1, now) > 0 && is_gone {
            self.creation.boot_failed(now);
        }
        if is_gone {
            return;
        }
        let ask = (!is_suspect).then(|| ask::credit(&mut self.asks)).flatten();
        // One that is given up this early may be of before, too, and run jobs.
        let origin = match &ask {
            Some(_) if is_early && seen == Seen::Timeout => Origin::Unrecorded,
            Some(_) => Origin::Asked,
            None if is_early => Origin::Unrecorded,
            None => Origin::Unexpected,
        };
        let mut instance = Instance::new(id.clone(), origin, now);
        if let Some(ask) = ask {
            instance.came_of(ask);
        }
        self.close_asks();
        instance.saw(seen, now);
        self.instances.insert(id.clone(), instance);
    }
}
