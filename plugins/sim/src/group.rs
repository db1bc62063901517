//! The provider's calls: what hosts ask, with everything that was told to go wrong.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mayfly_plugin::{
    BuildInfo, ConnectInfo, Error, GroupInfo, InstanceGroup, InstanceStatus, Partial, Protocol,
    Settings,
};
use tokio::sync::Notify;

use crate::access::Access;
use crate::cloud::{Chore, Cloud, Creation, now_ms};
use crate::config::{Config, Options};
use crate::fault::{Call, Kind, Refusal, Rule, When};
use crate::ledger::CallRecord;
use crate::machine;
use crate::store::Store;

/// How often it is looked for what others did: orders, processes that ended.
const LOOKS: Duration = Duration::from_millis(200);
/// The status of a process that was told to crash.
const CRASHED: i32 = 70;

/// The instance group of this plugin, empty until `init`.
#[derive(Default)]
pub(crate) struct SimGroup {
    sim: OnceLock<Arc<Sim>>,
}

struct Sim {
    options: Options,
    access: Access,
    cloud: Mutex<Cloud>,
    /// Calls that may be made now, and since when.
    allowance: Mutex<(f64, Instant)>,
    changed: Notify,
}

/// The rules that strike one call.
#[derive(Default)]
struct Struck {
    rule: Option<Rule>,
    lies: Vec<Rule>,
}

impl Struck {
    fn is(&self, kind: Kind) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.kind == kind)
    }

    fn strikes(&self, when: When) -> Option<&Rule> {
        self.rule.as_ref().filter(|rule| match rule.kind {
            Kind::Error | Kind::Hang | Kind::Slow | Kind::Crash => rule.when == when,
            Kind::Late => when == When::After,
            _ => false,
        })
    }

    /// How many of `asked` have an effect.
    fn taken(&self, asked: u32) -> u32 {
        self.rule.as_ref().map_or(asked, |rule| rule.taken(asked))
    }

    /// `by` of a rule of this kind, or zero.
    fn by(&self, kind: Kind) -> Duration {
        self.rule.as_ref().filter(|rule| rule.kind == kind).map(Rule::by).unwrap_or_default()
    }
}

impl SimGroup {
    fn sim(&self) -> Result<&Arc<Sim>, Error> {
        self.sim.get().ok_or_else(|| Error::new("not initialized: Init must succeed first"))
    }
}

impl InstanceGroup for SimGroup {
    type Config = Config;

    const BUILD: BuildInfo = mayfly_plugin::build_info!();

    async fn init(&self, config: Config, settings: Settings) -> Result<GroupInfo, Error> {
        let options = config.check()?;
        let access = Access::check(settings.connector)?;
        let store = Store::make(&options.state_dir)?;
        let lock = store.lock()?;
        let mut cloud = Cloud::open(store, lock)?;
        cloud.tell_opened(options.quota)?;
        let mut info =
            GroupInfo::new(format!("sim/{}", options.state_dir.display()), options.max_size);
        if options.times.suspend.is_some() {
            info = info.with_suspend_resume();
        }
        let sim = Arc::new(Sim {
            allowance: Mutex::new((options.calls_per_s.unwrap_or(0).into(), Instant::now())),
            options,
            access,
            cloud: Mutex::new(cloud),
            changed: Notify::new(),
        });
        sim.answer(Call::Init, 0, |_, _, _| Ok(((), 0))).await?;
        tokio::spawn(Arc::clone(&sim).run());
        self.sim.set(sim).map_err(|_| Error::new("already initialized"))?;
        Ok(info)
    }

    async fn update(&self) -> Result<Vec<InstanceStatus>, Error> {
        let list = |cloud: &mut Cloud, struck: &Struck, now_ms| {
            let listed = cloud.list(&struck.lies, now_ms);
            let count = count(&listed);
            Ok((listed, count))
        };
        self.sim()?.answer(Call::List, 0, list).await
    }

    async fn increase(&self, n: u32) -> Result<u32, Error> {
        let sim = self.sim()?;
        let create = |cloud: &mut Cloud, struck: &Struck, now_ms| {
            let creation = Creation {
                n: struck.taken(n),
                late_by: struck.by(Kind::Late),
                reuse_ids: struck.is(Kind::ReuseId),
            };
            cloud.create(&sim.options, creation, now_ms).map(|created| (created, created))
        };
        sim.answer(Call::Create, n, create).await
    }

