//! Waiting for something that nobody announces.

use std::time::{Duration, Instant};

/// A duration, short to write.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Looks every few milliseconds until there is an answer; `None` when the time is over.
pub fn look_until<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something is so. Panics with its name when the time is over.
pub fn until(what: &str, timeout: Duration, mut is_so: impl FnMut() -> bool) {
    let waited = look_until(timeout, || is_so().then_some(()));
    assert!(waited.is_some(), "waited {timeout:?} in vain until {what}");
}
