//! Changes of the groups' sizes: more, fewer, and elsewhere when AWS has none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use mayfly_plugin::Error;

use crate::capacity::{self, Book, SKEW};
use crate::cloud::Cloud;
use crate::failure::{Failure, Kind};
use crate::scaling::{self, Group, Life};

/// The books of all groups, in their order.
pub(crate) struct Fleet {
    pub(crate) books: Vec<Book>,
    pub(crate) cool_down: Duration,
}

/// What became of a wish for instances.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) accepted: u32,
    reasons: Vec<String>,
}

impl Placed {
    /// Why it was not more, group by group.
    pub(crate) fn refusals(&self) -> String {
        self.reasons.join("; ")
    }
}

impl Fleet {
    /// Asks the groups, the first ones first, for `n` instances more.
    pub(crate) async fn place(&mut self, cloud: &Cloud, groups: &[Group], n: u32) -> Placed {
        let mut placed = Placed::default();
        for (group, book) in groups.iter().zip(&mut self.books) {
            let left = n - placed.accepted;
            if left == 0 {
                break;
            }
            let now = Instant::now();
            if let Some(reason) = book.shortage(now) {
                placed.reasons.push(format!("{}: passed over for now: {reason}", group.name));
                continue;
            }
            let desired = book.desired(group.desired, now);
            let room = group.max.saturating_sub(desired);
            let more = left.min(room);
            if more < left {
                let (max, name) = (group.max, &group.name);
                placed.reasons.push(format!("{name}: {desired} of at most {max} are taken"));
            }
            if more == 0 {
                continue;
            }
            book.raised.get_or_insert_with(SystemTime::now);
            match scaling::set_desired(cloud, &group.name, desired + more).await {
                Ok(()) => {
                    book.tell(desired + more, now);
                    placed.accepted += more;
                }
                Err(failure) => {
                    book.forget();
                    placed.reasons.push(format!("{}: {failure}", group.name));
                }
            }
        }
        placed
    }

    /// Ends these instances, each with its place in its group. Those that are gone, or
    /// going, count as ended.
    pub(crate) async fn end(
        &mut self,
        cloud: &Cloud,
        groups: &[Group],
        ids: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let mut ended = Vec::new();
        let mut first: Option<Failure> = None;
        let mut beyond = self.beyond(groups);
        let mut seen = BTreeSet::new();
        for id in ids {
            if !seen.insert(id.clone()) {
                continue;
            }
            let Some((at, life)) = find(groups, &id) else {
                ended.push(id);
                continue;
            };
            let (book, now) = (&mut self.books[at], Instant::now());
            let desired = book.desired(groups[at].desired, now);
            let is_counted = matches!(life, Life::Pending | Life::InService);
            let takes_place = is_counted && beyond[at] == 0;
            match scaling::terminate(cloud, &id, takes_place).await {
                Ok(()) => {
                    book.tell(desired.saturating_sub(u32::from(takes_place)), now);
                    if is_counted && !takes_place {
                        beyond[at] -= 1;
                    }
                    ended.push(id);
                }
                Err(failure) if failure.kind == Kind::Absent => ended.push(id),
                Err(failure) => {
                    tracing::warn!(instance = id, "not deleted: {failure}");
                    let kind = failure.kind;
                    first.get_or_insert(failure);
                    if kind == Kind::Unsure {
                        // Whether the group shall have one less now, its next list says.
                        book.forget();
                    }
                    if kind != Kind::Refused {
                        break;
                    }
                }
            }
        }
        match first {
            Some(failure) if ended.is_empty() => Err(failure.into()),
            _ => Ok(ended),
        }
    }

    /// How many instances each group has beyond its wish, which leave no place behind. None,
    /// as long as its list may show some that have been ended.
    fn beyond(&self, groups: &[Group]) -> Vec<u32> {
        let now = Instant::now();
        let of_group = |(group, book): (&Group, &Book)| match book.lists_may_lag(now) {
            true => 0,
            false => group.counted().saturating_sub(group.desired),
        };
        groups.iter().zip(&self.books).map(of_group).collect()
    }

