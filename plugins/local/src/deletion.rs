//! The end of an instance: first every process, then every file.

use std::collections::BTreeSet;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::failed::{During as _, Failed};
use crate::isolation::{Isolation, UidClaims};
use crate::processes::{self, Identity};
use crate::record::Record;
use crate::registry::InstanceDir;

/// How long killed processes may take to disappear. One that hangs in the kernel longer
/// is tried again by the next update.
const END_LIMIT: Duration = Duration::from_secs(30);
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Deletes an instance of which anything may be missing already.
pub(crate) fn delete(instance: &InstanceDir) -> Result<(), Failed> {
    let record = instance.record().ok();
    end(instance.id(), record.as_ref(), instance.keeper())?;
    if instance.exists() {
        instance.set_gone()?;
    }
    remove_files(instance, record.as_ref())
}

/// Kills every process of an instance but this one, and returns when none is left.
///
/// They are found in three ways, since each can be escaped alone: as descendants of the
/// keeper, by the instance's own user id, by
/// the variable in their environment.
pub(crate) fn end(
    id: &str,
    record: Option<&Record>,
    keeper: Option<Identity>,
) -> Result<(), Failed> {
    let this = std::process::id().cast_signed();
    let deadline = Instant::now() + END_LIMIT;
    let mut pause = PAUSES.0;
    loop {
        let mut left = find(id, record, keeper);
        left.retain(|process| process.pid != this);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
            return Err(io::Error::other(format!("processes {pids:?} do not end")))
                .during(format!("end {id}"));
        }
        // Stopped processes start no others while the rest is killed.
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &left {
                process.signal(signal);
            }
        }
        sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn find(id: &str, record: Option<&Record>, keeper: Option<Identity>) -> BTreeSet<Identity> {
    let all = processes::all();
    let mut found = processes::marked(id, &all);
    if let Some(keeper) = keeper.filter(|keeper| keeper.is_alive()) {
        found.insert(keeper);
        found.extend(processes::descendants(keeper.pid, &all));
    }
    if let Some(record) = record.filter(|record| record.isolation == Isolation::Full) {
        found.extend(processes::of_user(record.account.uid, &all));
    }
    found
}

/// Removes the directory and gives the user id back. No process may be left.
pub(crate) fn remove_files(instance: &InstanceDir, record: Option<&Record>) -> Result<(), Failed> {
    crate::remove::remove_tree(instance.path())
        .during(format!("remove {}", instance.path().display()))?;
    match record {
        Some(record) if record.isolation == Isolation::Full => {
            UidClaims::default().release(record.account.uid, instance.path())
        }
        _ => Ok(()),
    }
}