    async fn decrease(&self, instances: Vec<String>) -> Result<Vec<String>, Error> {
        let sim = self.sim()?;
        let asked = count(&instances);
        let delete = |cloud: &mut Cloud, struck: &Struck, now_ms| {
            let taken = struck.taken(asked);
            let accepted = instances[..taken as usize].to_vec();
            cloud.delete(&sim.options, &accepted, struck.by(Kind::Stay), now_ms)?;
            Ok((accepted, taken))
        };
        sim.answer(Call::Delete, asked, delete).await
    }

    async fn connect_info(&self, instance: String) -> Result<ConnectInfo, Error> {
        let sim = self.sim()?;
        let look = |cloud: &mut Cloud, struck: &Struck, now_ms| {
            let gone = || Error::new(format!("instance {instance} is not running"));
            // An answer that leads nowhere is given of the dead, too.
            let is_wrong = struck.is(Kind::NoAddress) || struck.is(Kind::WinRm);
            let mut info = match cloud.running(&instance, now_ms) {
                Some(facts) if facts.has_ssh => {
                    let login = machine::login(&cloud.directory(&instance))?.ok_or_else(gone)?;
                    sim.access.connect_info(&login)
                }
                Some(facts) => sim.access.nowhere(facts.number),
                None if is_wrong => sim.access.nowhere(0),
                None => return Err(gone()),
            };
            if struck.is(Kind::NoAddress) {
                info = info.internal("").external("");
            }
            if struck.is(Kind::WinRm) {
                info.connector.protocol = Some(Protocol::WinRm);
            }
            Ok((info, 1))
        };
        sim.answer(Call::ConnectInfo, 1, look).await
    }

    async fn heartbeat(&self, instance: String) -> Result<(), Error> {
        let look = |cloud: &mut Cloud, _: &Struck, now_ms| match cloud.running(&instance, now_ms) {
            Some(_) => Ok(((), 1)),
            None => Err(Error::unhealthy()),
        };
        self.sim()?.answer(Call::Heartbeat, 1, look).await
    }

    async fn suspend(&self, instances: Vec<String>) -> Result<Partial, Error> {
        self.switch(Call::Suspend, &instances).await
    }

    async fn resume(&self, instances: Vec<String>) -> Result<Partial, Error> {
        self.switch(Call::Resume, &instances).await
    }
}

impl SimGroup {
    async fn switch(&self, call: Call, instances: &[String]) -> Result<Partial, Error> {
        let sim = self.sim()?;
        if sim.options.times.suspend.is_none() {
            return Err(Error::unsupported(call.as_str()));
        }
        let switch = |cloud: &mut Cloud, _: &Struck, now_ms| {
            let order = (instances, call == Call::Resume);
            let succeeded = cloud.switch(&sim.options, order, now_ms)?;
            let count = count(&succeeded);
            Ok((Partial { succeeded, error: None }, count))
        };
        sim.answer(call, count(instances), switch).await
    }
}

impl Sim {
    fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: counted, struck, carried out, written down. `act` returns the answer and
    /// how many instances it concerned.
    async fn answer<T>(
        self: &Arc<Self>,
        call: Call,
        asked: u32,
        act: impl FnOnce(&mut Cloud, &Struck, u64) -> Result<(T, u32), Error>,
    ) -> Result<T, Error> {
        let struck = self.strike(call)?;
        let record = |done: u32, error: Option<String>| {
            let kinds = struck.lies.iter().chain(&struck.rule).map(|rule| rule.kind).collect();
            CallRecord { call, asked, done, error, faults: kinds }
        };
        if let Some(rule) = struck.strikes(When::Before) {
            let failure = failure(rule);
            if failure.is_some() {
                self.cloud().tell_call(record(0, failure))?;
            }
            go_wrong(rule).await?;
        }
        let answer = {
            let mut cloud = self.cloud();
            let now_ms = now_ms();
            let mut chores = cloud.advance(now_ms)?;
            let answer = act(&mut cloud, &struck, now_ms);
            let late = struck.strikes(When::After).and_then(failure);
            cloud.tell_call(match &answer {
                Ok((_, done)) => record(*done, late),
                Err(error) => record(0, Some(error.to_string())),
            })?;
            chores.extend(cloud.advance(now_ms)?);
            self.carry_out(chores);
            answer
        };
        self.changed.notify_one();
        if let Some(rule) = struck.strikes(When::After) {
            go_wrong(rule).await?;
        }
        answer.map(|(answer, _)| answer)
    }

