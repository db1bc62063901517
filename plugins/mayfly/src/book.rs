//! What is known of one provider: its last list, and what was asked for and not seen yet.
//! Pure: the time is told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mayfly_plugin::{InstanceState, InstanceStatus};

/// What no list has shown for so long will not come any more.
const UNSEEN_FOR: Duration = Duration::from_secs(10 * 60);

/// The books of one provider.
#[derive(Debug, Default)]
pub(crate) struct Book {
    listed: Option<Vec<InstanceStatus>>,
    asks: Vec<Ask>,
    next_ask: u64,
}

#[derive(Debug)]
struct Ask {
    number: u64,
    at: Instant,
    unseen: u32,
}

impl Book {
    /// A book that begins with a list of before, or with none.
    pub(crate) fn new(listed: Option<Vec<InstanceStatus>>) -> Self {
        Self { listed, ..Self::default() }
    }

    /// The last list; nothing before the first one.
    pub(crate) fn listed(&self) -> Option<&[InstanceStatus]> {
        self.listed.as_deref()
    }

    /// Takes a new list. What is in none before it was asked for, the oldest ask first.
    pub(crate) fn list(&mut self, list: Vec<InstanceStatus>, now: Instant) {
        if let Some(before) = &self.listed {
            let known: BTreeSet<&str> = before.iter().map(|one| one.id.as_str()).collect();
            let mut new = count(list.iter().filter(|one| !known.contains(one.id.as_str())));
            for ask in &mut self.asks {
                let seen = ask.unseen.min(new);
                ask.unseen -= seen;
                new -= seen;
            }
        }
        self.asks.retain(|ask| now.duration_since(ask.at) < UNSEEN_FOR);
        self.listed = Some(list);
    }

    /// Writes down that `n` are about to be asked for; returns the number of the ask.
    pub(crate) fn ask(&mut self, n: u32, now: Instant) -> u64 {
        self.next_ask += 1;
        self.asks.push(Ask { number: self.next_ask, at: now, unseen: n });
        self.next_ask
    }

    /// So many of an ask were not accepted. Where lists have shown them all by now, the
    /// ask is settled.
    pub(crate) fn refused(&mut self, number: u64, n: u32) {
        if let Some(ask) = self.asks.iter_mut().find(|ask| ask.number == number) {
            ask.unseen = ask.unseen.saturating_sub(n);
        }
    }

    /// Instances that exist or may come: the list and what it does not show yet.
    pub(crate) fn instances(&self) -> u32 {
        let listed = self.listed.iter().flatten();
        let existing = count(listed.filter(|one| one.state != InstanceState::Deleted));
        self.asks.iter().fold(existing, |sum, ask| sum.saturating_add(ask.unseen))
    }

    /// Instances that run up costs.
    pub(crate) fn costing(&self) -> u32 {
        let is_free = |state| matches!(state, InstanceState::Deleted | InstanceState::Suspended);
        count(self.listed.iter().flatten().filter(|one| !is_free(one.state)))
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &[&str]) -> Vec<InstanceStatus> {
        ids.iter().map(|id| InstanceStatus::new(*id, InstanceState::Running)).collect()
    }

    #[test]
    fn what_was_asked_for_counts_until_a_list_shows_it() {
        let now = Instant::now();
        let mut book = Book::default();
        assert_eq!((book.listed(), book.instances()), (None, 0));
        book.list(list(&["a"]), now);
        let ask = book.ask(3, now);
        assert_eq!(book.instances(), 4);
        book.list(list(&["a", "b"]), now);
        assert_eq!(book.instances(), 4, "one is seen, two are to come");
        book.refused(ask, 1);
        assert_eq!(book.instances(), 3);
        book.list(list(&["a", "b", "c"]), now);
        assert_eq!(book.instances(), 3);
        // More than was asked for is no credit.
        book.list(list(&["a", "b", "c", "d"]), now);
        book.ask(1, now);
        assert_eq!(book.instances(), 5);
        book.list(list(&["a"]), now + UNSEEN_FOR);
        assert_eq!(book.instances(), 1, "it does not come any more");
    }

    #[test]
    fn an_answer_after_the_list_that_shows_it_settles_the_ask() {
        let now = Instant::now();
        let mut book = Book::default();
        book.list(Vec::new(), now);
        let ask = book.ask(2, now);
        book.list(list(&["a", "b"]), now);
        book.refused(ask, 0);
        assert_eq!(book.instances(), 2);
    }

    #[test]
    fn the_gone_are_no_instances_and_the_suspended_cost_nothing() {
        let mut book = Book::default();
        let states = [InstanceState::Deleted, InstanceState::Suspended, InstanceState::Timeout];
        let each = states.iter().enumerate();
        let listed = each.map(|(n, state)| InstanceStatus::new(format!("i-{n}"), *state)).collect();
        book.list(listed, Instant::now());
        assert_eq!((book.instances(), book.costing()), (2, 1));
    }
}
