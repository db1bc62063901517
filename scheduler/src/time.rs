//! The time, as decisions see it.

use std::time::Duration;

/// A moment on a clock that never jumps: time since the manager started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// How long ago that was; zero for the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Both clocks at once: durations are measured on the one that never jumps, periods are
/// looked up on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For durations.
    pub moment: Moment,
    /// For periods.
    pub wall: jiff::Timestamp,
}
