//! What bounds creation, whoever asks for it: one function answers "may I create n more?".

use std::time::Duration;

use crate::plan::Reason;
use crate::time::{Moment, Now};

/// The numbers of one group's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `capacity_per_instance`, at least 1.
    pub capacity: u32,
    /// `max_use_count`; 0 is no limit.
    pub max_use_count: u32,
    /// `max_instances`; 0 is no limit of ours.
    pub max_instances: u32,
    /// The most that the provider's group allows.
    pub provider_max_size: u32,
    /// `scale_throttle`.
    pub throttle: Throttle,
    /// How long an instance may take from being asked for to being listed, and again to
    /// running.
    pub boot_deadline: Duration,
    /// How long its first preparation may take.
    pub prepare_deadline: Duration,
    /// How long an instance that was ready may be unreachable.
    pub reconnect_deadline: Duration,
    /// `deletion_retry_interval`.
    pub deletion_retry: Duration,
}

/// GitLab's default of `deletion_retry_interval`.
const DELETION_RETRY: Duration = Duration::from_secs(60);
/// Longer than any provider takes that was measured (a macOS host on EC2 aside).
const BOOT_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// fleeting's default of `connector_config.timeout`.
const PREPARE_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Several times what a restarted sshd, or a network that converges, takes.
const RECONNECT_DEADLINE: Duration = Duration::from_secs(60);

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacity: 1,
            max_use_count: 0,
            max_instances: 0,
            provider_max_size: u32::MAX,
            throttle: Throttle::default(),
            boot_deadline: BOOT_DEADLINE,
            prepare_deadline: PREPARE_DEADLINE,
            reconnect_deadline: RECONNECT_DEADLINE,
            deletion_retry: DELETION_RETRY,
        }
    }
}

impl Limits {
    /// The most instances that may exist, and which limit says so.
    pub fn most_instances(&self) -> (u32, Reason) {
        match self.max_instances {
            0 => (self.provider_max_size, Reason::ProviderMaxSize),
            max if max <= self.provider_max_size => (max, Reason::MaxInstances),
            _ => (self.provider_max_size, Reason::ProviderMaxSize),
        }
    }

    /// Jobs that a fresh instance can hold at once.
    pub fn fresh_slots(&self) -> u32 {
        match self.max_use_count {
            0 => self.capacity,
            uses => self.capacity.min(uses),
        }
    }
}

/// A token bucket for new instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// No limit.
    Unlimited,
    /// So many per second, after a burst.
    PerSecond {
        /// New instances per second.
        limit: u32,
        /// How many at once.
        burst: u32,
    },
}

impl Default for Throttle {
    /// GitLab's: 100 per second; the burst is for the caller to set.
    fn default() -> Self {
        Self::PerSecond { limit: 100, burst: 100 }
    }
}

/// What creation has used up and what went wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// Tokens taken from the throttle that have not flowed back, at `taken_at`.
    taken: f64,
    taken_at: Moment,
    /// Instances in a row that did not come up.
    boot_failures: u32,
    boot_failed_at: Moment,
    /// Calls in a row that failed.
    call_failures: u32,
    call_failed_at: Moment,
}

/// What there is when more is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Instances that may cost money.
    pub costing: u32,
    /// Whether some of them have yet to show that they come up.
    pub untried: bool,
}

/// First pause after an instance that did not come up, as GitLab's.
const BOOT_PAUSE: Duration = Duration::from_secs(10);
/// Longest such pause: waiting is bounded, as spending is.
const MAX_BOOT_PAUSE: Duration = Duration::from_secs(5 * 60);
/// First pause after a call that failed.
const CALL_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a call that failed.
const MAX_CALL_PAUSE: Duration = Duration::from_secs(60);
/// Failures in a row that do not pause creation yet.
const TOLERATED_BOOT_FAILURES: u32 = 2;

impl Creation {
    /// How many of `wanted` may be created beside what exists; and, if fewer, what is in
    /// the way and until when.
    pub fn allow(
        &self,
        wanted: u32,
        existing: Existing,
        limits: &Limits,
        now: Now,
    ) -> (u32, Option<(Reason, Option<Moment>)>) {
        let now = now.moment;
        let mut allowed = wanted;
        let mut bound = None;
        let mut at_most = |most: u32, reason: Reason, until: Option<Moment>| {
            if most < allowed {
                allowed = most;
                bound = Some((reason, until));
            }
        };
        let (max, max_reason) = limits.most_instances();
        at_most(max.saturating_sub(existing.costing), max_reason, None);
        if let Throttle::PerSecond { limit, burst } = limits.throttle {
            let left = f64::from(burst) - self.taken_now(limit, now);
            let until = now.after(Duration::from_secs_f64(1.0 / f64::from(limit.max(1))));
            at_most(floor(left), Reason::ScaleThrottle, Some(until));
        }
        if let Some(until) = self.boot_pause_until() {
            // After the pause a single instance shows whether it works again.
            let try_one = now >= until && !existing.untried;
            at_most(u32::from(try_one), Reason::BootFailures, Some(until).filter(|at| now < *at));
        }
        if let Some(until) = self.call_pause_until()
            && now < until
        {
            at_most(0, Reason::CallsFailing, Some(until));
        }
        (allowed, bound)
    }

    /// `n` instances were asked for.
    pub fn asked(&mut self, n: u32, limits: &Limits, now: Moment) {
        if let Throttle::PerSecond { limit, .. } = limits.throttle {
            self.taken = self.taken_now(limit, now) + f64::from(n);
            self.taken_at = now;
        }
    }

