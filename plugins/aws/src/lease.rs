//! Who drives a group, written into its tags, so that two managers do not share one.
//!
//! The owner says until when; somebody else may take the group over after that. There is
//! no lock behind it: two that start in the same second may both believe to be first, until
//! the next look.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::cloud::Cloud;
use crate::failure::Failure;
use crate::scaling::{self, Group};

/// The owner's name.
const OWNER_TAG: &str = "mayfly:owner";
/// Until when, in UTC as RFC 3339 writes it.
const LEASE_TAG: &str = "mayfly:lease";
/// How long a group stays with an owner that is silent.
const LEASE: Duration = Duration::from_secs(900);
/// How often the owner says that it is there.
const RENEWAL: Duration = Duration::from_secs(240);

/// What one owner holds.
pub(crate) struct Lease {
    owner: String,
    renewed: Instant,
}

impl Lease {
    /// Takes the groups for this owner.
    pub(crate) async fn take(
        cloud: &Cloud,
        groups: &[Group],
        owner: &str,
    ) -> Result<Self, Failure> {
        let lease = Self { owner: owner.to_owned(), renewed: Instant::now() };
        lease.write(cloud, groups).await?;
        Ok(lease)
    }

    /// Says that the owner is there, if it is time. One that has lost a group is told.
    pub(crate) async fn renew(&mut self, cloud: &Cloud, groups: &[Group]) {
        if self.renewed.elapsed() < RENEWAL {
            return;
        }
        for group in groups {
            if let Err(why) = may_take(group, Some(&self.owner), SystemTime::now()) {
                tracing::error!("{why}; two managers that drive one group end each other's jobs");
                return;
            }
        }
        match self.write(cloud, groups).await {
            Ok(()) => self.renewed = Instant::now(),
            Err(failure) => tracing::warn!("the lease of the groups was not renewed: {failure}"),
        }
    }

    async fn write(&self, cloud: &Cloud, groups: &[Group]) -> Result<(), Failure> {
        let until = Timestamp::try_from(SystemTime::now() + LEASE).unwrap_or(Timestamp::MAX);
        let until = format!("{until:.0}");
        for group in groups {
            let tags = [(OWNER_TAG, self.owner.clone()), (LEASE_TAG, until.clone())];
            scaling::tag(cloud, &group.name, &tags).await?;
        }
        Ok(())
    }
}

/// Whether this owner, or one without a name, may drive a group now.
pub(crate) fn may_take(group: &Group, me: Option<&str>, now: SystemTime) -> Result<(), String> {
    let Some((owner, until)) = held(&group.tags) else { return Ok(()) };
    if Some(owner) == me || SystemTime::from(until) <= now {
        return Ok(());
    }
    Err(format!(
        "Auto Scaling group {:?} is driven by {owner:?} until {until} (tags {OWNER_TAG}, \
         {LEASE_TAG}): use another group, or stop that manager and wait",
        group.name
    ))
}

/// Owner and end of a lease; what cannot be read is none.
fn held(tags: &BTreeMap<String, String>) -> Option<(&str, Timestamp)> {
    Some((tags.get(OWNER_TAG)?, tags.get(LEASE_TAG)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(owner: &str, lease: &str) -> Group {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let tags = BTreeMap::from([tag(OWNER_TAG, owner), tag(LEASE_TAG, lease)]);
        Group { name: "ci".into(), tags, ..Group::default() }
    }

    #[test]
    fn a_group_is_its_owner_s_until_the_lease_ends() {
        let now = SystemTime::from("2026-03-01T12:00:00Z".parse::<Timestamp>().expect("a time"));
        let held = group("a", "2026-03-01T12:00:01Z");
        assert_eq!(may_take(&held, Some("a"), now), Ok(()));
        for other in [Some("b"), None] {
            let error = may_take(&held, other, now).expect_err("must fail");
            assert!(error.contains("\"ci\" is driven by \"a\""), "{error}");
        }
        assert_eq!(may_take(&group("a", "2026-03-01T12:00:00Z"), Some("b"), now), Ok(()));
        assert_eq!(may_take(&group("a", "soon"), Some("b"), now), Ok(()));
        assert_eq!(may_take(&Group::default(), None, now), Ok(()));
    }
}
