//! One connection per instance: dial, prepare, start jobs, attach to jobs.
//!
//! `ssh` knows SSH and nothing of agents, `line` speaks frames with one agent, `prepare`
//! makes an instance fit for jobs, `connection` is what the rest of the manager holds.

mod binary;
mod command;
mod connection;
mod docker;
mod line;
mod own_key;
mod prepare;
mod ssh;

pub(crate) use binary::Agents;
pub(crate) use connection::Connection;
pub(crate) use docker::Docker;
pub(crate) use line::AgentLine;
pub(crate) use own_key::OwnKey;
pub(crate) use prepare::{Preparation, PrepareError, Remembered};
pub(crate) use ssh::{Access, DialError};
