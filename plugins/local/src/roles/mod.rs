//! The parts of an instance that this binary plays when it executes itself.
//!
//! ```text
//! plugin ─► instance (keeper): detached, outside of all namespaces
//!             └─ init: first process of the instance's own process tree
//!                  └─ sshd: what the instance's user may do ─► jobs
//! ```
//! Without isolation there is no `init`; the keeper adopts orphans itself. Executing
//! `/proc/self/exe` keeps running instances on the binary they were started with.

mod dispatch;
mod init;
mod keeper;
mod sshd_server;

pub(crate) use dispatch::{INSTANCE, PROBE, role_command, run_if_asked};
