//! The decisions: how many instances there should be, which ones go, and why.
//!
//! Pure: no clock, no IO, no randomness, no async. `now` is a parameter, maps are ordered,
//! equal inputs give equal plans. The async world feeds facts into a [`Fleet`], asks
//! [`decide`] what to do, does it, and feeds back what came of it.
//!
//! * [`period`] and [`policy`]: GitLab's idle policies.
//! * [`fleet`]: our picture of one instance group, and what may happen to it.
//! * [`decide()`]: fleet, policy and limits become a [`Plan`].
//! * [`boot`]: how long instances take to come up, learned.
//! * [`limits`]: what bounds creation, whoever asks for it.

pub mod boot;
mod decide;
pub mod fleet;
pub mod limits;
pub mod period;
pub mod plan;
pub mod policy;
pub mod time;

pub use decide::{decide, decide_end};
pub use fleet::Fleet;
pub use limits::Limits;
pub use plan::{Plan, Reason};
pub use policy::Schedule;
pub use time::Now;
