//! The host's side: start a plugin under a guard, call it with deadlines, stop it.
//!
//! Nothing of a plugin outlives its host: it runs in a process group of its own under a
//! guard, a re-executed host binary that kills the group the moment the host is gone.
//! A program that hosts plugins must call [`run_guard_if_asked`] first thing in `main`.

mod client;
mod discovery;
mod failure;
mod gate;
mod guard;
mod launch;
mod output;
mod probe;
mod process;
mod supervise;

pub use client::CallError;
pub use discovery::{FindError, find, install_dir};
pub use failure::{StartCause, StartError};
pub use guard::run_guard_if_asked;
pub use launch::{Launch, Plugin};
pub use probe::{ConnectAnswer, Description, Printed, Probe};
pub use supervise::{StartFailure, Supervised, SupervisedStatus};

pub use crate::handshake::HandshakeError;

/// The variable that tells a plugin that a host started it, and its value.
pub const COOKIE: (&str, &str) = (crate::handshake::COOKIE_NAME, crate::handshake::COOKIE_VALUE);
