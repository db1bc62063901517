//! The one decision of a provider that is told a number: which number.
//!
//! Pure: no clock, no IO. Two invariants: a wish for more never tells a lower number than
//! before, and a deletion never tells a number below the instances that are to stay.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What was asked for and no list has shown is expected for so long. Hosts believe in an
/// ask for a minute: a number that counts it for longer could exceed their maximum.
const EXPECTED_FOR_MS: u64 = 45_000;

/// What the provider was told, and what it showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Books {
    /// The number that was told last.
    told: u32,
    /// Whether the script's success with that number is not known.
    unsure: bool,
    /// Instances of the last list.
    seen: BTreeSet<String>,
    /// What was asked for and not seen.
    asks: Vec<Ask>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ask {
    n: u32,
    at_ms: u64,
}

/// What the provider is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) desired: u32,
    pub(crate) event: &'static str,
    pub(crate) reason: String,
}

impl Books {
    /// Takes a list: what is new in it was asked for, and what is gone is not expected.
    pub(crate) fn observe(&mut self, alive: &BTreeSet<String>, now_ms: u64) {
        let mut new = count(alive.difference(&self.seen).count());
        for ask in &mut self.asks {
            let shown = ask.n.min(new);
            ask.n -= shown;
            new -= shown;
        }
        // A clock that was set back makes an ask look young, never for longer than this.
        self.asks.retain(|ask| ask.n > 0 && now_ms.abs_diff(ask.at_ms) < EXPECTED_FOR_MS);
        self.seen.clone_from(alive);
    }

    fn expected(&self) -> u32 {
        self.asks.iter().map(|ask| ask.n).fold(0, u32::saturating_add)
    }

    fn base(&self) -> u32 {
        count(self.seen.len()).saturating_add(self.expected())
    }

    /// `n` more; how many of them the number includes, and what to tell, if anything.
    pub(crate) fn more(&mut self, n: u32, max_size: u32, now_ms: u64) -> (u32, Option<Order>) {
        let base = self.base();
        let desired = base.saturating_add(n).min(max_size).max(self.told);
        let accepted = desired.saturating_sub(base).min(n);
        if accepted == 0 {
            return (0, None);
        }
        self.told = desired;
        self.unsure = true;
        self.asks.push(Ask { n: accepted, at_ms: now_ms });
        let event = if desired >= max_size { "full_scaleout" } else { "scaleout" };
        let reason = format!("{accepted} more wanted, {base} there or expected");
        (accepted, Some(Order { desired, event, reason }))
    }

    /// The script failed with what `more` told last: it is not expected to come.
    pub(crate) fn failed(&mut self) {
        self.asks.pop();
    }

    /// The script succeeded with what was told last.
    pub(crate) fn succeeded(&mut self) {
        self.unsure = false;
    }

    /// Those of `asked` that exist, and those that are to stay.
    pub(crate) fn split(&self, asked: &[String]) -> (BTreeSet<String>, BTreeSet<String>) {
        self.seen.iter().cloned().partition(|id| asked.contains(id))
    }

    /// These go. What to tell; nothing if that was told already.
    pub(crate) fn fewer(&mut self, going: &BTreeSet<String>) -> Option<Order> {
        self.seen.retain(|id| !going.contains(id));
        let desired = self.base();
        if going.is_empty() && !self.unsure {
            return None;
        }
        self.told = desired;
        self.unsure = true;
        let reason = format!("{} to be deleted, {desired} to stay", going.len());
        Some(Order { desired, event: "scalein", reason })
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u32>) -> BTreeSet<String> {
        range.map(|n| format!("i-{n}")).collect()
    }

    fn told(order: Option<Order>) -> Option<(u32, &'static str)> {
        order.map(|order| (order.desired, order.event))
    }

