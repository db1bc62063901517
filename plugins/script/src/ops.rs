//! A provider that is told one operation at a time.
//!
//! `create`, `delete` and `list` must be offered. The rest has an answer without the
//! script: how to log in stands in the list, and health is what can be logged in to.

use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_plugin::{Error, Partial};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::answer::{Accepted, Entry, Group, Health, List, Login};
use crate::call::Caller;
use crate::failure::Failure;
use crate::script::Script;

/// The script and what is known of it.
pub(crate) struct Ops {
    caller: Caller,
    command: Script,
    batch: usize,
    /// Calls of `create` that are under way at a time.
    parallel: usize,
    no_connect: AtomicBool,
    no_heartbeat: AtomicBool,
}

impl Ops {
    pub(crate) fn new(caller: Caller, command: Script, batch: usize, parallel: usize) -> Self {
        let [no_connect, no_heartbeat] = [false, false].map(AtomicBool::new);
        Self { caller, command, batch, parallel, no_connect, no_heartbeat }
    }

    /// What the script says of the group; nothing where it has nothing to say.
    pub(crate) async fn init(&self, max_size: u32, connector: Value) -> Result<Group, Error> {
        let request = json!({"max_size": max_size, "connector": connector});
        match self.caller.ask("init", &self.command, request).await {
            Err(Failure::NotOffered) => Ok(Group::default()),
            result => result.map_err(|failure| failure.of("init")),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Entry>, Error> {
        let List(entries) = self
            .caller
            .ask("list", &self.command, json!({}))
            .await
            .map_err(|failure| failure.of("list"))?;
        Ok(entries)
    }

    /// Creates in batches, some of them at a time, until one of them fails.
    pub(crate) async fn create(&self, n: u32) -> Result<u32, Error> {
        let mut tokens = (0..n).map(|_| format!("{:016x}", rand::random::<u64>()));
        let (mut running, mut created, mut failed) = (JoinSet::new(), 0u32, None);
        loop {
            while failed.is_none() && running.len() < self.parallel {
                let batch: Vec<String> = tokens.by_ref().take(self.batch).collect();
                if batch.is_empty() {
                    break;
                }
                running.spawn(create(self.caller.clone(), self.command.clone(), batch));
            }
            let Some(result) = running.join_next().await else {
                break;
            };
            let (accepted, failure) = result.map_err(|error| Error::new(error.to_string()))?;
            created = created.saturating_add(accepted);
            if let Some(failure) = failure {
                tracing::error!(error = %failure, "cannot create all that was asked for");
                failed.get_or_insert(failure);
            }
        }
        match failed {
            Some(failure) if created == 0 => Err(failure.of("create")),
            _ => Ok(created.min(n)),
        }
    }

    pub(crate) async fn delete(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let accepted = self.change("delete", "deleted", instances).await?;
        match accepted.error {
            Some(error) if accepted.instances.is_empty() => {
                Err(Failure::Refused { message: error }.of("delete"))
            }
            Some(error) => {
                tracing::error!(error, "cannot delete all that was asked for");
                Ok(accepted.instances)
            }
            None => Ok(accepted.instances),
        }
    }

    pub(crate) async fn suspend(&self, instances: Vec<String>) -> Result<Partial, Error> {
        let Accepted { instances: succeeded, error } =
            self.change("suspend", "suspended", instances).await?;
        Ok(Partial { succeeded, error })
    }

    pub(crate) async fn resume(&self, instances: Vec<String>) -> Result<Partial, Error> {
        let Accepted { instances: succeeded, error } =
            self.change("resume", "resumed", instances).await?;
        Ok(Partial { succeeded, error })
    }

    async fn change(
        &self,
        operation: &'static str,
        key: &str,
        asked: Vec<String>,
    ) -> Result<Accepted, Error> {
        let request = json!({"instances": asked});
        let answer = self.caller.ask(operation, &self.command, request).await;
        let mut accepted = answer
            .and_then(|answer: Map<String, Value>| Accepted::read(answer, key))
            .map_err(|failure| match failure {
                Failure::NotOffered if operation != "delete" => Error::unsupported(operation),
                failure => failure.of(operation),
            })?;
        accepted.instances.retain(|id| asked.contains(id));
        Ok(accepted)
    }

    /// How to log in; `None` where only the list says it.
    pub(crate) async fn connect(&self, instance: &str) -> Result<Option<Login>, Error> {
        if self.no_connect.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.caller.ask("connect", &self.command, json!({"instance": instance})).await {
            Ok(login) => Ok(Some(login)),
            Err(Failure::NotOffered) => {
                self.no_connect.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(failure) => Err(failure.of("connect")),
        }
    }

    /// An instance is unfit only if the script says so: that it cannot be told now is no
    /// reason to give one up.
    pub(crate) async fn heartbeat(&self, instance: &str) -> Result<(), Error> {
        // Hosts take that for healthy.
        let not_offered = || Err(Error::unsupported("heartbeat"));
        if self.no_heartbeat.load(Ordering::Relaxed) {
            return not_offered();
        }
        let request = json!({"instance": instance});
        match self.caller.ask::<Health>("heartbeat", &self.command, request).await {
            Ok(Health { healthy: true, .. }) => Ok(()),
            Ok(Health { reason, .. }) => {
                tracing::warn!(instance, reason = reason.unwrap_or_default(), "unhealthy");
                Err(Error::unhealthy())
            }
            Err(Failure::NotOffered) => {
                self.no_heartbeat.store(true, Ordering::Relaxed);
                not_offered()
            }
            Err(failure) if failure.is_temporary() => {
                tracing::warn!(instance, error = %failure, "cannot tell whether it is healthy");
                Ok(())
            }
            Err(failure) => Err(failure.of("heartbeat")),
        }
    }
}

/// One call: how many it created, and what stopped the rest.
async fn create(caller: Caller, command: Script, tokens: Vec<String>) -> (u32, Option<Failure>) {
    let asked = tokens.len();
    let request = json!({"count": asked, "tokens": tokens});
    let answer = caller.ask("create", &command, request).await;
    match answer.and_then(|answer| Accepted::read(answer, "created")) {
        Ok(Accepted { instances, error }) => {
            if instances.len() > asked {
                tracing::warn!(asked, created = ?instances, "more were created than asked for");
            }
            let refused = error.map(|message| Failure::Refused { message });
            (u32::try_from(instances.len().min(asked)).unwrap_or(u32::MAX), refused)
        }
        Err(failure) => (0, Some(failure)),
    }
}
