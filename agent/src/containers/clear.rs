//! Removes what was made for a job, and what earlier jobs of its slot left.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::daemon::{Ask, Daemon, Fault, escape};
use super::{Job, warn};

/// The labels by which things are found: see `labels` of the engine.
const SLOT: [&str; 2] = ["mayfly.instance", "mayfly.slot"];
const JOB: &str = "mayfly.job";

impl Job<'_> {
    /// Everything of the job goes, and `remove`, a directory. What cannot be removed is told;
    /// the next job of the slot tries again.
    pub(super) async fn clear(&self, remove: &str) {
        let labels = &self.containers.labels;
        let of_job: BTreeMap<&str, &str> = [SLOT[0], SLOT[1], JOB]
            .into_iter()
            .filter_map(|key| Some((key, labels.get(key)?.as_str())))
            .collect();
        if let Err(fault) = remove_all(&self.daemon, &of_job, |_| true, Networks::Too).await {
            warn(&format!("WARNING: containers of the job are left: {fault}"));
        }
        if let Err(trouble) = self.take_back().await {
            warn(&format!("WARNING: {}", trouble.outcome().message));
        }
        // The helper that gave files back is one of them.
        let _ = remove_all(&self.daemon, &of_job, |_| true, Networks::Stay).await;
        self.make_room().await;
        match std::fs::remove_dir_all(remove) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn(&format!("WARNING: cannot remove {remove}: {error}"));
            }
            _ => {}
        }
    }

    /// A slot has one job at a time: what carries its labels and not this job's is left over.
    pub(super) async fn remove_leftovers(&self) {
        let labels = &self.containers.labels;
        let of_slot: BTreeMap<&str, &str> =
            SLOT.into_iter().filter_map(|key| Some((key, labels.get(key)?.as_str()))).collect();
        let own = labels.get(JOB).map(String::as_str);
        let is_old = |item: &Value| item["Labels"][JOB].as_str() != own;
        if let Err(fault) = remove_all(&self.daemon, &of_slot, is_old, Networks::Too).await {
            warn(&format!("WARNING: containers of earlier jobs are left: {fault}"));
        }
    }

    /// Removes a container, running or not, with its anonymous volumes.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Fault> {
        remove(&self.daemon, name).await
    }
}

/// What jobs of this instance left whose slots run none.
pub(super) async fn remove_orphans(
    daemon: &Daemon,
    instance: &str,
    busy: &[u32],
) -> Result<(), Fault> {
    let of_instance = BTreeMap::from([(SLOT[0], instance)]);
    let is_orphan = |item: &Value| {
        let slot = item["Labels"][SLOT[1]].as_str().and_then(|slot| slot.parse().ok());
        slot.is_none_or(|slot: u32| !busy.contains(&slot))
    };
    remove_all(daemon, &of_instance, is_orphan, Networks::Too).await
}

/// Whether networks go with the containers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Networks {
    Too,
    Stay,
}

async fn remove_all(
    daemon: &Daemon,
    labels: &BTreeMap<&str, &str>,
    which: impl Fn(&Value) -> bool,
    networks: Networks,
) -> Result<(), Fault> {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let filters = escape(&json!({ "label": labels }).to_string());
    let path = format!("/containers/json?all=1&filters={filters}");
    let listed = daemon.call(Ask::get(&path)).await?;
    let ids = |list: &Value| -> Vec<String> {
        let chosen = list.as_array().into_iter().flatten().filter(|item| which(item));
        chosen.filter_map(|item| Some(item["Id"].as_str()?.to_owned())).collect()
    };
    for id in ids(&listed) {
        remove(daemon, &id).await?;
    }
    if networks == Networks::Stay {
        return Ok(());
    }
    let path = format!("/networks?filters={filters}");
    let listed = daemon.call(Ask::get(&path)).await?;
    for id in ids(&listed) {
        let path = format!("/networks/{id}");
        match daemon.call(Ask::delete(&path)).await {
            Err(fault) if !fault.is(StatusCode::NOT_FOUND) => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

async fn remove(daemon: &Daemon, name: &str) -> Result<(), Fault> {
    let path = format!("/containers/{name}?force=1&v=1");
    match daemon.call(Ask::delete(&path)).await {
        // It is gone, or somebody removes it already.
        Err(fault) if fault.is(StatusCode::NOT_FOUND) || fault.is(StatusCode::CONFLICT) => Ok(()),
        other => other.map(drop),
    }
}
