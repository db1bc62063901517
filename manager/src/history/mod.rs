//! What happened and why: append-only, bounded, apart from the recovery state. It may lose
//! its tail, and nothing but explanations depends on it.

mod file;
mod record;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

pub(crate) use file::read;
pub(crate) use record::{Event, Record};

/// Records that may wait for the writer; more are lost.
const QUEUE: usize = 4096;
/// Records that come within this time are written together.
const GATHER: Duration = Duration::from_millis(200);
/// How long an ending waits for the last ones.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Takes down what happens. Never waits.
#[derive(Clone, Debug)]
pub(crate) struct History {
    sender: Option<SyncSender<Message>>,
}

enum Message {
    Record(Record),
    /// Everything before it is to be written now.
    Flush(SyncSender<()>),
}

impl History {
    /// Writes into a directory of its own below this one. Where that is not possible, a
    /// warning is all that happens: jobs matter more.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let writer = match file::Writer::open(state_dir) {
            Ok(writer) => writer,
            Err(error) => {
                tracing::warn!(%error, "no history is kept: explanations will be missing");
                return Self { sender: None };
            }
        };
        let (sender, messages) = sync_channel(QUEUE);
        let write = move || keep(writer, &messages);
        let thread = std::thread::Builder::new().name("history".into()).spawn(write);
        Self { sender: thread.is_ok().then_some(sender) }
    }

    /// Writes what was told so far.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if let Some(sender) = &self.sender
            && sender.try_send(Message::Flush(done)).is_ok()
        {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }

    /// Takes down what happened to a runner's jobs or instances.
    pub(crate) fn tell(&self, runner: &str, event: Event) {
        if let Some(sender) = &self.sender {
            let at = jiff::Timestamp::now();
            // A full queue loses the newest: they say the same as those before.
            let record = Record { at, runner: runner.to_owned(), event };
            let _ = sender.try_send(Message::Record(record));
        }
    }
}

fn keep(mut writer: file::Writer, messages: &Receiver<Message>) {
    while let Ok(first) = messages.recv() {
        if matches!(first, Message::Record(_)) {
            std::thread::sleep(GATHER);
        }
        let mut flushed = Vec::new();
        let records = std::iter::once(first).chain(messages.try_iter());
        let records = records.filter_map(|message| match message {
            Message::Record(record) => Some(record),
            Message::Flush(done) => {
                flushed.push(done);
                None
            }
        });
        writer.write(records);
        for done in flushed {
            let _ = done.send(());
        }
    }
}
