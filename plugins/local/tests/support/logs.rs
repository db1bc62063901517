//! What plugins log, as their host hears it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{LIMIT, LOG_LEVEL};

/// What plugins log in this test process, from now on.
pub(crate) fn logs() -> &'static Mutex<String> {
    static LOGS: Mutex<String> = Mutex::new(String::new());
    struct Writer;
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
            logs.push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // A second call finds it done.
    let _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(LOG_LEVEL)
        .with_writer(|| Writer)
        .try_init();
    &LOGS
}

/// Waits until a plugin has logged a text.
pub(crate) async fn await_log(text: &str) {
    let deadline = Instant::now() + LIMIT;
    while !logs().lock().unwrap_or_else(PoisonError::into_inner).contains(text) {
        let logs = logs().lock().unwrap_or_else(PoisonError::into_inner);
        assert!(Instant::now() < deadline, "waited for {text:?} in:\n{logs}");
        drop(logs);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
