//! One directory per job: log, result, socket, and the mark that it began.
//!
//! Log and result are preallocated, so that a job which fills the disk still ends with a
//! true result. A result counts only whole: it has its length and checksum in front.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use job::wire::Finished;
use prost::Message as _;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Pid, getpid, getsid};

use crate::Error;

/// How much of the log is sure to find room. tmpfs takes 0.85 ms to give 4 MiB.
const LOG_RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// How much room the result has for sure.
const RESULT_RESERVE_BYTES: u64 = 4096;
const LOG: &str = "log";
const RESULT: &str = "result";
const BEGAN: &str = "began";
/// Short, and bound with the directory as working directory: a socket's path may have
/// 107 bytes.
const SOCKET: &str = "s";

/// The files of one job that this process runs.
pub(crate) struct Store {
    dir: PathBuf,
    log: File,
    log_bytes: u64,
    /// The disk is full: the log ends here.
    log_cut: bool,
    result: File,
    pub(crate) socket: UnixListener,
}

/// What is there of a job already.
pub(crate) enum Existing {
    /// Nothing, or a directory of a job that never began.
    Nothing,
    /// A job that began.
    Job,
}

/// The directory of a job. `key` comes from outside and must be a plain name.
pub(crate) fn job_dir(base: &Path, key: &str) -> Result<PathBuf, Error> {
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if key.is_empty() || !plain {
        return Err(Error::new(format!("job key {key:?} is not letters, digits and dashes")));
    }
    Ok(base.join("jobs").join(key))
}

pub(crate) fn existing(dir: &Path) -> Existing {
    if dir.join(BEGAN).exists() || dir.join(RESULT).metadata().is_ok_and(|m| m.len() > 0) {
        Existing::Job
    } else {
        Existing::Nothing
    }
}

impl Store {
    /// Makes everything that the job will need, so that `go` only has to begin. This
    /// process's working directory becomes the job's.
    pub(crate) fn create(dir: &Path, log_limit_bytes: u64) -> Result<Self, Error> {
        let what = format!("cannot make the job directory {}", dir.display());
        Self::try_create(dir, log_limit_bytes).map_err(Error::io(&what))
    }

    fn try_create(dir: &Path, log_limit_bytes: u64) -> io::Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        std::env::set_current_dir(dir)?;
        let open = |name| {
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(name)
        };
        let (log, result) = (open(LOG)?, open(RESULT)?);
        reserve(&log, log_limit_bytes.min(LOG_RESERVE_BYTES))?;
        reserve(&result, RESULT_RESERVE_BYTES)?;
        let socket = UnixListener::bind(SOCKET)?;
        socket.set_nonblocking(true)?;
        Ok(Self { dir: dir.to_owned(), log, log_bytes: 0, log_cut: false, result, socket })
    }

    /// Marks that the job began. This process's own session tells what belongs to the job
    /// should this process be killed; a session that others share tells nothing.
    pub(crate) fn begin(&self) -> io::Result<()> {
        let own = getsid(None).is_ok_and(|session| session == getpid());
        let session = if own { getpid().as_raw_pid() } else { 0 };
        fs::write(BEGAN, session.to_string())
    }

    /// Appends to the log. A full disk cuts it, and does not stop the job.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.log_cut || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.log.write_at(rest, self.log_bytes) {
                // A part may find room where the whole does not.
                Ok(written @ 1..) => {
                    self.log_bytes += written as u64;
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.log_cut = true;
                    return;
                }
            }
        }
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    pub(crate) fn log_is_cut(&self) -> bool {
        self.log_cut
    }

    /// The checksum of the log as it is on disk.
    pub(crate) fn log_crc32(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut at = 0;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = self.log.read_at(&mut buffer, at) {
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        hasher.finalize()
    }

    pub(crate) fn log_reader(&self) -> io::Result<File> {
        self.log.try_clone()
    }

    pub(crate) fn finish(&self, finished: &Finished) -> io::Result<()> {
        self.result.write_all_at(&seal(finished), 0)
    }

    pub(crate) fn remove(&self) {
        remove(&self.dir);
    }
}

/// Removes a job's directory once nobody needs it any more.
pub(crate) fn remove(dir: &Path) {
    // The directory is this process's own working directory.
    let _ = std::env::set_current_dir("/");
    let _ = fs::remove_dir_all(dir);
}

/// The log of a job that some other process wrote.
pub(crate) fn open_log(dir: &Path) -> io::Result<File> {
    File::open(dir.join(LOG))
}

/// The result of a job, if it is there and whole.
pub(crate) fn read_result(dir: &Path) -> Option<Finished> {
    unseal(&fs::read(dir.join(RESULT)).ok()?)
}

/// The session that a job's processes were in.
pub(crate) fn read_session(dir: &Path) -> Option<Pid> {
    fs::read_to_string(dir.join(BEGAN)).ok()?.trim().parse().ok().and_then(Pid::from_raw)
}

/// Connects to the agent of a job, if it lives.
pub(crate) fn connect(dir: &Path) -> io::Result<UnixStream> {
    std::env::set_current_dir(dir)?;
    connect_here()
}

/// The same in the working directory.
pub(crate) fn connect_here() -> io::Result<UnixStream> {
    UnixStream::connect(SOCKET)
}

fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        // Not every file system can; the reserve is then missing, nothing else.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Length, checksum, message.
fn seal(finished: &Finished) -> Vec<u8> {
    let message = finished.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut sealed = length.to_be_bytes().to_vec();
    sealed.extend(crc32fast::hash(&message).to_be_bytes());
    sealed.extend(message);
    sealed
}

fn unseal(sealed: &[u8]) -> Option<Finished> {
    let (length, rest) = sealed.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let message = rest.get(..u32::from_be_bytes(*length) as usize).filter(|m| !m.is_empty())?;
    (crc32fast::hash(message) == u32::from_be_bytes(*checksum)).then_some(())?;
    Finished::decode(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_result_counts() {
        let finished = Finished { log_bytes: 7, log_crc32: 9, ..Finished::default() };
        let sealed = seal(&finished);
        assert_eq!(unseal(&sealed), Some(finished));
        for length in 0..sealed.len() {
            assert_eq!(unseal(&sealed[..length]), None, "{length} bytes");
        }
        let mut damaged = sealed;
        *damaged.last_mut().expect("not empty") ^= 1;
        assert_eq!(unseal(&damaged), None);
        assert_eq!(unseal(&[0; 64]), None);
    }

    #[test]
    fn keys_never_leave_the_directory() {
        let base = Path::new("/base");
        assert_eq!(job_dir(base, "abc-7").expect("plain"), Path::new("/base/jobs/abc-7"));
        for key in ["", ".", "..", "a/b", "../x", "a b"] {
            assert!(job_dir(base, key).is_err(), "{key}");
        }
    }
}
