//! What is to be done, each entry with its reason. The only door to the provider.

use crate::fleet::{AskId, InstanceId, Vacant};
use crate::time::Moment;

/// Why a plan entry exists, or why something wanted is not in it. Closed and stable: it
/// serves explanations, JSON, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Jobs that were taken wait for a slot.
    JobsWaiting,
    /// The policy wants more idle slots.
    IdleTarget,
    /// Idle beyond the policy's idle time, and not needed for its idle count.
    IdleTooLong,
    /// It has run as many jobs as it may.
    MaxUseCount,
    /// It could not be prepared for jobs.
    PreparationFailed,
    /// It did not come up, or was not prepared, within its deadline.
    BootDeadline,
    /// Its connection is lost and does not come back.
    Unreachable,
    /// The provider gave up on it; it may still cost money.
    ReportedTimeout,
    /// It was there before this manager, and nothing is known of it.
    Unrecorded,
    /// There are more instances than the limit allows (any more).
    OverLimit,
    /// The runner ends and is told to delete its instances.
    ShuttingDown,
    /// A slot of it did not take a job, although its connection is up.
    SlotFailed,
    /// An operator asked for it.
    Operator,
    /// The provider takes it away, or suspended it.
    Interrupted,
    /// The configuration asks for other instances than this one, or for none any more.
    Outdated,
    /// Bound: `max_instances`.
    MaxInstances,
    /// Bound: the most that the provider's group allows.
    ProviderMaxSize,
    /// Bound: `scale_throttle`.
    ScaleThrottle,
    /// Bound: instances failed to come up; creation waits, then tries one.
    BootFailures,
    /// Bound: the provider's calls fail; they wait.
    CallsFailing,
    /// Bound: instances take longer to come up than a job may wait.
    BootsTooSlow,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::JobsWaiting,
        Self::IdleTarget,
        Self::IdleTooLong,
        Self::MaxUseCount,
        Self::PreparationFailed,
        Self::BootDeadline,
        Self::Unreachable,
        Self::ReportedTimeout,
        Self::Unrecorded,
        Self::OverLimit,
        Self::ShuttingDown,
        Self::SlotFailed,
        Self::Operator,
        Self::Interrupted,
        Self::Outdated,
        Self::MaxInstances,
        Self::ProviderMaxSize,
        Self::ScaleThrottle,
        Self::BootFailures,
        Self::CallsFailing,
        Self::BootsTooSlow,
    ];

    /// The reason of a word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// What it means, for people; goes on after "because" or a colon.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::JobsWaiting => "jobs wait for a slot",
            Self::IdleTarget => "the policy wants more idle slots",
            Self::IdleTooLong => "it was idle for longer than idle_time and is not needed",
            Self::MaxUseCount => "max_use_count jobs have run on it",
            Self::PreparationFailed => "it cannot be made ready for jobs",
            Self::BootDeadline => "it did not become ready in time",
            Self::Unreachable => "its connection is lost and did not come back",
            Self::ReportedTimeout => "the provider gave up on it",
            Self::Unrecorded => "it was there before, and nothing is known of it",
            Self::OverLimit => "there are more instances than max_instances allows",
            Self::ShuttingDown => "the runner ends, and its instances with it",
            Self::SlotFailed => "it failed to take jobs, or to end one",
            Self::Operator => "an operator asked for it",
            Self::Interrupted => "the provider takes it away",
            Self::Outdated => "the configuration asks for others",
            Self::MaxInstances => "max_instances is reached",
            Self::ProviderMaxSize => "the provider's group allows no more",
            Self::ScaleThrottle => "scale_throttle lets no more through now",
            Self::BootFailures => "instances failed to come up: one is tried after a pause",
            Self::CallsFailing => "the provider's calls fail: the next is made after a pause",
            Self::BootsTooSlow => {
                "instances take longer to come up than instance_acquire_timeout lets a job wait"
            }
        }
    }

    /// The word in explanations, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobsWaiting => "jobs_waiting",
            Self::IdleTarget => "idle_target",
            Self::IdleTooLong => "idle_too_long",
            Self::MaxUseCount => "max_use_count",
            Self::PreparationFailed => "preparation_failed",
            Self::BootDeadline => "boot_deadline",
            Self::Unreachable => "unreachable",
            Self::ReportedTimeout => "reported_timeout",
            Self::Unrecorded => "unrecorded",
            Self::OverLimit => "over_limit",
            Self::ShuttingDown => "shutting_down",
            Self::SlotFailed => "slot_failed",
            Self::Operator => "operator",
            Self::Interrupted => "interrupted",
            Self::Outdated => "outdated",
            Self::MaxInstances => "max_instances",
            Self::ProviderMaxSize => "provider_max_size",
            Self::ScaleThrottle => "scale_throttle",
            Self::BootFailures => "boot_failures",
            Self::CallsFailing => "calls_failing",
            Self::BootsTooSlow => "boots_too_slow",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the provider for `n` more instances, in one call.
    Create {
        /// How many.
        n: u32,
        /// What they are for.
        reason: Reason,
    },
    /// Make a running instance ready for jobs.
    Prepare {
        /// Which one.
        id: InstanceId,
    },
    /// Give it no more jobs.
    Drain {
        /// Which one.
        id: InstanceId,
        /// Why.
        reason: Reason,
    },
    /// Ask the provider to delete instances, in one call. They hold no job: only the
    /// fleet can say so.
    Delete {
        /// Which ones, and why each.
        instances: Vec<(Vacant, Reason)>,
    },
    /// Count an ask for instances no longer: what has not shown up by now does not come.
    GiveUp {
        /// Which one.
        ask: AskId,
    },
}

/// The numbers that a plan was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Slots that run jobs.
    pub acquired: u32,
    /// Jobs that wait for a slot.
    pub waiting: u32,
    /// Idle slots that the policy wants.
    pub idle_target: u32,
    /// Free slots of ready instances.
    pub free: u32,
    /// Slots of instances that are coming.
    pub coming: u32,
    /// Instances that may cost money, asked-for ones included.
    pub instances: u32,
}

impl Demand {
    /// Whether jobs wait for which no slot is free or coming.
    pub fn is_short(&self) -> bool {
        self.waiting > self.free + self.coming
    }
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    /// In the order in which they are to be done.
    pub steps: Vec<Step>,
    /// Instances that are wanted but not created, and the limit that is in the way.
    pub held_back: Option<(u32, Reason)>,
    /// What it was made from.
    pub demand: Demand,
    /// When there may be something to do although nothing happened.
    pub wake: Option<Moment>,
}
