//! GitLab's idle policies: which one holds now, and how much idle capacity it wants.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::period::Period;

/// How much idle capacity is kept, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Minutes in which it holds; empty is always.
    pub periods: Vec<Period>,
    /// Where those minutes are counted.
    pub timezone: TimeZone,
    /// Idle slots to keep, in jobs, not instances.
    pub idle_count: u32,
    /// How long an instance may be idle beyond `idle_count`.
    pub idle_time: Duration,
    /// Idle slots as a share of the used ones; 0 is off.
    pub scale_factor: f64,
    /// Most idle slots that `scale_factor` asks for; 0 is no limit.
    pub scale_factor_limit: u32,
    /// Whether jobs are taken against idle slots only; `None` is GitLab's default.
    pub preemptive_mode: Option<bool>,
}

/// GitLab's idle time where no policy matches.
const DEFAULT_IDLE_TIME: Duration = Duration::from_secs(5 * 60);

impl Default for Policy {
    /// What holds where no policy matches.
    fn default() -> Self {
        Self {
            periods: Vec::new(),
            timezone: TimeZone::UTC,
            idle_count: 0,
            idle_time: DEFAULT_IDLE_TIME,
            scale_factor: 0.0,
            scale_factor_limit: 0,
            preemptive_mode: None,
        }
    }
}

impl Policy {
    /// Idle slots wanted while `used` slots run jobs: the share of the used ones, at
    /// most its limit, at least `idle_count`.
    pub fn idle_target(&self, used: u32) -> u32 {
        if self.scale_factor <= 0.0 {
            return self.idle_count;
        }
        // Counts of slots are far below what a float holds exactly.
        let share = (self.scale_factor * f64::from(used)).ceil().clamp(0.0, f64::from(u32::MAX));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped above"
        )]
        let share = share as u32;
        let limit = if self.scale_factor_limit == 0 { u32::MAX } else { self.scale_factor_limit };
        share.min(limit).max(self.idle_count)
    }

    /// Whether jobs are taken against idle slots only.
    pub fn is_preemptive(&self) -> bool {
        self.preemptive_mode.unwrap_or(self.idle_count > 0)
    }

    fn holds(&self, wall: Timestamp) -> bool {
        let local = wall.to_zoned(self.timezone.clone()).datetime();
        self.periods.is_empty() || self.periods.iter().any(|period| period.contains(local))
    }
}

/// All policies of a group, in the order of the file: the last one that holds is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    policies: Vec<Policy>,
    otherwise: Policy,
}

impl Schedule {
    /// Of these policies.
    pub fn new(policies: Vec<Policy>) -> Self {
        Self { policies, otherwise: Policy::default() }
    }

    /// The policy that holds now.
    pub fn at(&self, wall: Timestamp) -> &Policy {
        let holding = self.policies.iter().rev().find(|policy| policy.holds(wall));
        holding.unwrap_or(&self.otherwise)
    }

    /// Whether the policy may change as time goes by.
    pub fn changes(&self) -> bool {
        let always = |policy: &Policy| {
            policy.periods.is_empty() || policy.periods.iter().any(Period::is_always)
        };
        !self.policies.iter().all(always)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(periods: &[&str], timezone: &str, idle_count: u32) -> Policy {
        Policy {
            periods: periods.iter().map(|p| Period::parse(p).expect("a period")).collect(),
            timezone: TimeZone::get(timezone).expect("a zone"),
            idle_count,
            ..Policy::default()
        }
    }

    #[test]
    fn the_last_matching_policy_holds() {
        let schedule = Schedule::new(vec![
            policy(&[], "UTC", 1),
            policy(&["* 8-17 * * mon-fri"], "Europe/Berlin", 10),
            policy(&["* * 24-26 12 *"], "Europe/Berlin", 0),
        ]);
        let cases = [
            ("2026-11-25T06:59:59Z", 1),
            ("2026-11-25T07:00:00Z", 10),
            ("2026-11-25T16:59:59Z", 10),
            ("2026-11-25T17:00:00Z", 1),
            ("2026-11-28T12:00:00Z", 1),
            // Summer time begins on 2026-03-29: 8 o'clock is an hour earlier in UTC.
            ("2026-03-27T06:30:00Z", 1),
            ("2026-03-30T06:30:00Z", 10),
            ("2026-12-24T12:00:00Z", 0),
        ];
        for (wall, idle_count) in cases {
            let wall: Timestamp = wall.parse().expect("a time");
            assert_eq!(schedule.at(wall).idle_count, idle_count, "{wall}");
        }
        assert!(schedule.changes());
    }

    #[test]
    fn outside_of_all_periods_gitlabs_default_holds() {
        let schedule = Schedule::new(vec![policy(&["* 3 * * *"], "UTC", 7)]);
        let wall: Timestamp = "2026-11-25T04:00:00Z".parse().expect("a time");
        let policy = schedule.at(wall);
        assert_eq!((policy.idle_count, policy.idle_time.as_secs()), (0, 300));
        assert!(!Schedule::new(vec![self::policy(&[], "UTC", 1)]).changes());
    }

    #[test]
    fn the_idle_target_is_a_share_between_count_and_limit() {
        let cases = [
            ((5, 0.0, 0), 100, 5),
            ((5, 0.5, 0), 0, 5),
            ((5, 0.5, 0), 11, 6),
            ((5, 0.5, 8), 100, 8),
            ((0, 1.5, 0), 3, 5),
            ((10, 0.5, 4), 100, 10),
        ];
        for ((idle_count, scale_factor, scale_factor_limit), used, expected) in cases {
            let policy =
                Policy { idle_count, scale_factor, scale_factor_limit, ..Policy::default() };
            assert_eq!(policy.idle_target(used), expected);
        }
    }

    #[test]
    fn preemptive_is_gitlabs_default() {
        assert!(!Policy::default().is_preemptive());
        assert!(Policy { idle_count: 1, ..Policy::default() }.is_preemptive());
        assert!(
            !Policy { idle_count: 1, preemptive_mode: Some(false), ..Policy::default() }
                .is_preemptive()
        );
    }
}
