//! Groups that the last process left, and the keys by which groups are known in the state.
//!
//! Each group of before is taken up once, whoever asks first; no key is used twice.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::config::{self, Template};
use crate::state::GroupRecord;

/// A group of before: its key, and what it was made from.
pub(super) type Left = (String, GroupRecord);

pub(super) struct Known(Mutex<Inner>);

struct Inner {
    left: Vec<Left>,
    used: BTreeSet<String>,
}

impl Known {
    pub(super) fn new(left: Vec<Left>) -> Self {
        let used = left.iter().map(|(key, _)| key.clone()).collect();
        Self(Mutex::new(Inner { left, used }))
    }

    /// The groups that an entry had, the best first: one with the same template, and one that
    /// was not retired yet.
    pub(super) fn take(&self, entry: &config::Runner) -> Vec<Left> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |left: &Left| left.1.runner == entry.key();
        let (mut own, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.left).into_iter().partition(is_own);
        inner.left = rest;
        own.sort_by_key(|(_, group)| (!is_same(group, entry), group.retired));
        own
    }

    /// It could not be taken up.
    pub(super) fn give_back(&self, left: Left) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left.push(left);
    }

    /// All that nobody has taken.
    pub(super) fn take_rest(&self, entries: &[config::Runner]) -> Vec<Left> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |left: &Left| entries.iter().any(|entry| entry.key() == left.1.runner);
        let (wanted, rest) = std::mem::take(&mut inner.left).into_iter().partition(is_wanted);
        inner.left = wanted;
        rest
    }

    /// A key for a group that nobody knows. The first one of an entry is the entry's own: a
    /// file of before groups were kept has jobs and instances under it.
    pub(super) fn fresh_key(&self, entry: &config::Runner) -> String {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = (2..).map(|n| format!("{}|{n}", entry.key()));
        let mut names = std::iter::once(entry.key()).chain(numbered);
        let key = names.find(|name| !inner.used.contains(name)).unwrap_or_default();
        inner.used.insert(key.clone());
        key
    }

    /// A fresh key was not used after all.
    pub(super) fn unused(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).used.remove(key);
    }
}

/// Whether a group makes the instances that an entry wants.
pub(super) fn is_same(group: &GroupRecord, entry: &config::Runner) -> bool {
    Template::from_text(&group.template).is_ok_and(|it| it == entry.autoscaler.template)
}
