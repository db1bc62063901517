//! How many instances each group is asked for, and when a group is passed over. Pure.

use std::time::{Duration, Instant, SystemTime};

/// For so long what a group was told counts more than what AWS shows: its lists may lag.
const TRUST: Duration = Duration::from_secs(30);
/// How far AWS's clock may be behind this machine's.
pub(crate) const SKEW: Duration = Duration::from_secs(30);

/// What is known of one group beside what AWS shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// The desired capacity that was set last.
    told: Option<(u32, Instant)>,
    /// When it was asked for what it still owes: launches since then are our business.
    pub(crate) raised: Option<SystemTime>,
    shortage: Option<Shortage>,
}

/// Why a group is passed over, and until when.
#[derive(Clone, Debug, PartialEq)]
struct Shortage {
    reason: String,
    until: Instant,
}

/// One launch that a group tried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) failed: bool,
    pub(crate) reason: String,
}

impl Book {
    /// That of a group which an earlier plugin may have asked for more than it has.
    pub(crate) fn new(desired: u32, counted: u32, now: SystemTime) -> Self {
        Self { raised: (desired > counted).then_some(now), ..Self::default() }
    }

    /// The desired capacity to count from.
    pub(crate) fn desired(&self, shown: u32, now: Instant) -> u32 {
        self.fresh(now).unwrap_or(shown)
    }

    /// The group was told something so lately that lists may not show what follows from it.
    pub(crate) fn lists_may_lag(&self, now: Instant) -> bool {
        self.fresh(now).is_some()
    }

    fn fresh(&self, now: Instant) -> Option<u32> {
        let (told, at) = self.told?;
        (now.saturating_duration_since(at) < TRUST).then_some(told)
    }

    /// The group was told this number.
    pub(crate) fn tell(&mut self, desired: u32, now: Instant) {
        self.told = Some((desired, now));
    }

    /// What the group was told is not known: the next list is believed.
    pub(crate) fn forget(&mut self) {
        self.told = None;
    }

    /// The group cannot launch; it is passed over for so long.
    pub(crate) fn cool_down(&mut self, reason: String, now: Instant, time: Duration) {
        self.raised = None;
        self.shortage = Some(Shortage { reason, until: now + time });
    }

    /// Why the group is passed over now.
    pub(crate) fn shortage(&self, now: Instant) -> Option<&str> {
        self.shortage.as_ref().filter(|s| now < s.until).map(|s| s.reason.as_str())
    }
}

/// Reads the launches since a group was asked for more: the reason why it cannot, if so.
///
/// A zone without capacity is not the group's end: it tries its other zones by itself. Any
/// other reason holds for all of them.
pub(crate) fn judge(attempts: &[Attempt], zones: usize) -> Option<&str> {
    let matters = |attempt: &&Attempt| attempt.failed && !passes(&attempt.reason);
    let failed: Vec<&Attempt> = attempts.iter().filter(matters).collect();
    let elsewhere = failed.iter().find(|attempt| !is_of_a_zone(&attempt.reason));
    if let Some(attempt) = elsewhere {
        return Some(&attempt.reason);
    }
    let tried_all = failed.len() >= zones.max(1);
    failed.first().filter(|_| tried_all).map(|attempt| attempt.reason.as_str())
}

/// AWS's own trouble: the group tries again by itself.
fn passes(reason: &str) -> bool {
    ["InternalError", "Internal error", "RequestLimitExceeded", "Request limit exceeded"]
        .iter()
        .any(|word| reason.contains(word))
}

/// The codes and sentences of AWS's troubleshooting guide ("instance launch failure",
/// "insufficient capacity") that speak of one zone or of one type in it.
fn is_of_a_zone(reason: &str) -> bool {
    const WORDS: [&str; 9] = [
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "UnfulfillableCapacity",
        "InsufficientFreeAddressesInSubnet",
        "not enough free addresses",
        "do not have sufficient",
        "no Spot capacity available",
        "not supported in your requested Availability Zone",
    ];
    WORDS.iter().any(|word| reason.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_ZONE: &str = "We currently do not have sufficient m5.large capacity in the \
                           Availability Zone you requested (us-east-1a). Launching EC2 \
                           instance failed.";

    fn attempts(reasons: &[Option<&str>]) -> Vec<Attempt> {
        let attempt = |reason: &Option<&str>| Attempt {
            failed: reason.is_some(),
            reason: reason.unwrap_or("fine").to_owned(),
        };
        reasons.iter().map(attempt).collect()
    }

    #[test]
    fn what_was_told_counts_until_lists_have_caught_up() {
        let start = Instant::now();
        let mut book = Book::default();
        assert_eq!(book.desired(3, start), 3);
        book.tell(5, start);
        assert_eq!(book.desired(3, start + TRUST / 2), 5);
        assert!(book.lists_may_lag(start + TRUST / 2));
        assert_eq!(book.desired(3, start + TRUST), 3);
        assert!(!book.lists_may_lag(start + TRUST));
        book.tell(5, start);
        book.forget();
        assert_eq!(book.desired(3, start), 3);
    }

    #[test]
    fn what_a_group_owes_at_the_start_is_looked_after() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(Book::new(3, 2, now).raised, Some(now));
        assert_eq!(Book::new(2, 2, now).raised, None);
    }

    #[test]
    fn a_group_cools_down_and_comes_back() {
        let start = Instant::now();
        let mut book = Book { raised: Some(SystemTime::UNIX_EPOCH), ..Book::default() };
        assert_eq!(book.shortage(start), None);
        book.cool_down("why".into(), start, Duration::from_secs(9));
        assert_eq!(book.raised, None);
        assert_eq!(book.shortage(start + Duration::from_secs(8)), Some("why"));
        assert_eq!(book.shortage(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn a_full_zone_leaves_the_others() {
        assert_eq!(judge(&attempts(&[None, Some(IN_ZONE)]), 2), None);
        assert_eq!(judge(&attempts(&[Some(IN_ZONE), None, Some(IN_ZONE)]), 2), Some(IN_ZONE));
        assert_eq!(judge(&attempts(&[Some(IN_ZONE)]), 0), Some(IN_ZONE));
    }

    #[test]
    fn what_holds_everywhere_is_believed_at_once() {
        for reason in [
            "VcpuLimitExceeded - You have requested more vCPU capacity than your limit of 32",
            "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot count",
            "The image id '[ami-1]' does not exist",
            "You are not authorized to perform this operation",
        ] {
            assert_eq!(judge(&attempts(&[Some(reason), Some(IN_ZONE)]), 3), Some(reason));
        }
        let passing = "Server.InternalError: Internal error on launch";
        assert_eq!(judge(&attempts(&[Some(passing), Some(passing)]), 1), None);
        assert_eq!(judge(&attempts(&[None, None]), 1), None);
        assert_eq!(judge(&[], 1), None);
    }
}
