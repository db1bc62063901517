//! One provider: its plugin under supervision, its books, and how it fares.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_plugin::host::{
    CallError, Launch, Plugin, StartFailure, Supervised, SupervisedStatus, find,
};
use mayfly_plugin::{ConnectInfo, Error, GroupInfo, InstanceStatus, Partial, Settings};

use crate::book::Book;
use crate::config::{Choice, Options};
use crate::cooling::Cooling;

/// From the start of the plugin's process to the answer of `Init`. GitLab Runner gives this
/// plugin's own start, `Init` and first `Update` a minute.
const START_LIMIT: Duration = Duration::from_secs(45);
/// How long a first start that fails is tried again.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(3);
/// Waiting for a plugin that is started again: a list need not, calls to instances do.
const UP_LIMIT: Duration = Duration::from_secs(2);
const AGAIN_LIMIT: Duration = Duration::from_secs(10);
/// A list that takes longer keeps those of the other providers from the host.
const LIST_LIMIT: Duration = Duration::from_secs(20);
/// How long a plugin that does not answer is not asked for its list, at first and at most.
const LIST_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Longest time for which a provider that fails is left alone, unless `cooldown` is longer.
const COOLDOWN_LIMIT: Duration = Duration::from_secs(10 * 60);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// What became of an ask for instances.
#[derive(Debug)]
pub(crate) enum Asked {
    /// So many of them come.
    Accepted(u32),
    /// None was asked for or accepted, and why.
    Refused(String),
    /// Nobody knows whether they come, and why.
    Unknown(String),
}

/// What is done with instances that are there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Delete,
    Suspend,
    Resume,
}

/// A provider of this group.
pub(crate) struct Provider {
    pub(crate) name: String,
    supervised: Supervised,
    max_instances: Option<u32>,
    call_timeout: Duration,
    fares: Mutex<Fares>,
}

/// How a provider fares, with all that is counted.
struct Fares {
    info: Option<GroupInfo>,
    book: Book,
    /// After asks that failed.
    cooling: Cooling,
    why_cooling: String,
    /// After lists that were not answered.
    silence: Cooling,
    /// Why the last list failed.
    unlisted: Option<String>,
}

impl Provider {
    /// Starts its plugin. Does not wait for it.
    pub(crate) fn start(
        choice: &Choice,
        options: &Options,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let name = choice.name.clone();
        let own = std::env::current_exe().ok();
        let binary = find(&choice.plugin, own.as_deref().and_then(Path::parent))
            .map_err(|error| Error::new(format!("provider {name}: {error}")))?;
        let mut launch = Launch::new(binary);
        (launch.start_limit, launch.init_limit) = (START_LIMIT, START_LIMIT);
        for (variable, value) in &choice.env {
            launch = launch.env(variable, value);
        }
        let config = serde_json::to_vec(&choice.config).unwrap_or_default();
        Ok(Self {
            name,
            supervised: Supervised::start(launch, config, settings.clone()),
            max_instances: choice.max_instances,
            call_timeout: options.call_timeout,
            fares: Mutex::new(Fares {
                info: None,
                book: Book::default(),
                cooling: Cooling::new(options.cooldown, COOLDOWN_LIMIT),
                why_cooling: String::new(),
                silence: Cooling::new(LIST_PAUSE.0, LIST_PAUSE.1),
                unlisted: Some("it was not asked for a list yet".into()),
            }),
        })
    }

    /// Waits for its first start; what it says of its group.
    pub(crate) async fn first_start(&self) -> Result<GroupInfo, Error> {
        let why = match tokio::time::timeout(START_LIMIT, self.up()).await {
            Ok(Ok(plugin)) => {
                let mut info = plugin.info().clone();
                info.max_size = info.max_size.min(self.max_instances.unwrap_or(u32::MAX));
                self.fares().info = Some(info.clone());
                return Ok(info);
            }
            Ok(Err(why)) => why,
            Err(_) => format!("its plugin did not start within {} s", START_LIMIT.as_secs()),
        };
        Err(Error::new(format!("provider {}: {why}", self.name)))
    }

    /// The plugin once it runs. A start that fails is tried again for a moment: plugins of a
    /// predecessor of this one, which was killed, may be about to end.
    async fn up(&self) -> Result<Arc<Plugin>, String> {
        let mut status = self.supervised.status();
        // An error is the end of supervision, which the status tells.
        let _ = status.wait_for(|status| !matches!(status, SupervisedStatus::Starting)).await;
        let is_up = |status: &SupervisedStatus| matches!(status, SupervisedStatus::Up(_));
        let _ = tokio::time::timeout(PREDECESSOR_LIMIT, status.wait_for(is_up)).await;
        match &*status.borrow() {
            SupervisedStatus::Up(plugin) => Ok(Arc::clone(plugin)),
            SupervisedStatus::Down(failure) => Err(first_line(failure)),
            _ => Err("its plugin was stopped".into()),
        }
    }

