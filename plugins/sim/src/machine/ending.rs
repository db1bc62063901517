//! The end of a machine: every process that it started, daemons included.

use std::collections::BTreeSet;
use std::path::Path;

use instances::failed::Failed;
use instances::processes::{self, Identity};

use super::MARKER;

/// Kills every process of the machine in this directory but this one, and returns when
/// none is left. They are found as descendants of `process`, which adopts orphans, and by
/// the variable in their environment.
pub(crate) fn end(directory: &Path, process: Option<Identity>) -> Result<(), Failed> {
    processes::end(&directory.display().to_string(), || find(directory, process))
}

fn find(directory: &Path, process: Option<Identity>) -> BTreeSet<Identity> {
    let all = processes::all();
    let mut found = processes::marked(MARKER, &directory.to_string_lossy(), &all);
    if let Some(process) = process.filter(|process| process.is_alive()) {
        found.insert(process);
        found.extend(processes::descendants(process.pid, &all));
    }
    found
}
