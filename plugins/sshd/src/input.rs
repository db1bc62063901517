//! What a client has sent to a command and the command has not read yet.
//!
//! The SSH window cannot hold a client back here: russh opens it again as data arrives.
//! So what a command does not read is kept, up to a limit in memory, beyond it in a file
//! without a name; the connection never waits for the command. Invariant: everything in
//! memory is older than everything in the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What is kept in memory for one command.
const MEMORY_LIMIT_BYTES: usize = 256 * 1024;
/// How much is read back from the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Both ends of the queue.
pub(crate) fn queue() -> (Input, Pending) {
    let shared = Arc::new(Shared::default());
    (Input(Arc::clone(&shared)), Pending(shared))
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    memory: VecDeque<Vec<u8>>,
    memory_bytes: usize,
    file: Option<File>,
    written: u64,
    read: u64,
    ended: bool,
    unwanted: bool,
}

/// The client's end; dropping it is the end of the input.
pub(crate) struct Input(Arc<Shared>);

impl Input {
    /// Adds what arrived. An error means that the disk did not take it: the input is no
    /// longer whole.
    pub(crate) fn push(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.state();
        if state.unwanted {
            return Ok(());
        }
        let spilled = state.read < state.written;
        if spilled || state.memory_bytes + bytes.len() > MEMORY_LIMIT_BYTES {
            state.spill(bytes)?;
        } else {
            state.keep(bytes);
        }
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_one();
    }
}

/// The command's end; dropping it discards the rest.
pub(crate) struct Pending(Arc<Shared>);

impl Pending {
    /// The next piece in order; `None` at the end of the input.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(chunk) = state.pop()? {
                    return Ok(Some(chunk));
                }
                if state.ended {
                    return Ok(None);
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *self.0.state() = State { unwanted: true, ..State::default() };
    }
}

impl State {
    /// Small pieces share an allocation, or their overhead would exceed the limit.
    fn keep(&mut self, bytes: &[u8]) {
        self.memory_bytes += bytes.len();
        match self.memory.back_mut() {
            Some(last) if last.len() + bytes.len() <= CHUNK_BYTES => last.extend(bytes),
            _ => self.memory.push_back(bytes.to_vec()),
        }
    }

    fn spill(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => nameless_file()?,
        };
        let result = file.write_all_at(bytes, self.written);
        self.file = Some(file);
        result?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pop(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(chunk) = self.memory.pop_front() {
            self.memory_bytes -= chunk.len();
            return Ok(Some(chunk));
        }
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(CHUNK_BYTES)];
        file.read_exact_at(&mut chunk, self.read)?;
        self.read += chunk.len() as u64;
        if self.read == self.written {
            (self.file, self.read, self.written) = (None, 0, 0);
        }
        Ok(Some(chunk))
    }
}

/// A file in the temporary directory that is gone when it is closed.
fn nameless_file() -> io::Result<File> {
    const ATTEMPTS: u32 = 100;
    for _ in 0..ATTEMPTS {
        let path = std::env::temp_dir().join(format!(".ssh-input-{:016x}", rand::random::<u64>()));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name in the temporary directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbered bytes, so that order and loss show.
    fn numbered(from: usize, n: usize) -> Vec<u8> {
        (from..from + n).map(|i| (i % 251) as u8).collect()
    }

    #[tokio::test]
    async fn order_is_kept_through_memory_and_file() {
        const STEP: usize = 30_000;
        let (input, mut pending) = queue();
        let (mut sent, mut got) = (0, Vec::new());
        for round in 0..200 {
            input.push(&numbered(sent, STEP)).expect("taken");
            sent += STEP;
            if round % 3 == 0 {
                got.extend(pending.next().await.expect("read").expect("something"));
            }
            assert!(input.0.state().memory_bytes <= MEMORY_LIMIT_BYTES);
        }
        drop(input);
        while let Some(chunk) = pending.next().await.expect("read") {
            got.extend(chunk);
        }
        assert!(got == numbered(0, sent), "{} of {sent} bytes", got.len());
    }

    #[tokio::test]
    async fn the_end_comes_after_the_rest() {
        let (input, mut pending) = queue();
        input.push(b"abc").expect("taken");
        drop(input);
        assert_eq!(pending.next().await.expect("read"), Some(b"abc".to_vec()));
        assert_eq!(pending.next().await.expect("read"), None);
    }

    #[tokio::test]
    async fn input_nobody_wants_is_discarded() {
        let (input, pending) = queue();
        drop(pending);
        for _ in 0..100 {
            input.push(&[0; 32 * 1024]).expect("taken");
        }
        assert_eq!(input.0.state().memory_bytes, 0);
        assert!(input.0.state().file.is_none());
    }
}
