//! One provider: its plugin under supervision, its books, and how it fares.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_plugin::host::{CallError, Plugin};
use mayfly_plugin::{ConnectInfo, Error, GroupInfo, InstanceStatus, Partial, Settings};

use crate::book::Book;
use crate::config::{Choice, Options};
use crate::cooling::Cooling;
use crate::memory::{Facts, MOST_INSTANCES, Remembered};
use crate::meter::Running;
use crate::underneath::{FirstStart, Underneath};

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
    underneath: Underneath,
    max_instances: Option<u32>,
    price_per_hour: f64,
    call_timeout: Duration,
    fares: Mutex<Fares>,
}

/// How a provider fares, with all that is counted.
struct Fares {
    /// Nothing before its first start, unless they are remembered.
    facts: Option<Facts>,
    book: Book,
    /// Whether the book's list is a guess.
    is_guessed: bool,
    /// After asks that failed.
    cooling: Cooling,
    why_cooling: String,
    /// After lists that were not answered.
    silence: Cooling,
    listing: Listing,
    /// Why lists fail, as the operator was told last.
    told: Option<String>,
}

/// How it went when it was asked for its list last.
enum Listing {
    NotAsked,
    Answered,
    Failed(String),
}

impl Provider {
    /// Starts its plugin. Does not wait for it. An error where it can never start.
    pub(crate) fn start(
        choice: &Choice,
        options: &Options,
        settings: &Settings,
        remembered: &Remembered,
    ) -> Result<Self, Error> {
        let name = choice.name.clone();
        let underneath = Underneath::start(choice, settings)
            .map_err(|error| Error::new(format!("provider {name}: {error}")))?;
        let accepted = underneath.fingerprint();
        Ok(Self {
            name,
            underneath,
            max_instances: choice.max_instances,
            price_per_hour: choice.price_per_hour.unwrap_or_default(),
            call_timeout: options.call_timeout,
            fares: Mutex::new(Fares {
                facts: remembered.facts.filter(|facts| facts.accepted == accepted),
                book: Book::new(remembered.listed()),
                is_guessed: false,
                cooling: Cooling::new(options.cooldown, COOLDOWN_LIMIT),
                why_cooling: String::new(),
                silence: Cooling::new(LIST_PAUSE.0, LIST_PAUSE.1),
                listing: Listing::NotAsked,
                told: None,
            }),
        })
    }

    /// Waits for its first start.
    pub(crate) async fn first_start(&self) -> FirstStart {
        let start = self.underneath.first_start().await;
        if let FirstStart::Up(plugin) = &start {
            self.fares().facts = Some(self.facts(plugin.info()));
        }
        start
    }

    /// The group goes on without it until it is up. Where no list of before is remembered
    /// it counts as having no instances: they may come later, but none may seem to go.
    pub(crate) fn begin_down(&self, why: String) {
        let mut fares = self.fares();
        let remembered = fares.book.listed().map(<[_]>::len);
        match remembered {
            Some(instances) => tracing::warn!(
                provider = self.name,
                why,
                instances,
                "provider is down, its instances are those of its last list"
            ),
            None => tracing::warn!(
                provider = self.name,
                why,
                "provider is down and nothing is remembered of it: it counts as having no \
                 instances until it lists them"
            ),
        }
        if remembered.is_none() {
            fares.book = Book::new(Some(Vec::new()));
            fares.is_guessed = true;
        }
        (fares.listing, fares.told) = (Listing::Failed(why.clone()), Some(why));
    }

    /// The most instances that it says it can have, within the operator's limit. Of one that
    /// never started only the limit is known.
    pub(crate) fn size(&self) -> u32 {
        self.size_by(self.fares().facts)
    }

    fn size_by(&self, facts: Option<Facts>) -> u32 {
        match (facts, self.max_instances) {
            (Some(facts), limit) => facts.max_size.min(limit.unwrap_or(u32::MAX)),
            (None, limit) => limit.unwrap_or(0),
        }
    }

    /// Whether it can suspend instances, as far as it is known.
    pub(crate) fn suspends(&self) -> bool {
        self.fares().facts.is_some_and(|facts| facts.suspends)
    }

    /// Whether its plugin is known to have accepted the configuration that it has now.
    pub(crate) fn was_accepted(&self) -> bool {
        self.fares().facts.is_some()
    }

    /// What the next plugin process is to know of it.
    pub(crate) fn remembered(&self) -> Remembered {
        let fares = self.fares();
        Remembered::new(fares.facts, fares.book.listed().filter(|_| !fares.is_guessed))
    }

    fn facts(&self, info: &GroupInfo) -> Facts {
        Facts {
            accepted: self.underneath.fingerprint(),
            max_size: info.max_size,
            suspends: info.suspend_resume,
        }
    }

