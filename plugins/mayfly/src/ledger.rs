//! The books in the state file: what the day has cost, and what is remembered of providers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::memory::Remembered;
use crate::meter::{Meter, Running};
use crate::state_file::StateFile;

/// The sums in the file may be so far behind: the next plugin charges for the time by itself.
const BEHIND_MS: u64 = 10_000;

/// The books, in memory and, where there is a file, on disk.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: Option<StateFile>,
    books: Books,
    written: Books,
    /// Why the file cannot be written.
    fault: Option<String>,
}

/// The file's contents. Files of before there were `providers` are read, too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Books {
    #[serde(flatten)]
    meter: Meter,
    #[serde(default)]
    providers: BTreeMap<String, Remembered>,
}

impl Ledger {
    /// Reads the file and becomes the only one who uses it.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let (file, books) = path.map(StateFile::open::<Books>).transpose()?.unzip();
        let books = books.unwrap_or_default();
        Ok(Self { file, written: books.clone(), books, fault: None })
    }

    /// What is remembered of a provider.
    pub(crate) fn remembered(&self, provider: &str) -> Remembered {
        self.books.providers.get(provider).cloned().unwrap_or_default()
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.books.meter
    }

    /// Why the file cannot be written, if it cannot.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Charges for the time since the last look; this runs and is known from now on.
    pub(crate) fn look(
        &mut self,
        running: &[Running<'_>],
        providers: BTreeMap<String, Remembered>,
    ) {
        let Some(file) = &self.file else { return };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.books.meter.look(now_ms, running);
        self.books.providers = providers;
        let is_new = self.books.meter.differs(&self.written.meter, BEHIND_MS)
            || self.books.providers != self.written.providers;
        if !is_new && self.fault.is_none() {
            return;
        }
        match file.write(&self.books) {
            Ok(()) => (self.written, self.fault) = (self.books.clone(), None),
            Err(why) => {
                if self.fault.is_none() {
                    tracing::error!(why, "cannot write down instances and what the day costs");
                }
                self.fault = Some(why);
            }
        }
    }
}