    #[test]
    fn the_number_is_what_is_there_what_is_expected_and_what_is_wanted() {
        let mut books = Books::default();
        let (accepted, order) = books.more(2, 5, 0);
        assert_eq!((accepted, told(order)), (2, Some((2, "scaleout"))));
        // No list has shown them yet: two and one are three.
        books.observe(&ids(0..0), 1000);
        assert_eq!(told(books.more(1, 5, 1000).1), Some((3, "scaleout")));
        books.observe(&ids(0..2), 2000);
        assert_eq!(told(books.more(1, 5, 2000).1), Some((4, "scaleout")));
        books.observe(&ids(0..4), 3000);
        let (accepted, order) = books.more(7, 5, 3000);
        assert_eq!((accepted, told(order)), (1, Some((5, "full_scaleout"))));
        assert_eq!(books.more(1, 5, 3000), (0, None), "the maximum is a maximum");
    }

    #[test]
    fn what_never_came_is_asked_for_again_and_not_twice() {
        let mut books = Books::default();
        books.more(3, 10, 0);
        books.observe(&ids(0..1), EXPECTED_FOR_MS - 1);
        assert_eq!(told(books.more(1, 10, EXPECTED_FOR_MS - 1).1), Some((4, "scaleout")));
        books.observe(&ids(0..1), 2 * EXPECTED_FOR_MS);
        // One is there, two are wanted: three, but the provider was told four.
        let (accepted, order) = books.more(2, 10, 2 * EXPECTED_FOR_MS);
        assert_eq!((accepted, told(order)), (2, Some((4, "scaleout"))));
    }

    #[test]
    fn a_deletion_tells_what_is_to_stay() {
        let mut books = Books::default();
        books.more(3, 10, 0);
        books.succeeded();
        books.observe(&ids(0..3), 1);
        let (going, staying) = books.split(&["i-1".into(), "gone".into()]);
        assert_eq!((going.len(), staying), (1, ["i-0", "i-2"].map(String::from).into()));
        assert_eq!(told(books.fewer(&going)), Some((2, "scalein")));
        // The script's success is not known: the same is told again, and then no more.
        books.observe(&ids(2..3), 2);
        assert_eq!(told(books.fewer(&BTreeSet::new())), Some((1, "scalein")));
        books.succeeded();
        assert_eq!(books.fewer(&BTreeSet::new()), None);
    }

    #[test]
    fn what_is_on_its_way_is_no_victim_of_a_deletion() {
        let mut books = Books::default();
        books.more(1, 10, 0);
        books.observe(&ids(0..1), 1);
        books.more(2, 10, 1);
        let (going, _) = books.split(&["i-0".into()]);
        assert_eq!(told(books.fewer(&going)), Some((2, "scalein")));
    }

    #[test]
    fn a_failed_wish_is_not_expected_but_its_number_stays() {
        let mut books = Books::default();
        books.more(3, 10, 0);
        books.failed();
        books.observe(&ids(0..0), 1);
        // It may have had its effect: fewer could take an instance away.
        let (accepted, order) = books.more(1, 10, 1);
        assert_eq!((accepted, told(order)), (1, Some((3, "scaleout"))));
    }

    /// A provider of any mood: numbers never fall by a wish, nor below who stays.
    #[test]
    fn random_histories_keep_the_invariants() {
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let (mut books, mut alive, mut next) = (Books::default(), BTreeSet::new(), 0u64);
        for step in 0..20_000u64 {
            let before = books.told;
            books.observe(&alive, step * 1000);
            if random(2) == 0 {
                let n = random(4) as u32 + 1;
                let (accepted, order) = books.more(n, 12, step * 1000);
                assert!(accepted <= n && books.told >= before && books.told <= 12.max(before));
                assert_eq!(order.is_some(), accepted > 0);
            } else {
                let asked: Vec<String> = alive.iter().filter(|_| random(3) == 0).cloned().collect();
                let (going, staying) = books.split(&asked);
                if let Some(order) = books.fewer(&going) {
                    assert!(order.desired as usize >= staying.len());
                }
                if random(2) == 0 {
                    alive = staying;
                }
            }
            if random(3) == 0 && alive.len() < books.told as usize {
                alive.insert(format!("{next:05}"));
                next += 1;
            }
            if random(10) == 0 {
                alive.pop_first();
            }
        }
        assert!(next > 1000);
    }
}