    /// Lists it anew. Where that fails the last list stays as it was.
    pub(crate) async fn list(&self) {
        if self.fares().silence.left(Instant::now()).is_some() {
            return;
        }
        let listed = match self.supervised.plugin("Update", UP_LIMIT).await {
            Ok(plugin) => plugin.update(LIST_LIMIT.min(self.call_timeout)).await,
            Err(error) => Err(error),
        };
        let now = Instant::now();
        let mut fares = self.fares();
        match listed {
            Ok(listed) => {
                if fares.book.listed().is_some() && fares.unlisted.is_some() {
                    tracing::info!(provider = self.name, "provider lists its instances again");
                }
                fares.book.list(listed, now);
                fares.silence.succeeded();
                fares.unlisted = None;
            }
            Err(error) => {
                if matches!(error, CallError::Deadline { .. }) {
                    fares.silence.failed(now);
                }
                let why = error.to_string();
                if fares.unlisted.is_none() {
                    tracing::warn!(
                        provider = self.name,
                        why,
                        "provider does not list its instances, its last list is kept"
                    );
                }
                fares.unlisted = Some(why);
            }
        }
    }

    /// Its instances as they were listed last, or why there was no list yet.
    pub(crate) fn listed(&self) -> Result<Vec<InstanceStatus>, Error> {
        let fares = self.fares();
        let listed = fares.book.listed().map(<[_]>::to_vec);
        listed.ok_or_else(|| {
            let why = fares.unlisted.as_deref().unwrap_or_default();
            Error::new(format!("provider {} has not listed its instances yet: {why}", self.name))
        })
    }

    /// Instances that exist or may come, and those that cost.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let fares = self.fares();
        (fares.book.instances(), fares.book.costing())
    }

    /// Asks for up to `n` instances, if it is up, has room and is not left alone.
    pub(crate) async fn ask(&self, n: u32) -> Asked {
        let (plugin, number, n) = match self.may_be_asked(n) {
            Ok(may) => may,
            Err(why) => return Asked::Refused(why),
        };
        let answer = plugin.increase(n, self.call_timeout).await;
        let now = Instant::now();
        let mut fares = self.fares();
        match answer {
            Ok(accepted) => {
                fares.book.refused(number, n - accepted);
                if accepted == n {
                    fares.cooling.succeeded();
                    return Asked::Accepted(accepted);
                }
                let why = format!("it accepted {accepted} of {n}");
                self.cool(&mut fares, now, why.clone());
                if accepted == 0 { Asked::Refused(why) } else { Asked::Accepted(accepted) }
            }
            Err(error) => {
                let why = error.to_string();
                self.cool(&mut fares, now, why.clone());
                if error.outcome_unknown() {
                    return Asked::Unknown(why);
                }
                fares.book.refused(number, n);
                Asked::Refused(why)
            }
        }
    }

    /// The plugin to ask, the number under which the ask is in the books, and for how many.
    fn may_be_asked(&self, n: u32) -> Result<(Arc<Plugin>, u64, u32), String> {
        let plugin = match &*self.supervised.status().borrow() {
            SupervisedStatus::Up(plugin) => Arc::clone(plugin),
            SupervisedStatus::Down(failure) => return Err(first_line(failure)),
            _ => return Err("its plugin is not there".into()),
        };
        let now = Instant::now();
        let mut fares = self.fares();
        if let Some(why) = &fares.unlisted {
            return Err(format!("it does not list its instances: {why}"));
        }
        if let Some(left) = fares.cooling.left(now) {
            let left = left.as_secs() + 1;
            return Err(format!("it is left alone for {left} s since {}", fares.why_cooling));
        }
        let most = fares.info.as_ref().map_or(0, |info| info.max_size);
        let room = most.saturating_sub(fares.book.instances());
        if room == 0 {
            return Err(format!("it is full: {} of {most}", fares.book.instances()));
        }
        let n = n.min(room);
        let number = fares.book.ask(n, now);
        Ok((plugin, number, n))
    }

    fn cool(&self, fares: &mut Fares, now: Instant, why: String) {
        let pause_s = fares.cooling.failed(now).as_secs_f32();
        tracing::warn!(provider = self.name, why, pause_s, "provider fails, it is left alone");
        fares.why_cooling = why;
    }

    /// Changes some of its instances.
    pub(crate) async fn change(
        &self,
        change: Change,
        ids: Vec<String>,
    ) -> Result<Partial, CallError> {
        let limit = self.call_timeout;
        match change {
            Change::Delete => {
                let plugin = self.plugin("Decrease").await?;
                let succeeded = plugin.decrease(ids, limit).await?;
                Ok(Partial { succeeded, error: None })
            }
            Change::Suspend => self.plugin("Suspend").await?.suspend(ids, limit).await,
            Change::Resume => self.plugin("Resume").await?.resume(ids, limit).await,
        }
    }

    pub(crate) async fn connect_info(&self, id: &str) -> Result<ConnectInfo, CallError> {
        self.plugin("ConnectInfo").await?.connect_info(id, self.call_timeout).await
    }

    pub(crate) async fn heartbeat(&self, id: &str) -> Result<(), CallError> {
        self.plugin("Heartbeat").await?.heartbeat(id, self.call_timeout).await
    }

    /// The plugin for a call to instances that are there; waits for one that is started
    /// again.
    async fn plugin(&self, call: &'static str) -> Result<Arc<Plugin>, CallError> {
        self.supervised.plugin(call, AGAIN_LIMIT).await
    }

    pub(crate) async fn stop(&self) {
        self.supervised.stop(SHUTDOWN_LIMIT).await;
    }

    fn fares(&self) -> MutexGuard<'_, Fares> {
        self.fares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first_line(failure: &StartFailure) -> String {
    failure.to_string().lines().next().unwrap_or_default().to_owned()
}
