//! The end of an instance: first every process, then every file.

use std::collections::BTreeSet;

use instances::failed::{During as _, Failed};
use instances::processes::{self, Identity};

use crate::isolation::{Isolation, UidClaims};
use crate::record::{MARKER, Record};
use crate::registry::InstanceDir;

/// Deletes an instance of which anything may be missing already.
pub(crate) fn delete(instance: &InstanceDir) -> Result<(), Failed> {
    let record = instance.record().ok();
    end(instance.id(), record.as_ref(), instance.keeper())?;
    if instance.exists() {
        instance.set_gone()?;
    }
    remove_files(instance, record.as_ref())
}

/// Kills every process of an instance but this one, and returns when none is left. What
/// hangs in the kernel too long is tried again by the next update.
pub(crate) fn end(
    id: &str,
    record: Option<&Record>,
    keeper: Option<Identity>,
) -> Result<(), Failed> {
    processes::end(id, || find(id, record, keeper))
}

/// They are found in three ways, since each can be escaped alone: as descendants of the
/// keeper, by the instance's own user id, by the variable in their environment.
fn find(id: &str, record: Option<&Record>, keeper: Option<Identity>) -> BTreeSet<Identity> {
    let all = processes::all();
    let mut found = processes::marked(MARKER, id, &all);
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
