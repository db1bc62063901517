//! The ledger: every call and every step of every instance, with its time.
//!
//! Append-only lines of JSON in one file. When it is full it becomes the file before, and
//! the new one begins with what both add up to: so the sums are those of the whole life
//! of the group, while single lives are told only as far as the file goes back.

mod record;
mod report;
mod sums;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use instances::failed::{During as _, Failed};

pub(crate) use record::{CallRecord, Entry, Record};
pub(crate) use report::{print_json, print_text};
pub(crate) use sums::Sums;

const CURRENT: &str = "ledger.jsonl";
const BEFORE: &str = "ledger.before.jsonl";
const NEXT: &str = "ledger.next.jsonl";
/// Each of the two files has about so much at most.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Writes the ledger of one group; only the holder of the group's lock may.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: std::path::PathBuf,
    file: File,
    bytes: u64,
}

impl Ledger {
    pub(crate) fn open(directory: &Path) -> Result<Self, Failed> {
        let mut file = append(&directory.join(CURRENT)).during("open the ledger")?;
        let bytes = file.metadata().during("open the ledger")?.len();
        // A killed writer may have left half a line.
        if !ends_with_newline(&directory.join(CURRENT)) {
            file.write_all(b"\n").during("open the ledger")?;
        }
        Ok(Self { directory: directory.to_owned(), file, bytes })
    }

    /// Appends in one write.
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<(), Failed> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)
                .map_err(io::Error::from)
                .during("write the ledger")?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).during("write the ledger")?;
        self.bytes += lines.len() as u64;
        if self.bytes >= MAX_BYTES { self.turn() } else { Ok(()) }
    }

    fn turn(&mut self) -> Result<(), Failed> {
        let during = || "turn the ledger".to_owned();
        let at = |name: &str| self.directory.join(name);
        let sums = read(&self.directory)?;
        let last_ms = sums.last_ms();
        let carry = Record { at_ms: last_ms, entry: Entry::Carry { sums: sums.carried() } };
        let mut line = serde_json::to_vec(&carry).map_err(io::Error::from).during(during())?;
        line.push(b'\n');
        // Whoever reads meanwhile finds the old file or the new one.
        let _ = std::fs::remove_file(at(NEXT));
        let mut next = append(&at(NEXT)).during(during())?;
        next.write_all(&line).during(during())?;
        let _ = std::fs::remove_file(at(BEFORE));
        std::fs::hard_link(at(CURRENT), at(BEFORE)).during(during())?;
        std::fs::rename(at(NEXT), at(CURRENT)).during(during())?;
        self.file = next;
        self.bytes = line.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn ends_with_newline(path: &Path) -> bool {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let last = File::open(path).and_then(|mut file| {
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(last[0])
    });
    last.is_ok_and(|last| last == b'\n')
}

/// What the ledger adds up to. Lines that cannot be read, such as torn ones, are left out.
pub(crate) fn read(directory: &Path) -> Result<Sums, Failed> {
    let file = File::open(directory.join(CURRENT)).during("read the ledger")?;
    let mut sums = Sums::default();
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(record) = serde_json::from_slice(&line.during("read the ledger")?) {
            sums.add(record);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Step;

    fn step(at_ms: u64, number: u64, step: Step) -> Record {
        Record { at_ms, entry: Entry::Step { instance: format!("sim-{number}"), number, step } }
    }

    #[test]
    fn a_full_ledger_begins_anew_with_the_same_sums() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ledger = Ledger::open(dir.path()).expect("opened");
        let first = [
            step(1000, 1, Step::Created),
            step(1000, 2, Step::Created),
            step(3000, 1, Step::Running),
            step(9000, 1, Step::Gone),
        ];
        ledger.write(&first).expect("written");
        ledger.file.write_all(b"{\"at_ms\":").expect("torn");
        drop(ledger);
        let mut ledger = Ledger::open(dir.path()).expect("opened");
        ledger.turn().expect("turned");
        let later = [step(5000, 3, Step::Created), step(11_000, 2, Step::Gone)];
        ledger.write(&later).expect("written");
        let sums = read(dir.path()).expect("read");
        assert_eq!(sums.peak(), (2, 1000));
        let totals = sums.totals(12_000);
        // 8 s of the first, 10 s of the second, 7 s of the third that is there still.
        assert_eq!((totals.instances, totals.cost_ms, totals.alive), (3, 25_000, 1));
        assert!(dir.path().join(BEFORE).is_file());
    }
}
