//! Whether a provider plugin does what hosts rely on: a closed list of checks, run against
//! the real process from outside, by the words of the wire.
//!
//! Every check is noted once. What a failed check makes impossible to judge is skipped,
//! with that as the reason: one fault, one finding.

mod bare;
mod catalogue;
mod connecting;
mod creation;
mod deletion;
mod exam;
mod findings;
mod lab;
mod life;
mod made;
mod process;
mod texts;
mod words;

pub(crate) use catalogue::Check;
pub(crate) use exam::examine;
pub(crate) use findings::{Findings, Outcome};
pub(crate) use lab::Options;
pub(crate) use made::{Made, clean_up};
