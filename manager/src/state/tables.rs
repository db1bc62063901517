//! The tables on disk: their layout, one reading of all, and the one who writes.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::store::StateError;

/// Version of the layout. A file of a newer one is refused: what it holds may be jobs.
pub(super) const VERSION: u64 = 2;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const JOBS: TableDefinition<'_, &str, &str> = TableDefinition::new("jobs");
const INSTANCES: TableDefinition<'_, &str, &str> = TableDefinition::new("instances");
const ASKS: TableDefinition<'_, &str, &str> = TableDefinition::new("asks");
const GROUPS: TableDefinition<'_, &str, &str> = TableDefinition::new("groups");
const BOOTS: TableDefinition<'_, &str, &str> = TableDefinition::new("boots");
/// What a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Job,
    Instance,
    Ask,
    Group,
    Boots,
}

impl Kind {
    fn table(self) -> TableDefinition<'static, &'static str, &'static str> {
        match self {
            Self::Job => JOBS,
            Self::Instance => INSTANCES,
            Self::Ask => ASKS,
            Self::Group => GROUPS,
            Self::Boots => BOOTS,
        }
    }
}

/// One change of one record.
pub(super) struct Change {
    kind: Kind,
    key: String,
    /// `None` removes it.
    value: Option<String>,
}

impl Change {
    pub(super) fn put(kind: Kind, key: String, record: &impl Serialize) -> Self {
        Self { kind, key, value: Some(serde_json::to_string(record).unwrap_or_default()) }
    }

    pub(super) fn remove(kind: Kind, key: String) -> Self {
        Self { kind, key, value: None }
    }
}

pub(super) type Request = (Vec<Change>, oneshot::Sender<Result<(), String>>);

/// What was there at the start.
#[derive(Default)]
pub(super) struct Found {
    pub(super) jobs: BTreeMap<String, String>,
    pub(super) instances: BTreeMap<String, String>,
    pub(super) asks: BTreeMap<String, String>,
    pub(super) groups: BTreeMap<String, String>,
    pub(super) boots: BTreeMap<String, String>,
}

pub(super) fn write_loop(database: &Database, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        let mut batch = vec![first];
        while let Ok(next) = requests.try_recv() {
            batch.push(next);
        }
        let changes = batch.iter().flat_map(|(changes, _)| changes);
        let result = commit(database, changes).map_err(|error| error.to_string());
        for (_, answer) in batch {
            let _ = answer.send(result.clone());
        }
    }
}

fn commit<'a>(
    database: &Database,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut changes: Vec<&Change> = changes.collect();
    // Each table is opened once, and only if it changes: an open one costs pages.
    changes.sort_by_key(|change| change.kind);
    for of_table in changes.chunk_by(|a, b| a.kind == b.kind) {
        let mut table = transaction.open_table(of_table[0].kind.table())?;
        for Change { key, value, .. } in of_table {
            match value {
                Some(value) => drop(table.insert(key.as_str(), value.as_str())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn check_version(database: &Database, path: &Path) -> Result<(), StateError> {
    let version = || -> Result<u64, redb::Error> {
        let transaction = database.begin_write()?;
        let version = {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("version")?.map(|version| version.value());
            // Layout 1 had no groups.
            if found.is_none_or(|found| found < VERSION) {
                meta.insert("version", VERSION)?;
            }
            found.unwrap_or(VERSION)
        };
        transaction.open_table(JOBS)?;
        transaction.open_table(INSTANCES)?;
        transaction.open_table(ASKS)?;
        transaction.open_table(GROUPS)?;
        transaction.open_table(BOOTS)?;
        transaction.commit()?;
        Ok(version)
    };
    let path = path.display().to_string();
    match version() {
        Ok(found) if found > VERSION => Err(StateError::Newer { path, found }),
        Ok(_) => Ok(()),
        Err(error) => Err(StateError::Broken { path, why: error.to_string() }),
    }
}

pub(super) fn read_all(database: &Database) -> Result<Found, redb::Error> {
    let transaction = database.begin_read()?;
    let read = |table: TableDefinition<'_, &str, &str>| {
        let table = transaction.open_table(table)?;
        let mut entries = BTreeMap::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            entries.insert(key.value().to_owned(), value.value().to_owned());
        }
        Ok::<_, redb::Error>(entries)
    };
    Ok(Found {
        jobs: read(JOBS)?,
        instances: read(INSTANCES)?,
        asks: read(ASKS)?,
        groups: read(GROUPS)?,
        boots: read(BOOTS)?,
    })
}