    /// Lists it anew. Where that fails the last list stays as it was.
    pub(crate) async fn list(&self) {
        let limit = {
            let fares = self.fares();
            if fares.silence.left(Instant::now()).is_some() {
                return;
            }
            // Only at first: of one that is down for long each list would be late.
            if matches!(fares.listing, Listing::Failed(_)) { Duration::ZERO } else { UP_LIMIT }
        };
        let listed = match self.underneath.plugin("Update", limit).await {
            Ok(plugin) => {
                let listed = plugin.update(LIST_LIMIT.min(self.call_timeout)).await;
                listed.map(|listed| (self.facts(plugin.info()), listed))
            }
            Err(error) => Err(error),
        };
        match listed {
            Ok((facts, listed)) => self.has_listed(facts, listed),
            Err(error) => self.has_not_listed(&error),
        }
    }

    fn has_listed(&self, facts: Facts, listed: Vec<InstanceStatus>) {
        let mut fares = self.fares();
        if fares.told.take().is_some() {
            tracing::info!(provider = self.name, "provider is up and lists its instances");
        }
        let before = fares.book.listed().map_or(0, <[_]>::len);
        if before <= MOST_INSTANCES && listed.len() > MOST_INSTANCES {
            tracing::warn!(
                provider = self.name,
                instances = listed.len(),
                "provider has too many instances to remember them in state_file"
            );
        }
        fares.book.list(listed, Instant::now());
        fares.silence.succeeded();
        (fares.facts, fares.is_guessed) = (Some(facts), false);
        fares.listing = Listing::Answered;
    }

    fn has_not_listed(&self, error: &CallError) {
        let mut fares = self.fares();
        if matches!(error, CallError::Deadline { .. }) {
            fares.silence.failed(Instant::now());
        }
        let why = cause(error);
        if fares.book.listed().is_some() && fares.told.as_ref() != Some(&why) {
            tracing::warn!(
                provider = self.name,
                why,
                "provider does not list its instances, what was known of them is kept"
            );
            fares.told = Some(why.clone());
        }
        fares.listing = Listing::Failed(why);
    }

    /// Its instances as they are known, or why nothing is known of them yet.
    pub(crate) fn listed(&self) -> Result<Vec<InstanceStatus>, Error> {
        let fares = self.fares();
        let listed = fares.book.listed().map(<[_]>::to_vec);
        listed.ok_or_else(|| {
            let why = match &fares.listing {
                Listing::Failed(why) => why,
                Listing::NotAsked | Listing::Answered => "it was not asked for a list yet",
            };
            Error::new(format!("provider {} has not listed its instances yet: {why}", self.name))
        })
    }

    /// Whether nobody asked it for a list yet, or nothing is known of its instances.
    pub(crate) fn is_to_list(&self) -> bool {
        let fares = self.fares();
        matches!(fares.listing, Listing::NotAsked) || fares.book.listed().is_none()
    }

    /// Instances that exist or may come.
    pub(crate) fn instances(&self) -> u32 {
        self.fares().book.instances()
    }

    /// Instances that cost.
    pub(crate) fn running(&self) -> Running<'_> {
        let (provider, price_per_hour) = (&self.name, self.price_per_hour);
        Running { provider, instances: self.fares().book.costing(), price_per_hour }
    }

    /// Asks for up to `n` instances, if it is up, has room and is not left alone.
    pub(crate) async fn ask(&self, n: u32) -> Asked {
        let (plugin, number, n) = match self.may_be_asked(n).await {
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
    async fn may_be_asked(&self, n: u32) -> Result<(Arc<Plugin>, u64, u32), String> {
        let plugin = self.underneath.plugin("Increase", Duration::ZERO).await;
        let plugin = plugin.map_err(|error| cause(&error))?;
        let now = Instant::now();
        let mut fares = self.fares();
        match &fares.listing {
            Listing::NotAsked => return Err("it was not asked for a list yet".into()),
            Listing::Failed(why) => return Err(format!("it does not list its instances: {why}")),
            Listing::Answered => {}
        }
        if let Some(left) = fares.cooling.left(now) {
            let left = left.as_secs() + 1;
            return Err(format!("it is left alone for {left} s since {}", fares.why_cooling));
        }
        let most = self.size_by(fares.facts);
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
        self.underneath.plugin(call, AGAIN_LIMIT).await
    }

    pub(crate) async fn stop(&self) {
        self.underneath.stop(SHUTDOWN_LIMIT).await;
    }

    fn fares(&self) -> MutexGuard<'_, Fares> {
        self.fares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a list failed: of a plugin that is gone, how it went.
fn cause(error: &CallError) -> String {
    match error {
        CallError::Gone { message, .. } => message.clone(),
        other => other.to_string(),
    }
}