    /// A call to the provider succeeded.
    pub fn call_succeeded(&mut self) {
        self.call_failures = 0;
    }

    /// A call to the provider failed.
    pub fn call_failed(&mut self, now: Moment) {
        self.call_failures = self.call_failures.saturating_add(1);
        self.call_failed_at = now;
    }

    /// An instance is ready.
    pub fn boot_succeeded(&mut self) {
        self.boot_failures = 0;
    }

    /// An instance did not come up.
    pub fn boot_failed(&mut self, now: Moment) {
        self.boot_failures = self.boot_failures.saturating_add(1);
        self.boot_failed_at = now;
    }

    /// Instances in a row that did not come up.
    pub fn boot_failures(&self) -> u32 {
        self.boot_failures
    }

    fn taken_now(&self, limit: u32, now: Moment) -> f64 {
        let flowed = f64::from(limit) * now.since(self.taken_at).as_secs_f64();
        (self.taken - flowed).max(0.0)
    }

    fn boot_pause_until(&self) -> Option<Moment> {
        let counted = self.boot_failures.checked_sub(TOLERATED_BOOT_FAILURES)?;
        let pause = doubled(BOOT_PAUSE, counted).min(MAX_BOOT_PAUSE);
        Some(self.boot_failed_at.after(pause))
    }

    fn call_pause_until(&self) -> Option<Moment> {
        let counted = self.call_failures.checked_sub(1)?;
        let pause = doubled(CALL_PAUSE, counted).min(MAX_CALL_PAUSE);
        Some(self.call_failed_at.after(pause))
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times.min(20)).unwrap_or(u32::MAX))
}

fn floor(value: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let whole = value.clamp(0.0, f64::from(u32::MAX)) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64) -> Now {
        Now { moment: Moment(Duration::from_secs(seconds)), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn limits(max_instances: u32, throttle: Throttle) -> Limits {
        Limits { max_instances, provider_max_size: 50, throttle, ..Limits::default() }
    }

    fn allow(
        creation: &Creation,
        wanted: u32,
        existing: u32,
        limits: &Limits,
        at: u64,
    ) -> (u32, Option<Reason>) {
        let existing = Existing { costing: existing, untried: false };
        let (allowed, bound) = creation.allow(wanted, existing, limits, now(at));
        (allowed, bound.map(|(reason, _)| reason))
    }

    #[test]
    fn the_tighter_maximum_binds() {
        let creation = Creation::default();
        let cases = [
            (10, 4, 8, (4, None)),
            (10, 4, 3, (3, None)),
            (10, 7, 5, (3, Some(Reason::MaxInstances))),
            (10, 12, 5, (0, Some(Reason::MaxInstances))),
            (0, 45, 10, (5, Some(Reason::ProviderMaxSize))),
            (90, 45, 10, (5, Some(Reason::ProviderMaxSize))),
        ];
        for (max, existing, wanted, expected) in cases {
            let limits = limits(max, Throttle::Unlimited);
            let (wanted, expected) = match expected {
                (n, None) => (n, (n, None)),
                bound => (wanted, bound),
            };
            assert_eq!(allow(&creation, wanted, existing, &limits, 0), expected);
        }
    }

    #[test]
    fn the_throttle_lets_a_burst_through_and_then_a_trickle() {
        let mut creation = Creation::default();
        let limits = limits(0, Throttle::PerSecond { limit: 2, burst: 5 });
        assert_eq!(allow(&creation, 9, 0, &limits, 10), (5, Some(Reason::ScaleThrottle)));
        creation.asked(5, &limits, now(10).moment);
        assert_eq!(allow(&creation, 9, 0, &limits, 10), (0, Some(Reason::ScaleThrottle)));
        assert_eq!(allow(&creation, 9, 0, &limits, 11), (2, Some(Reason::ScaleThrottle)));
        assert_eq!(allow(&creation, 9, 0, &limits, 60), (5, Some(Reason::ScaleThrottle)));
    }

    #[test]
    fn instances_that_do_not_come_up_stop_creation_for_a_bounded_time() {
        let mut creation = Creation::default();
        let limits = limits(0, Throttle::Unlimited);
        creation.boot_failed(now(0).moment);
        assert_eq!(allow(&creation, 9, 0, &limits, 0), (9, None));
        for _ in 0..30 {
            creation.boot_failed(now(0).moment);
        }
        assert_eq!(allow(&creation, 9, 0, &limits, 299), (0, Some(Reason::BootFailures)));
        assert_eq!(allow(&creation, 9, 0, &limits, 300), (1, Some(Reason::BootFailures)));
        let untried = Existing { costing: 1, untried: true };
        let bound = Some((Reason::BootFailures, None));
        assert_eq!(creation.allow(9, untried, &limits, now(300)), (0, bound));
        creation.boot_succeeded();
        assert_eq!(allow(&creation, 9, 0, &limits, 300), (9, None));
    }

    #[test]
    fn failing_calls_back_off_and_recover() {
        let mut creation = Creation::default();
        let limits = limits(0, Throttle::Unlimited);
        creation.call_failed(now(10).moment);
        assert_eq!(allow(&creation, 1, 0, &limits, 10), (0, Some(Reason::CallsFailing)));
        assert_eq!(allow(&creation, 1, 0, &limits, 11), (1, None));
        creation.call_succeeded();
        assert_eq!(allow(&creation, 1, 0, &limits, 10), (1, None));
    }
}
