//! The one loop of a group: wait, observe, decide, act.

use std::sync::Arc;
use std::time::Duration;

use mayfly_plugin::host::CallError;
use rand::RngExt as _;
use scheduler::fleet::{InstanceId, Origin, Phase, Seen};
use scheduler::plan::Reason;
use scheduler::policy::Policy;
use scheduler::time::Moment;
use scheduler::{decide, decide_end};
use tokio::sync::mpsc;

use super::{Group, Inner};
use crate::history::Event;
use crate::state::InstanceRecord;

/// First look after something was asked of the provider; doubles up to the configured
/// interval.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// Periods of policies are minutes.
const POLICY_INTERVAL: Duration = Duration::from_secs(60);

type Listed = (Moment, Result<Vec<(InstanceId, Seen)>, CallError>);

/// When the provider is listed next.
struct Looks {
    next: Moment,
    /// The interval while something is expected.
    fast: Duration,
    running: bool,
    failures: u32,
}

impl Group {
    /// Runs the group until it is detached.
    pub(crate) async fn control(self: Arc<Self>) {
        let (sender, mut lists) = mpsc::channel::<Listed>(1);
        let mut looks =
            Looks { next: Moment::default(), fast: FIRST_LOOK, running: false, failures: 0 };
        loop {
            let now = self.now();
            if !looks.running && now.moment >= looks.next {
                looks.running = true;
                self.look(sender.clone());
            }
            let plan = self.decide();
            let asked = self.act(&plan);
            if asked {
                looks.fast = FIRST_LOOK;
                looks.next = looks.next.min(now.moment.after(FIRST_LOOK));
            }
            let mut wake =
                if looks.running { now.moment.after(POLICY_INTERVAL) } else { looks.next };
            wake = plan.wake.map_or(wake, |at| wake.min(at));
            if self.tuning().schedule.changes() {
                wake = wake.min(now.moment.after(POLICY_INTERVAL));
            }
            let pause = wake.since(self.now().moment).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
                Some((begun, list)) = lists.recv() => self.observe(begun, list, &mut looks),
                () = self.ending.cancelled() => return,
            }
        }
    }

    fn look(self: &Arc<Self>, sender: mpsc::Sender<Listed>) {
        let group = Arc::clone(self);
        self.tasks.spawn(async move {
            let begun = group.now().moment;
            let list = group.provider().list().await;
            let _ = sender.send((begun, list)).await;
        });
    }

    /// Takes a list. One that failed changes nothing.
    fn observe(
        self: &Arc<Self>,
        begun: Moment,
        list: Result<Vec<(InstanceId, Seen)>, CallError>,
        looks: &mut Looks,
    ) {
        let now = self.now().moment;
        looks.running = false;
        let list = match list {
            Ok(list) => list,
            Err(error) => {
                looks.failures += 1;
                if looks.failures == 1 {
                    tracing::warn!(%error, "cannot list the instances");
                }
                let pause = FIRST_LOOK.saturating_mul(1 << looks.failures.min(12));
                let pause = pause.min(self.tuning().update_interval);
                // Groups that failed together do not ask together.
                looks.next = now.after(pause.mul_f64(rand::rng().random_range(0.5..=1.0)));
                return;
            }
        };
        looks.failures = 0;
        let expecting = {
            let mut inner = self.lock();
            let asks = inner.fleet.asks().len();
            let gone = inner.fleet.listed(&list, begun, now);
            for gone in gone {
                self.gone(&mut inner, &gone);
            }
            self.forget_asks(&inner, asks);
            self.write_down_new(&mut inner);
            let moving = |phase| matches!(phase, Phase::Creating | Phase::Deleting);
            let moving = inner.fleet.instances().any(|instance| moving(instance.phase()));
            moving || !inner.fleet.asks().is_empty()
        };
        if expecting {
            looks.next = now.after(looks.fast);
            looks.fast = (looks.fast * 2).min(self.tuning().update_interval_when_expecting);
        } else {
            looks.fast = FIRST_LOOK;
            looks.next = now.after(self.tuning().update_interval);
        }
    }

    /// What came of an ask is written down with the ask's end: the next process must not take
    /// it for what came of another, or for a stranger's.
    fn write_down_new(self: &Arc<Self>, inner: &mut Inner) {
        let Inner { fleet, records, .. } = inner;
        let mut new = Vec::new();
        for instance in fleet.instances().filter(|instance| instance.origin() == Origin::Asked) {
            records.entry(instance.id().clone()).or_insert_with(|| {
                let doomed = instance.doomed().map_or("", Reason::as_str).to_owned();
                let record = InstanceRecord { doomed, ..InstanceRecord::default() };
                new.push((instance.id().0.clone(), record.clone()));
                record
            });
        }
        if new.is_empty() {
            return;
        }
        let (state, key) = (self.state.clone(), self.key.clone());
        self.tasks.spawn(async move {
            if let Err(error) = state.put_instances(&key, &new).await {
                tracing::error!(%error, "cannot write down which instances are ours");
            }
        });
    }

    fn decide(&self) -> scheduler::Plan {
        let now = self.now();
        let tuning = self.tuning();
        let limits = &tuning.limits;
        let mut inner = self.lock();
        let nobody_waits = inner.fleet.waiting() + inner.fleet.reserved() == 0;
        let nothing_idle = Policy::default();
        let policy = match inner.ends {
            Some(reason) if nobody_waits => {
                let mut limits = limits.clone();
                if reason == Reason::ShuttingDown {
                    limits.deletion_retry = tuning.shutdown_deletion_interval;
                }
                return decide_end(&inner.fleet, &limits, reason, now);
            }
            // Jobs that were taken before still get their slots.
            Some(_) => &nothing_idle,
            None => tuning.schedule.at(now.wall),
        };
        let plan = decide(&inner.fleet, policy, limits, now);
        let bound = plan.held_back.map(|(_, reason)| reason);
        if bound != inner.told_bound {
            inner.told_bound = bound;
            if let Some((wanted, reason)) = plan.held_back {
                let reason = reason.as_str();
                let what = "creation of instances is held back";
                // Where no job waits for it, it happens with every job and matters little.
                if plan.demand.is_short() {
                    tracing::info!(wanted, reason, "{what}");
                    self.tell(Event::HeldBack { wanted, reason: reason.into() });
                } else {
                    tracing::debug!(wanted, reason, "{what}");
                }
            }
        }
        plan
    }
}
