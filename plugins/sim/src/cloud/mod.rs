//! The simulated provider: what exists, what becomes of it with time, and what it says.
//!
//! The directory is the truth; memory only spares reading it. Whoever holds a `Cloud`
//! holds the group's lock. Nothing here waits: what takes time is handed out as a `Chore`
//! and comes back as [`Cloud::booted`] or [`Cloud::ended`].

mod change;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use instances::failed::Failed;
use instances::processes::Identity;
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, Stage, Step};
use crate::fault::Call;
use crate::ledger::{CallRecord, Entry, Ledger, Record};
use crate::machine;
use crate::store::{GroupLock, Store, remove_tree};

pub(crate) use change::Creation;

const GROUP: &str = "group.json";
/// Instances that are gone and still known: for lists that lie and ids that come back.
const GONE_LIMIT: usize = 64;

/// The provider of one group.
pub(crate) struct Cloud {
    store: Store,
    group: GroupFile,
    facts: BTreeMap<String, Facts>,
    /// Processes that are instances.
    machines: BTreeMap<String, Identity>,
    /// Instances with a chore under way.
    busy: BTreeSet<String>,
    /// When the processes of instances were really gone.
    ended_ms: BTreeMap<String, u64>,
    ledger: Ledger,
    _lock: GroupLock,
}

/// What the group remembers beside its instances.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct GroupFile {
    born_ms: u64,
    next_number: u64,
    /// Calls so far: faults count them.
    calls: BTreeMap<Call, u64>,
    orders_read: u64,
    /// The latest that are gone, the last one last.
    gone: Vec<GoneId>,
}

/// An instance that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GoneId {
    id: String,
    at_ms: u64,
    was_killed: bool,
}

