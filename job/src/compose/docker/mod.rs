//! From a job and `[runners.docker]` to the containers that it runs in. Pure.

mod options;

pub use options::{Device, Docker, HostOptions, PullPolicy, Service};
