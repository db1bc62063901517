//! What the process knows and writes down: a file of redb, 0600, one writer. Changes that
//! come at the same time share one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::Database;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::records::{AskRecord, BootsRecord, GroupRecord, InstanceRecord, JobRecord};
use super::room;
use super::tables::{Change, Found, Kind, Request, VERSION, check_version, read_all, write_loop};

/// Separates the parts of a key; in none of them.
const SEPARATOR: char = '\u{1f}';
/// Changes that may wait for the writer.
const QUEUE: usize = 1024;
/// How long a record may outlive what it tells of.
const REMOVED_WITHIN: Duration = Duration::from_secs(1);

/// State that cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another manager has it.
    #[error("{}: another mayfly uses this state; stop it, or give this one its own with --state-dir", .0.display())]
    InUse(PathBuf),
    /// It was written by a newer build.
    #[error(
        "{path}: written by a newer mayfly (layout {found}, this one knows {VERSION}); run that one, or drain with it before going back"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its layout.
        found: u64,
    },
    /// Anything else.
    #[error("{path}: {why}")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// The state of the whole process.
#[derive(Clone)]
pub(crate) struct State {
    path: PathBuf,
    requests: mpsc::Sender<Request>,
    found: Arc<Found>,
    /// Keys of all asks that are written down.
    asks: Arc<Mutex<BTreeSet<String>>>,
    /// Records that are over and still there.
    removals: Arc<Mutex<Vec<Change>>>,
    /// Something could not be written. The database takes nothing from then on.
    failed: CancellationToken,
}

impl State {
    /// Opens the state in a directory, or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join("state.redb");
        let broken = |why: String| StateError::Broken { path: path.display().to_string(), why };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| broken(error.to_string()))?;
        room::check(dir).map_err(broken)?;
        // redb would make the file readable for others.
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| broken(error.to_string()))?;
        let database = Database::create(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StateError::InUse(path.clone()),
            error => broken(error.to_string()),
        })?;
        check_version(&database, &path)?;
        let found = read_all(&database).map_err(|error| broken(error.to_string()))?;
        let (requests, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("state".into())
            .spawn(move || write_loop(&database, receiver))
            .map_err(|error| broken(error.to_string()))?;
        let asks = Arc::new(Mutex::new(found.asks.keys().cloned().collect()));
        let failed = CancellationToken::new();
        let found = Arc::new(found);
        Ok(Self { path, requests, found, asks, removals: Arc::default(), failed })
    }

    /// Groups that the last process had, by their keys.
    pub(crate) fn groups(&self) -> Vec<(String, GroupRecord)> {
        let records = self.found.groups.iter();
        records.filter_map(|(key, text)| Some((key.clone(), read_record(key, text)?))).collect()
    }

    /// Jobs of a group that were running when the last process ended.
    pub(crate) fn jobs(&self, runner: &str) -> Vec<JobRecord> {
        let records: Vec<(String, JobRecord)> = select(&self.found.jobs, runner);
        records.into_iter().map(|(_, job)| job).collect()
    }

    /// Instances of a runner that the last process knew, by id.
    pub(crate) fn instances(&self, runner: &str) -> Vec<(String, InstanceRecord)> {
        select(&self.found.instances, runner)
    }

    /// Asks for instances whose effect the last process had not seen.
    pub(crate) fn asks(&self, runner: &str) -> Vec<(String, AskRecord)> {
        select(&self.found.asks, runner)
    }

    /// Names of the asks that are written down now.
    pub(crate) fn ask_ids(&self, runner: &str) -> Vec<String> {
        let prefix = key(runner, "");
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        asks.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// A job begins on an instance: both facts in one transaction.
    pub(crate) async fn begin_job(
        &self,
        runner: &str,
        job: &JobRecord,
        instance: &InstanceRecord,
    ) -> Result<(), StateError> {
        self.write(vec![
            Change::put(Kind::Job, key(runner, &job.job.to_string()), job),
            Change::put(Kind::Instance, key(runner, &job.instance), instance),
        ])
        .await
    }

    /// A job waits for an instance.
    pub(crate) async fn put_job(&self, runner: &str, job: &JobRecord) -> Result<(), StateError> {
        self.write(vec![Change::put(Kind::Job, key(runner, &job.job.to_string()), job)]).await
    }

    pub(crate) fn remove_job(&self, runner: &str, job: u64) {
        self.remove(Change::remove(Kind::Job, key(runner, &job.to_string())));
    }

    pub(crate) async fn put_instance(
        &self,
        runner: &str,
        id: &str,
        instance: &InstanceRecord,
    ) -> Result<(), StateError> {
        self.write(vec![Change::put(Kind::Instance, key(runner, id), instance)]).await
    }

    /// Several instances in one transaction.
    pub(crate) async fn put_instances(
        &self,
        runner: &str,
        instances: &[(String, InstanceRecord)],
    ) -> Result<(), StateError> {
        let put = |(id, record): &(String, InstanceRecord)| {
            Change::put(Kind::Instance, key(runner, id), record)
        };
        self.write(instances.iter().map(put).collect()).await
    }

    pub(crate) async fn put_group(
        &self,
        group: &str,
        record: &GroupRecord,
    ) -> Result<(), StateError> {
        self.write(vec![Change::put(Kind::Group, group.to_owned(), record)]).await
    }

    pub(crate) fn remove_group(&self, group: &str) {
        self.remove(Change::remove(Kind::Group, group.to_owned()));
        self.remove(Change::remove(Kind::Boots, group.to_owned()));
    }

    /// How long instances of a group took under the last process.
    pub(crate) fn boots(&self, group: &str) -> Option<BootsRecord> {
        read_record(group, self.found.boots.get(group)?)
    }

    pub(crate) async fn put_boots(
        &self,
        group: &str,
        boots: &BootsRecord,
    ) -> Result<(), StateError> {
        self.write(vec![Change::put(Kind::Boots, group.to_owned(), boots)]).await
    }

    pub(crate) fn remove_instance(&self, runner: &str, id: &str) {
        self.remove(Change::remove(Kind::Instance, key(runner, id)));
    }

    pub(crate) async fn put_ask(
        &self,
        runner: &str,
        id: &str,
        ask: AskRecord,
    ) -> Result<(), StateError> {
        let key = key(runner, id);
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        self.write(vec![Change::put(Kind::Ask, key, &ask)]).await
    }

    pub(crate) fn remove_ask(&self, runner: &str, id: &str) {
        let key = key(runner, id);
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.remove(Change::remove(Kind::Ask, key));
    }

    /// What is over goes with the next write, or after a moment: a record too many costs
    /// the next process a question, and a commit costs every job its time.
    fn remove(&self, change: Change) {
        let mut removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        removals.push(change);
        if removals.len() == 1 {
            let state = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(REMOVED_WITHIN).await;
                state.settle().await;
            });
        }
    }

    /// Writes what waits to be written.
    pub(crate) async fn settle(&self) {
        // Also when there are none: others may be on their way to the file.
        if let Err(error) = self.write(Vec::new()).await {
            tracing::error!(%error, "cannot write the state");
        }
    }

    async fn write(&self, mut changes: Vec<Change>) -> Result<(), StateError> {
        let (sender, receiver) = oneshot::channel();
        let broken =
            |why: String| StateError::Broken { path: self.path.display().to_string(), why };
        let place = self.requests.reserve().await;
        let place = place.map_err(|_| broken("its writer has ended".into()))?;
        // Removals first: one of them may be of what is written anew. Nothing is waited for
        // between taking and sending them.
        changes.splice(0..0, {
            let mut removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *removals)
        });
        place.send((changes, sender));
        let why = match receiver.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => "its writer has ended".into(),
        };
        self.failed.cancel();
        Err(broken(why))
    }

    /// Cancelled once something could not be written: jobs may no longer be begun.
    pub(crate) fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// Runners of which there are jobs or instances, beside these: how many of each.
    pub(crate) fn others(&self, runners: &[String]) -> BTreeMap<String, (usize, usize)> {
        let mut others: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let runner_of = |key: &String| key.split(SEPARATOR).next().unwrap_or_default().to_owned();
        for key in self.found.jobs.keys() {
            others.entry(runner_of(key)).or_default().0 += 1;
        }
        for key in self.found.instances.keys() {
            others.entry(runner_of(key)).or_default().1 += 1;
        }
        others.retain(|runner, _| !runners.contains(runner));
        others
    }
}