    /// What strikes the next call of this kind. An error if there were too many calls.
    fn strike(&self, call: Call) -> Result<Struck, Error> {
        let mut cloud = self.cloud();
        let count = cloud.count(call)?;
        if call != Call::Init && !self.is_allowed() {
            let error = Refusal::Throttling.message();
            let refused = Some(error.to_owned());
            cloud.tell_call(CallRecord {
                call,
                asked: 0,
                done: 0,
                error: refused,
                faults: vec![],
            })?;
            return Err(error.into());
        }
        let (age, seed) = (cloud.age(now_ms()), self.options.seed);
        let rules = (seed..).zip(&self.options.faults);
        let (lies, others): (Vec<Rule>, Vec<Rule>) = rules
            .filter(|(seed, rule)| rule.strikes(call, count, age, *seed))
            .map(|(_, rule)| rule.clone())
            .partition(|rule| rule.kind.is_lie());
        Ok(Struck { rule: others.into_iter().next(), lies })
    }

    /// A bucket of one second's calls.
    fn is_allowed(&self) -> bool {
        let Some(per_s) = self.options.calls_per_s.map(f64::from) else {
            return true;
        };
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let flowed = now.duration_since(allowance.1).as_secs_f64() * per_s;
        *allowance = ((allowance.0 + flowed).min(per_s), now);
        let is_allowed = allowance.0 >= 1.0;
        if is_allowed {
            allowance.0 -= 1.0;
        }
        is_allowed
    }

    /// Lets things happen at their time, whether somebody asks or not.
    async fn run(self: Arc<Self>) {
        loop {
            let pause = {
                let mut cloud = self.cloud();
                let now_ms = now_ms();
                match cloud.advance(now_ms) {
                    Ok(chores) => self.carry_out(chores),
                    Err(error) => tracing::error!(%error, "the simulation cannot go on"),
                }
                let next = cloud.next_ms(now_ms).map(|at| Duration::from_millis(at - now_ms));
                next.map_or(LOOKS, |next| next.min(LOOKS))
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn carry_out(self: &Arc<Self>, chores: Vec<Chore>) {
        for chore in chores {
            let sim = Arc::clone(self);
            match chore {
                Chore::Boot { id, directory } => {
                    tokio::spawn(async move {
                        let booted = machine::boot(&directory, &sim.access);
                        if let Err(error) = &booted {
                            tracing::error!(instance = id, %error, "cannot boot");
                            tokio::time::sleep(LOOKS).await;
                        }
                        sim.cloud().booted(&id, booted.ok());
                        sim.changed.notify_one();
                    });
                }
                Chore::End { id, directory, process } => {
                    tokio::task::spawn_blocking(move || {
                        let ended = machine::end(&directory, Some(process));
                        if let Err(error) = &ended {
                            tracing::error!(instance = id, %error, "cannot end, will try again");
                        }
                        sim.cloud().ended(&id, ended.is_ok());
                        sim.changed.notify_one();
                    });
                }
            }
        }
    }
}

/// What the ledger says of a call that a rule fails.
fn failure(rule: &Rule) -> Option<String> {
    match rule.kind {
        Kind::Error | Kind::Late => Some(rule.message()),
        Kind::Hang => Some("not answered".into()),
        Kind::Crash => Some("crashed".into()),
        _ => None,
    }
}

async fn go_wrong(rule: &Rule) -> Result<(), Error> {
    match rule.kind {
        Kind::Hang => std::future::pending().await,
        Kind::Slow => tokio::time::sleep(rule.by()).await,
        Kind::Error => {
            tokio::time::sleep(rule.by()).await;
            return Err(rule.message().into());
        }
        Kind::Crash => {
            tracing::error!("crashing, as told");
            std::process::exit(CRASHED);
        }
        _ => return Err(rule.message().into()),
    }
    Ok(())
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
