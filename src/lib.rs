//! The contract between a runner manager and its provider plugins, both sides of it.
//!
//! A *provider plugin* is a separate process that owns one *instance group* of some
//! cloud. It speaks GitLab's fleeting protocol over go-plugin's handshake, so a plugin
//! made with this crate runs under GitLab Runner as well as under Mayfly, and Mayfly
//! hosts plugins made with GitLab's Go library.
//!
//! * [`InstanceGroup`] is what a provider implements, [`serve`] is its whole `main`.
//! * `host` (feature `host`) starts, guards, calls and stops plugins.
//!
//! No gRPC or protobuf type appears in this API: the wire is hidden in `wire`.

mod build_info;
mod contract;
mod environment;
pub mod guarding;
mod handshake;
mod hclog;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "serve")]
mod serve;
mod wire;

pub use build_info::BuildInfo;
pub use contract::{
    ConnectInfo, ConnectorConfig, Error, GroupInfo, InstanceGroup, InstanceState, InstanceStatus,
    Partial, Protocol, Settings,
};
pub use environment::is_for_providers;
#[cfg(feature = "serve")]
pub use serve::serve;
