//! What a group looks like from outside, for operators and programs.

use std::time::Duration;

use scheduler::fleet::Instance;
use scheduler::time::Moment;
use scheduler::{Fleet, Limits, decide};
use serde::{Deserialize, Serialize};

use super::Group;

/// One group. Times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupStatus {
    /// The `[[runners]]` entry's name.
    pub(crate) runner: String,
    /// The most instances, and how many may cost money now.
    pub(crate) max_instances: u32,
    pub(crate) costing: u32,
    /// Of those, asked for and not seen yet.
    pub(crate) asked: u32,
    pub(crate) slots: SlotStatus,
    /// Instances that are wanted and not asked for, and why not.
    pub(crate) held_back: Option<HeldBack>,
    /// Why its plugin is not up.
    pub(crate) plugin_down: Option<String>,
    /// It only drains, for this reason.
    pub(crate) ends: Option<String>,
    pub(crate) boots: BootStatus,
    pub(crate) instances: Vec<InstanceStatus>,
}

/// Slots and those who want them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotStatus {
    pub(crate) used: u32,
    pub(crate) free: u32,
    pub(crate) coming: u32,
    /// Jobs that wait for one.
    pub(crate) waiting: u32,
    /// How many the policy wants idle.
    pub(crate) idle_target: u32,
}

/// How long instances take to come up, from being asked for; absent where too few are
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BootStatus {
    /// Of how many it is known.
    pub(crate) known: usize,
    pub(crate) p50_s: Option<f64>,
    pub(crate) p95_s: Option<f64>,
    /// When the next slot that is coming is likely to be there.
    pub(crate) next_slot_s: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeldBack {
    pub(crate) wanted: u32,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InstanceStatus {
    pub(crate) id: String,
    /// `creating`, `running`, `preparing`, `ready`, `draining` or `deleting`.
    pub(crate) phase: String,
    pub(crate) phase_s: f64,
    /// Whether its connection is up.
    pub(crate) connected: bool,
    /// Slots that run jobs, of how many.
    pub(crate) used: Vec<u32>,
    pub(crate) capacity: u32,
    /// Jobs that began on it, of how many (0: no limit).
    pub(crate) uses: u32,
    pub(crate) max_uses: u32,
    /// How long it has run no job, if it runs none.
    pub(crate) idle_s: Option<f64>,
    /// Why it gets no more jobs.
    pub(crate) drain_reason: Option<String>,
}

impl Group {
    /// How it stands now.
    pub(crate) fn status(&self) -> GroupStatus {
        let now = self.now();
        let tuning = self.tuning();
        let limits = &tuning.limits;
        let inner = self.lock();
        let plan = decide(&inner.fleet, tuning.schedule.at(now.wall), limits, now);
        let demand = plan.demand;
        let status = |instance: &Instance| {
            let connected = inner.connections.contains_key(instance.id());
            instance_status(instance, connected, limits, now.moment)
        };
        GroupStatus {
            runner: tuning.name.clone(),
            max_instances: limits.most_instances().0,
            costing: inner.fleet.costing(),
            asked: inner.fleet.outstanding(),
            slots: SlotStatus {
                used: demand.acquired,
                free: demand.free,
                coming: demand.coming,
                waiting: demand.waiting,
                idle_target: demand.idle_target,
            },
            held_back: plan
                .held_back
                .map(|(wanted, reason)| HeldBack { wanted, reason: reason.as_str().into() }),
            plugin_down: self.provider().down(),
            ends: inner.ends.map(|reason| reason.as_str().into()),
            boots: boot_status(&inner.fleet, limits, now.moment),
            instances: inner.fleet.instances().map(status).collect(),
        }
    }
}

fn boot_status(fleet: &Fleet, limits: &Limits, now: Moment) -> BootStatus {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    BootStatus {
        known: fleet.boots.all().count(),
        p50_s: seconds(fleet.boots.quantile(0.5)),
        p95_s: seconds(fleet.boots.quantile(0.95)),
        next_slot_s: seconds(fleet.next_slot_in(limits, now)),
    }
}

fn instance_status(
    instance: &Instance,
    connected: bool,
    limits: &Limits,
    now: Moment,
) -> InstanceStatus {
    let seconds = |since: Moment| now.since(since).as_secs_f64();
    let is_idle = instance.acquired() == 0 && instance.was_ready();
    InstanceStatus {
        id: instance.id().0.clone(),
        phase: instance.phase().as_str().into(),
        phase_s: seconds(instance.phase_since()),
        connected,
        used: instance.slots().collect(),
        capacity: limits.capacity,
        uses: instance.uses(),
        max_uses: limits.max_use_count,
        idle_s: is_idle.then(|| seconds(instance.idle_since())),
        drain_reason: instance.drain_reason().map(|reason| reason.as_str().into()),
    }
}