    /// Looks whether groups launch what they were asked for. One that cannot is passed over
    /// for a while, and what it owes is asked of the others.
    pub(crate) async fn look_for_shortages(&mut self, cloud: &Cloud, groups: &[Group]) {
        for at in 0..groups.len() {
            let (group, book) = (&groups[at], &mut self.books[at]);
            let Some(raised) = book.raised else { continue };
            if book.desired(group.desired, Instant::now()) <= group.counted() {
                book.raised = None;
                continue;
            }
            let attempts = match scaling::attempts(cloud, &group.name, raised - SKEW).await {
                Ok(attempts) => attempts,
                Err(failure) => {
                    tracing::warn!("a shortage would not be seen: {failure}");
                    continue;
                }
            };
            if let Some(reason) = capacity::judge(&attempts, group.zones) {
                let reason = reason.to_owned();
                self.give_up(cloud, groups, at, reason).await;
            }
        }
    }

    async fn give_up(&mut self, cloud: &Cloud, groups: &[Group], at: usize, reason: String) {
        let name = &groups[at].name;
        let seconds = self.cool_down.as_secs();
        tracing::warn!(group = name, seconds, "AWS cannot launch, passed over: {reason}");
        self.books[at].cool_down(reason, Instant::now(), self.cool_down);
        let owed = match self.take_back(cloud, name, at).await {
            Ok(owed) => owed,
            Err(failure) => {
                tracing::warn!(group = name, "the group goes on trying: {failure}");
                return;
            }
        };
        let placed = self.place(cloud, groups, owed).await;
        if placed.accepted < owed {
            let missing = owed - placed.accepted;
            tracing::warn!(missing, "instances will not come: {}", placed.refusals());
        }
    }

    /// Sets a group to what it has; how many it was short of. With members that are not
    /// protected AWS could end one that has a job, should one more have come by now.
    async fn take_back(&mut self, cloud: &Cloud, name: &str, at: usize) -> Result<u32, Failure> {
        let group = scaling::describe(cloud, &[name.to_owned()]).await?.remove(0);
        let target = group.counted().max(group.min);
        let desired = self.books[at].desired(group.desired, Instant::now());
        let owed = desired.saturating_sub(target);
        let counted = |life| matches!(life, Life::Pending | Life::InService);
        if !group.protects_new || group.members.iter().any(|m| counted(m.life) && !m.protected) {
            let why = "not all of its instances are protected from scale-in, so the wish is not \
                       taken back";
            return Err(Failure::new(Kind::Refused, why));
        }
        if owed > 0 {
            scaling::set_desired(cloud, name, target).await?;
            self.books[at].tell(target, Instant::now());
        }
        Ok(owed)
    }
}

/// The group that has an instance, and its place there; `None` if it is gone or going.
fn find(groups: &[Group], id: &str) -> Option<(usize, Life)> {
    groups.iter().enumerate().find_map(|(at, group)| {
        let member = group.members.iter().find(|member| member.id == id)?;
        let stays = !matches!(member.life, Life::Terminating | Life::Outside);
        stays.then_some((at, member.life))
    })
}

/// Instances that the groups have, and those that they do not.
pub(crate) fn split(groups: &[Group], ids: Vec<String>) -> (Vec<String>, Vec<String>) {
    let ids: BTreeSet<String> = ids.into_iter().collect();
    ids.into_iter().partition(|id| find(groups, id).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::Member;

    fn group(members: &[(&str, Life)]) -> Group {
        let member = |(id, life): &(&str, Life)| Member {
            id: (*id).to_owned(),
            life: *life,
            protected: true,
        };
        Group { members: members.iter().map(member).collect(), ..Group::default() }
    }

    #[test]
    fn only_members_that_stay_are_found() {
        let groups = [
            group(&[("i-1", Life::InService), ("i-2", Life::Terminating)]),
            group(&[("i-3", Life::Standby), ("i-4", Life::Outside)]),
        ];
        assert_eq!(find(&groups, "i-1"), Some((0, Life::InService)));
        assert_eq!(find(&groups, "i-3"), Some((1, Life::Standby)));
        for gone in ["i-2", "i-4", "i-5"] {
            assert_eq!(find(&groups, gone), None, "{gone}");
        }
        let ids = ["i-5", "i-1", "i-1"].map(str::to_owned);
        assert_eq!(split(&groups, ids.into()), (vec!["i-1".into()], vec!["i-5".into()]));
    }
}
