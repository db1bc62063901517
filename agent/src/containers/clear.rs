//! Removes what was made for a job, and what earlier jobs of its slot left.

use std::collections::BTreeMap;

use hyper::StatusCode;
use job::ahead::LABEL;
use serde_json::{Value, json};

use super::daemon::{Ask, Daemon, Fault, escape};
use super::{Job, ahead, warn};

/// The labels by which things are found: see `labels` of the engine.
const SLOT: [&str; 2] = ["mayfly.instance", "mayfly.slot"];
const JOB: &str = "mayfly.job";

pub(super) const CONTAINERS: &str = "/containers/json?all=1&";
pub(super) const NETWORKS: &str = "/networks?";

impl Job<'_> {
    /// Everything of the job goes, what was made ahead of it too, and `remove`, a directory.
    /// What cannot be removed is told; the next job of the slot tries again.
    pub(super) async fn clear(&self, remove: &str) {
        let (of_slot, own) = (self.slot(), self.containers.labels.get(JOB).map(String::as_str));
        let is_own =
            |item: &Value| item["Labels"][JOB].as_str() == own || item["Labels"][LABEL].is_string();
        if let Err(fault) = remove_all(&self.daemon, &of_slot, is_own, Networks::Too).await {
            warn(&format!("WARNING: containers of the job are left: {fault}"));
        }
        if let Err(trouble) = self.take_back().await {
            warn(&format!("WARNING: {}", trouble.outcome().message));
        }
        // The helper that gave files back is one of them.
        let _ = remove_all(&self.daemon, &of_slot, is_own, Networks::Stay).await;
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
        let own = self.containers.labels.get(JOB).map(String::as_str);
        let is_old = |item: &Value| item["Labels"][JOB].as_str() != own;
        if let Err(fault) = remove_all(&self.daemon, &self.slot(), is_old, Networks::Too).await {
            warn(&format!("WARNING: containers of earlier jobs are left: {fault}"));
        }
    }

    /// Whether nothing of any job is on the slot.
    pub(super) async fn is_slot_clear(&self) -> Result<bool, Fault> {
        let filters = with_labels(&self.slot());
        let is_clear = list(&self.daemon, CONTAINERS, &filters).await?.is_empty();
        Ok(is_clear && list(&self.daemon, NETWORKS, &filters).await?.is_empty())
    }

    /// The labels of all that is made for jobs of this slot.
    fn slot(&self) -> BTreeMap<&str, &str> {
        let labels = &self.containers.labels;
        SLOT.into_iter().filter_map(|key| Some((key, labels.get(key)?.as_str()))).collect()
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
    remove_all(daemon, &of_instance, is_orphan, Networks::Too).await?;
    ahead::remove_abandoned(daemon).await;
    Ok(())
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
    let filters = with_labels(labels);
    let ids = |list: Vec<Value>| -> Vec<String> {
        let chosen = list.iter().filter(|item| which(item));
        chosen.filter_map(|item| Some(item["Id"].as_str()?.to_owned())).collect()
    };
    for id in ids(list(daemon, CONTAINERS, &filters).await?) {
        remove(daemon, &id).await?;
    }
    if networks == Networks::Stay {
        return Ok(());
    }
    for id in ids(list(daemon, NETWORKS, &filters).await?) {
        remove_network(daemon, &id).await?;
    }
    Ok(())
}

fn with_labels(labels: &BTreeMap<&str, &str>) -> Value {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({ "label": labels })
}

/// What the daemon has of a kind, [`CONTAINERS`] in any state or [`NETWORKS`], that passes its
/// filters.
pub(super) async fn list(
    daemon: &Daemon,
    kind: &str,
    filters: &Value,
) -> Result<Vec<Value>, Fault> {
    let path = format!("{kind}filters={}", escape(&filters.to_string()));
    match daemon.call(Ask::get(&path)).await? {
        Value::Array(list) => Ok(list),
        _ => Err(Fault::Broken("a list is none".into())),
    }
}

pub(super) async fn remove_network(daemon: &Daemon, id: &str) -> Result<(), Fault> {
    match daemon.call(Ask::delete(&format!("/networks/{id}"))).await {
        Err(fault) if !fault.is(StatusCode::NOT_FOUND) => Err(fault),
        _ => Ok(()),
    }
}

pub(super) async fn remove(daemon: &Daemon, name: &str) -> Result<(), Fault> {
    let path = format!("/containers/{name}?force=1&v=1");
    match daemon.call(Ask::delete(&path)).await {
        // It is gone, or somebody removes it already.
        Err(fault) if fault.is(StatusCode::NOT_FOUND) || fault.is(StatusCode::CONFLICT) => Ok(()),
        other => other.map(drop),
    }
}
