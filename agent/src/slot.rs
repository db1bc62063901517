//! One lock per slot: a manager that comes back starts a new waiting agent, and the old
//! one, whose connection may hang for hours, makes room. A job that has ended and is not
//! told to the server yet holds a lock beside it: its slot is free, its instance still busy.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// Directory of the locks.
const SLOTS: &str = "slots";
/// How long an old waiting agent may take to go.
const MAKE_ROOM: Duration = Duration::from_secs(2);

/// A held slot; given back when the process ends.
pub(crate) struct Slot {
    file: File,
    path: PathBuf,
}

/// The mark of a job that is still to be told; removed when it is dropped.
pub(crate) struct Ending {
    _file: Option<File>,
    path: PathBuf,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why a slot cannot be had.
pub(crate) enum Taken {
    /// A job runs in it.
    Running(String),
    /// Something went wrong.
    Error(Error),
}

impl Slot {
    /// Takes the slot, from an agent that only waits if need be.
    pub(crate) fn take(base: &Path, number: u32) -> Result<Self, Taken> {
        let what = format!("cannot lock slot {number}");
        let file = open(base, number).map_err(|error| Taken::Error(Error::io(&what)(error)))?;
        let deadline = Instant::now() + MAKE_ROOM;
        let mut asked = false;
        // Someone who only asks whether a job runs there holds the lock for a moment.
        let mut looks = 0;
        while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            looks += 1;
            match read_holder(&file) {
                _ if looks <= 2 => {}
                Some(Holder::Job(key)) => return Err(Taken::Running(key)),
                // The lock tells that the process lives; only it can have written its id.
                Some(Holder::Waiting(pid)) if !asked => {
                    asked = true;
                    let _ = kill_process(pid, Signal::TERM);
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                return Err(Taken::Error(Error::io(&what)(errno.into())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let path = base.join(SLOTS).join(number.to_string());
        let slot = Self { file, path };
        slot.write(&format!("waiting {}", std::process::id()));
        Ok(slot)
    }

    /// From here on nobody may take the slot away.
    pub(crate) fn runs(&self, key: &str) {
        self.write(&format!("job {key}"));
    }

    /// The job has ended: the next one may come, while this process still has something to
    /// tell.
    pub(crate) fn ends(self) -> Ending {
        let path = self.path.with_extension(std::process::id().to_string());
        // Where this fails the instance looks free a moment too soon: to a manager that lost
        // its state, and nobody else asks.
        let file = open_file(&path).ok();
        if let Some(file) = &file {
            let _ = flock(file, FlockOperation::NonBlockingLockExclusive);
            let _ = file.write_all_at(b"job ended", 0);
        }
        Ending { _file: file, path }
    }

    fn write(&self, text: &str) {
        // Where this fails a newcomer waits in vain and says so: nothing is lost.
        let _ = self.file.set_len(0);
        let _ = self.file.write_all_at(text.as_bytes(), 0);
    }
}

/// The slots on which jobs run, or ended and are to be told.
pub(crate) fn busy(base: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(base.join(SLOTS)).into_iter().flatten().flatten();
    let mut busy: Vec<u32> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.split('.').next()?.parse().ok()?;
            let file = File::open(entry.path()).ok()?;
            // Held by a process that lives: a lock goes with its holder.
            let is_held = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
            (is_held && matches!(read_holder(&file), Some(Holder::Job(_)))).then_some(number)
        })
        .collect();
    busy.sort_unstable();
    busy.dedup();
    busy
}

enum Holder {
    Waiting(Pid),
    Job(String),
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut buffer = [0; 256];
    let length = file.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    match text.split_once(' ')? {
        ("waiting", pid) => pid.parse().ok().and_then(Pid::from_raw).map(Holder::Waiting),
        ("job", key) => Some(Holder::Job(key.to_owned())),
        _ => None,
    }
}

fn open(base: &Path, number: u32) -> io::Result<File> {
    let dir = base.join(SLOTS);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    open_file(&dir.join(number.to_string()))
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
