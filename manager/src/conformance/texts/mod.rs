//! What the report and the documentation say of each check.

mod calls;
mod life;
mod process;

use super::Check;

/// What a report says of a check.
pub(super) struct Text {
    pub(super) check: Check,
    pub(super) group: &'static str,
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) why: &'static str,
    pub(super) change: &'static str,
}

/// In the order of [`Check`].
pub(super) fn texts() -> impl Iterator<Item = &'static Text> {
    [process::TEXTS, calls::TEXTS, life::TEXTS].into_iter().flatten()
}