/// Something that takes time.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Start the process of an instance.
    Boot { id: String, directory: PathBuf },
    /// End it and all that it started.
    End { id: String, directory: PathBuf, process: Identity },
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Cloud {
    /// Takes a group over as it was left.
    pub(crate) fn open(store: Store, lock: GroupLock) -> Result<Self, Failed> {
        store.remove_unfinished()?;
        let fresh = GroupFile {
            born_ms: now_ms(),
            next_number: 1,
            calls: BTreeMap::new(),
            orders_read: 0,
            gone: Vec::new(),
        };
        let mut group: GroupFile = store.read(GROUP)?.unwrap_or(fresh);
        group.orders_read = store.forget_orders(group.orders_read);
        store.write(GROUP, &group)?;
        let mut machines = BTreeMap::new();
        let mut facts = BTreeMap::new();
        for one in store.all_facts()? {
            if one.has_ssh
                && let Some(process) = machine::find(&store.instance(&one.id))?
            {
                machines.insert(one.id.clone(), process);
            }
            facts.insert(one.id.clone(), one);
        }
        let ledger = Ledger::open(store.directory())?;
        Ok(Self {
            store,
            group,
            facts,
            machines,
            busy: BTreeSet::new(),
            ended_ms: BTreeMap::new(),
            ledger,
            _lock: lock,
        })
    }

    /// Seconds and more since the group's birth.
    pub(crate) fn age(&self, now_ms: u64) -> std::time::Duration {
        std::time::Duration::from_millis(now_ms.saturating_sub(self.group.born_ms))
    }

    /// Counts a call; it is on disk before the call has an effect.
    pub(crate) fn count(&mut self, call: Call) -> Result<u64, Failed> {
        let count = self.group.calls.entry(call).or_default();
        *count += 1;
        let count = *count;
        self.store.write(GROUP, &self.group)?;
        Ok(count)
    }

    /// Writes a call into the ledger.
    pub(crate) fn tell_call(&mut self, call: CallRecord) -> Result<(), Failed> {
        self.ledger.write(&[Record { at_ms: now_ms(), entry: Entry::Call(call) }])
    }

    /// Writes into the ledger that a plugin took the group over.
    pub(crate) fn tell_opened(&mut self, quota: Option<u32>) -> Result<(), Failed> {
        self.ledger.write(&[Record { at_ms: now_ms(), entry: Entry::Opened { quota } }])
    }

    /// Lets happen what is due, and returns what has to be done for it.
    pub(crate) fn advance(&mut self, now_ms: u64) -> Result<Vec<Chore>, Failed> {
        self.take_orders()?;
        self.notice_deaths(now_ms)?;
        self.tell_news(now_ms)?;
        let chores = self.chores(now_ms);
        self.bury(now_ms)?;
        Ok(chores)
    }

    /// The next moment at which something happens by itself.
    pub(crate) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.facts.values().filter_map(|facts| facts.next_ms(now_ms)).min()
    }

    /// A process was started for an instance, or could not be.
    pub(crate) fn booted(&mut self, id: &str, process: Option<Identity>) {
        self.busy.remove(id);
        if let Some(process) = process {
            self.machines.insert(id.to_owned(), process);
        }
    }

    /// Nothing of an instance's process is left; or it could not be ended.
    pub(crate) fn ended(&mut self, id: &str, is_gone: bool) {
        self.busy.remove(id);
        if is_gone {
            self.machines.remove(id);
            self.ended_ms.insert(id.to_owned(), now_ms());
        }
    }

    fn take_orders(&mut self) -> Result<(), Failed> {
        let (orders, read) = self.store.orders(self.group.orders_read);
        if read == self.group.orders_read {
            return Ok(());
        }
        for order in orders {
            if let Some(facts) = self.facts.get_mut(&order.id) {
                let at_ms = order.at_ms.max(facts.created_ms);
                facts.killed_ms = Some(facts.killed_ms.map_or(at_ms, |before| before.min(at_ms)));
                self.store.put(facts)?;
            }
        }
        self.group.orders_read = read;
        self.store.write(GROUP, &self.group)
    }

    /// A process that ended by itself, or by somebody's hand, was the instance.
    fn notice_deaths(&mut self, now_ms: u64) -> Result<(), Failed> {
        for (id, process) in &self.machines {
            let Some(facts) = self.facts.get_mut(id) else { continue };
            let runs = facts.stage(now_ms).has_machine() && !self.busy.contains(id);
            if runs && !process.is_alive() {
                facts.killed_ms = Some(now_ms);
                self.store.put(facts)?;
            }
        }
        Ok(())
    }

    fn tell_news(&mut self, now_ms: u64) -> Result<(), Failed> {
        let mut records = Vec::new();
        let mut changed = Vec::new();
        for facts in self.facts.values_mut() {
            let news = facts.news(now_ms);
            if news.is_empty() {
                continue;
            }
            for (at_ms, step) in news {
                if step == Step::Interrupted {
                    machine::leave_notice(&self.store.instance(&facts.id), facts)?;
                }
                facts.told.insert(step);
                let (instance, number) = (facts.id.clone(), facts.number);
                records.push(Record { at_ms, entry: Entry::Step { instance, number, step } });
            }
            changed.push(facts.clone());
        }
        if records.is_empty() {
            return Ok(());
        }
        records.sort_by_key(|record| record.at_ms);
        // The ledger first: a line that comes twice counts once, one that is missing never.
        self.ledger.write(&records)?;
        changed.iter().try_for_each(|facts| self.store.put(facts))
    }

    fn chores(&mut self, now_ms: u64) -> Vec<Chore> {
        let mut chores = Vec::new();
        for facts in self.facts.values().filter(|facts| facts.has_ssh) {
            let id = facts.id.clone();
            if self.busy.contains(&id) {
                continue;
            }
            let directory = self.store.instance(&id);
            let wants_machine = facts.stage(now_ms).has_machine();
            let chore = match self.machines.get(&id) {
                None if wants_machine => Chore::Boot { id: id.clone(), directory },
                Some(process) if !wants_machine => {
                    Chore::End { id: id.clone(), directory, process: *process }
                }
                _ => continue,
            };
            self.busy.insert(id);
            chores.push(chore);
        }
        chores
    }

    /// Removes what is over and of which no process is left.
    fn bury(&mut self, now_ms: u64) -> Result<(), Failed> {
        let is_over = |facts: &&Facts| {
            facts.stage(now_ms).is_over()
                && !self.machines.contains_key(&facts.id)
                && !self.busy.contains(&facts.id)
        };
        let over: Vec<Facts> = self.facts.values().filter(is_over).cloned().collect();
        if over.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for facts in &over {
            let was_killed = facts.stage(now_ms) == Stage::Killed;
            let due_ms = facts.over_ms().unwrap_or(now_ms);
            let at_ms = self.ended_ms.remove(&facts.id).map_or(due_ms, |ended| ended.max(due_ms));
            if !was_killed {
                let (instance, number) = (facts.id.clone(), facts.number);
                let entry = Entry::Step { instance, number, step: Step::Gone };
                records.push(Record { at_ms, entry });
            }
            self.group.gone.retain(|gone| gone.id != facts.id);
            self.group.gone.push(GoneId { id: facts.id.clone(), at_ms, was_killed });
        }
        let surplus = self.group.gone.len().saturating_sub(GONE_LIMIT);
        self.group.gone.drain(..surplus);
        records.sort_by_key(|record| record.at_ms);
        self.ledger.write(&records)?;
        self.store.write(GROUP, &self.group)?;
        for facts in over {
            remove_tree(&self.store.instance(&facts.id))?;
            self.facts.remove(&facts.id);
        }
        Ok(())
    }
}
