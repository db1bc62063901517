//! What the tests of every plugin share: waiting, and the processes of this machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LIMIT;

/// Asks every few milliseconds until there is an answer.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing happened within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A number of seconds that no other test sleeps.
pub(crate) fn unique_seconds() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    1_000_000 + u64::from(std::process::id()) * 1000 + next
}

/// Processes that sleep so long.
pub(crate) fn sleepers(seconds: u64) -> Vec<i32> {
    processes_with(&format!("sleep\x00{seconds}"))
}

/// Processes whose environment or command line contains `text`, zombies aside: theirs are
/// empty.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let has = |pid: i32, file: &str| {
        std::fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id().cast_signed())
        .filter(|pid| has(*pid, "environ") || has(*pid, "cmdline"))
        .collect()
}

pub(crate) fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
}