fn key(runner: &str, name: &str) -> String {
    format!("{runner}{SEPARATOR}{name}")
}

/// Records of one runner, by the second part of their key. One that cannot be read is
/// left out and told: the rest still counts.
fn select<T: DeserializeOwned>(
    entries: &BTreeMap<String, String>,
    runner: &str,
) -> Vec<(String, T)> {
    let prefix = key(runner, "");
    let own = entries.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
    own.filter_map(|(key, text)| Some((key[prefix.len()..].to_owned(), read_record(key, text)?)))
        .collect()
}

fn read_record<T: DeserializeOwned>(key: &str, text: &str) -> Option<T> {
    serde_json::from_str(text)
        .map_err(|error| tracing::error!(key, %error, "a record of the state cannot be read"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64) -> JobRecord {
        JobRecord {
            job: id,
            token: "t".into(),
            job_key: format!("abc-{id}"),
            instance: "i".into(),
            slot: 0,
            failure_reasons: Vec::new(),
            overdue_s: 0,
            alone_after_ms: 0,
            debug_trace: false,
            lost: None,
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::open(dir.path()).expect("opened");
        let instance = InstanceRecord { uses: 2, ..InstanceRecord::default() };
        for (runner, id) in [("https://a|1", 7), ("https://a|12", 8), ("https://a|1", 9)] {
            state.begin_job(runner, &job(id), &instance).await.expect("written");
        }
        state.remove_job("https://a|1", 9);
        let instance = InstanceRecord { uses: 3, ..InstanceRecord::default() };
        state.put_instance("https://a|1", "i", &instance).await.expect("written");
        state.remove_job("https://a|12", 8);
        state.settle().await;
        drop(state);
        // The writer's thread ends with its last sender.
        let state = loop {
            match State::open(dir.path()) {
                Err(StateError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => break other.expect("opened"),
            }
        };
        assert_eq!(state.jobs("https://a|1"), [job(7)]);
        assert_eq!((state.jobs("https://a|2"), state.jobs("https://a|12")), (vec![], vec![]));
        assert_eq!(state.instances("https://a|1")[0].1.uses, 3);
    }

    #[tokio::test]
    async fn two_managers_never_share_it_and_others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::open(dir.path()).expect("opened");
        assert!(matches!(State::open(dir.path()), Err(StateError::InUse(_))));
        let mode = std::fs::metadata(&state.path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
