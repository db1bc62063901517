//! Two files of JSON lines: the current one, and the one before. Their sizes and ages bound
//! the history.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::Record;

const DIRECTORY: &str = "history";
const CURRENT: &str = "current.jsonl";
const BEFORE: &str = "before.jsonl";
/// Each of the two files has at most so much: some 50,000 records.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The current one becomes the one before after so long.
const TURNED_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);

pub(super) struct Writer {
    directory: PathBuf,
    file: File,
    bytes: u64,
    /// When its first record was written.
    since: Option<Timestamp>,
}

impl Writer {
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join(DIRECTORY);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let (file, bytes) = open_current(&directory)?;
        let since = first(&directory.join(CURRENT));
        Ok(Self { directory, file, bytes, since })
    }

    /// Appends in one write. What cannot be written is lost.
    pub(super) fn write(&mut self, records: impl Iterator<Item = Record>) {
        let mut lines = Vec::new();
        let mut latest = None;
        for record in records {
            latest = Some(record.at);
            if serde_json::to_writer(&mut lines, &record).is_ok() {
                lines.push(b'\n');
            }
        }
        let is_old = self
            .since
            .zip(latest)
            .is_some_and(|(since, latest)| latest.duration_since(since) > TURNED_AFTER);
        if is_old || self.bytes + lines.len() as u64 > MAX_BYTES {
            self.turn();
        }
        self.since = self.since.or(latest);
        if self.file.write_all(&lines).is_ok() {
            self.bytes += lines.len() as u64;
        }
    }

    fn turn(&mut self) {
        let (current, before) = (self.directory.join(CURRENT), self.directory.join(BEFORE));
        if std::fs::rename(current, before).is_ok()
            && let Ok((file, bytes)) = open_current(&self.directory)
        {
            self.file = file;
            self.bytes = bytes;
            self.since = None;
        }
    }
}

/// The time of a file's first record.
fn first(path: &Path) -> Option<Timestamp> {
    let line = BufReader::new(File::open(path).ok()?).split(b'\n').next()?.ok()?;
    serde_json::from_slice(&line).ok().map(|record: Record| record.at)
}

fn open_current(directory: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let file = options.open(directory.join(CURRENT))?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// All records, the oldest first. Lines that cannot be read, such as a torn last one, are
/// left out.
pub(crate) fn read(state_dir: &Path) -> io::Result<Vec<Record>> {
    let directory = state_dir.join(DIRECTORY);
    let mut records = Vec::new();
    for name in [BEFORE, CURRENT] {
        let file = match File::open(directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
        records.extend(lines.filter_map(|line| serde_json::from_slice(&line).ok()));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;

    fn record(job: u64) -> Record {
        let at = jiff::Timestamp::UNIX_EPOCH;
        Record { at, runner: "r".into(), event: Event::JobWaits { job } }
    }

    #[test]
    fn what_was_written_is_read_in_order_and_old_things_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut writer = Writer::open(dir.path()).expect("opened");
        writer.write([record(1), record(2)].into_iter());
        // A torn line is left out.
        writer.file.write_all(b"{\"at\":\n").expect("written");
        drop(writer);
        let mut writer = Writer::open(dir.path()).expect("opened");
        writer.write([record(3)].into_iter());
        let jobs = |dir: &Path| -> Vec<u64> {
            read(dir).expect("read").iter().filter_map(|record| record.event.job()).collect()
        };
        assert_eq!(jobs(dir.path()), [1, 2, 3]);
        for left in [vec![1, 2, 3, 4], vec![4, 5]] {
            writer.bytes = MAX_BYTES;
            writer.write([record(*left.last().expect("one"))].into_iter());
            assert_eq!(jobs(dir.path()), left);
        }
    }

    #[test]
    fn what_is_old_goes_although_it_is_little() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |day: i64, job| Record {
            at: Timestamp::from_second(day * 86_400).expect("a time"),
            ..record(job)
        };
        let jobs = || -> Vec<u64> {
            read(dir.path()).expect("read").iter().filter_map(|record| record.event.job()).collect()
        };
        for (day, job, left) in
            [(0, 1, vec![1]), (20, 2, vec![1, 2]), (40, 3, vec![1, 2, 3]), (80, 4, vec![3, 4])]
        {
            // A later process knows the age as well.
            let mut writer = Writer::open(dir.path()).expect("opened");
            writer.write([at(day, job)].into_iter());
            assert_eq!(jobs(), left);
        }
    }

    #[test]
    fn nothing_is_no_error_and_others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        assert!(read(dir.path()).expect("nothing").is_empty());
        let _writer = Writer::open(dir.path()).expect("opened");
        let mode =
            |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir.path().join(DIRECTORY)), 0o700);
        assert_eq!(mode(dir.path().join(DIRECTORY).join(CURRENT)), 0o600);
    }
}
