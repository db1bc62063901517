//! How far an instance is kept apart from the machine, and what the kernel allows.
//!
//! `full` needs root: a user id, mounts and processes of its own. `user` needs user
//! namespaces: the plugin's user, with mounts and processes of its own. `none` keeps
//! nothing apart and must be asked for by name. The network is shared in all of them.

mod accounts;
mod choice;
mod hidden;
mod namespaces;
mod view;

pub(crate) use accounts::{UidClaims, accounts_files, user_name};
pub(crate) use choice::Isolation;
pub(crate) use hidden::hidden_paths;
pub(crate) use namespaces::{enter, separate_children, try_out};
