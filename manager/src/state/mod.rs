//! Recovery state: what this process must know to go on after any end.
//!
//! Every intent is here before it is done, every fact after; a transition is one
//! transaction. Records are keyed by server and runner, never by token. Nothing secret is
//! here but the tokens of jobs that run, without which their logs could not go on, and
//! templates of groups, without which a group whose entry is gone could not be drained.

mod records;
mod room;
mod store;
mod tables;

pub(crate) use records::{
    AskRecord, BootsRecord, GroupRecord, InstanceRecord, JobRecord, LostRecord,
};
pub(crate) use store::{State, StateError};
