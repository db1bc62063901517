//! An operation, from what is asked to a parsed answer: a turn, a run, another attempt
//! where the script asked for one.
//!
//! A call goes on to its own deadline also when the host does not wait any more: half an
//! operation would be worse than one whose answer nobody hears.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::answer;
use crate::failure::Failure;
use crate::run::{Run, Surroundings};
use crate::script::Script;

/// The version of requests and answers.
const VERSION: u32 = 1;
/// A script that goes on to ask for another attempt is believed to have failed.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Runs operations, so many at a time, and lists one at a time. Clones share their turns.
#[derive(Clone)]
pub(crate) struct Caller {
    shared: Arc<Shared>,
}

struct Shared {
    group: String,
    settings: Map<String, Value>,
    directory: Option<PathBuf>,
    timeouts: BTreeMap<&'static str, Duration>,
    surroundings: Surroundings,
    turns: Semaphore,
    /// Nothing that hangs may keep the host from seeing what is there.
    list_turn: Semaphore,
}

/// What a caller needs to know once.
pub(crate) struct Terms {
    pub(crate) group: String,
    pub(crate) settings: Map<String, Value>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) timeouts: BTreeMap<&'static str, Duration>,
    pub(crate) parallel: usize,
}

impl Caller {
    pub(crate) fn new(terms: Terms, surroundings: Surroundings) -> Self {
        let Terms { group, settings, directory, timeouts, parallel } = terms;
        let [turns, list_turn] = [parallel, 1].map(Semaphore::new);
        let shared =
            Shared { group, settings, directory, timeouts, surroundings, turns, list_turn };
        Self { shared: Arc::new(shared) }
    }

    /// Name of the group.
    pub(crate) fn group(&self) -> &str {
        &self.shared.group
    }

    /// Hides an instance's secret in logs and messages.
    pub(crate) fn hide(&self, secret: &str) {
        self.shared.surroundings.secrets.add_recent(secret);
    }

    /// Calls an operation with its name as the only argument.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        script: &Script,
        request: Value,
    ) -> Result<T, Failure> {
        let arguments = vec![OsString::from(operation)];
        let output = self.run(operation, script, arguments, request).await?;
        answer::parse(&output)
    }

    /// Runs a script with any arguments; what it printed.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        script: &Script,
        arguments: Vec<OsString>,
        request: Value,
    ) -> Result<Vec<u8>, Failure> {
        let shared = Arc::clone(&self.shared);
        let script = script.clone();
        let request = self.request(request);
        let running =
            tokio::spawn(
                async move { shared.attempt(operation, &script, &arguments, &request).await },
            );
        running.await.unwrap_or_else(|error| {
            Err(Failure::Own { step: "cannot run a script", why: error.to_string() })
        })
    }

    fn request(&self, asked: Value) -> Vec<u8> {
        let mut request = Map::new();
        request.insert("version".into(), VERSION.into());
        request.insert("group".into(), self.shared.group.clone().into());
        request.insert("settings".into(), self.shared.settings.clone().into());
        if let Value::Object(asked) = asked {
            request.extend(asked);
        }
        let mut bytes = Value::Object(request).to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

impl Shared {
    async fn attempt(
        &self,
        operation: &'static str,
        script: &Script,
        arguments: &[OsString],
        request: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let limit = self.timeouts.get(operation).copied().unwrap_or_default();
        let deadline = Instant::now() + limit;
        let directory = match &self.directory {
            Some(directory) => directory.as_path(),
            None => script.path().parent().unwrap_or(script.path()),
        };
        let turns = if operation == "list" { &self.list_turn } else { &self.turns };
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let Ok(turn) = timeout_at(deadline, turns.acquire()).await else {
                return Err(Failure::NoTurn { limit });
            };
            let run = Run { operation, script, directory, arguments, request, deadline, limit };
            let result = run.run(&self.surroundings).await;
            drop(turn);
            let again = Instant::now() + pause;
            match result {
                Err(Failure::Temporary { message }) if attempt < ATTEMPTS && again < deadline => {
                    tracing::warn!(operation, attempt, error = message, "trying again");
                    sleep_until(again).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
        Err(Failure::NoTurn { limit })
    }
}
