//! What an instance is while it runs: one process, detached from the plugin, that serves
//! SSH and runs what it is told as the plugin's user. There is no isolation.

mod boot;
mod ending;
mod role;

pub(crate) use boot::{Login, boot, find, leave_notice, login};
pub(crate) use ending::end;
pub(crate) use role::{ROLE, run};

/// The variable that every process of an instance is started with: its directory.
const MARKER: &str = "MAYFLY_SIM_INSTANCE";
