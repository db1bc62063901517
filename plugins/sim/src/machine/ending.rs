//! The end of a machine: every process that it started, daemons included.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{self, Identity};
use crate::failed::{During as _, Failed};

/// How long killed processes may take to disappear.
const END_LIMIT: Duration = Duration::from_secs(30);
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Kills every process of the machine in this directory but this one, and returns when
/// none is left. They are found as descendants of `process`, which adopts orphans, and by
/// the variable in their environment.
pub(crate) fn end(directory: &Path, process: Option<Identity>) -> Result<(), Failed> {
    let this = std::process::id().cast_signed();
    let deadline = Instant::now() + END_LIMIT;
    let mut pause = PAUSES.0;
    loop {
        let mut left = find(directory, process);
        left.retain(|process| process.pid != this);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
            return Err(io::Error::other(format!("processes {pids:?} do not end")))
                .during(format!("end {}", directory.display()));
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

fn find(directory: &Path, process: Option<Identity>) -> BTreeSet<Identity> {
    let all = process::all();
    let mut found = process::marked(&directory.to_string_lossy(), &all);
    if let Some(process) = process.filter(|process| process.is_alive()) {
        found.insert(process);
        found.extend(process::descendants(process.pid, &all));
    }
    found
}
