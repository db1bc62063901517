//! What all black-box tests use: the real binaries, a GitLab that does as it is told, a
//! manager under a test's thumb, OpenSSH, and a look at the processes of this machine.
//!
//! Everything blocks, and everything ends with the value that started it. Nothing here
//! knows a crate of ours: what is tested is what a user gets.

pub mod binaries;
mod container_jobs;
pub mod docker;
pub mod gitlab;
pub mod manager;
mod own_docker;
pub mod processes;
pub mod sshd;
pub mod static_build;
pub mod wait;

pub use binaries::{Binaries, binaries};
pub use container_jobs::{BUSYBOX, ContainerJobs, DEBIAN};
pub use docker::Docker;
pub use gitlab::{Audit, Endpoint, Event, Fault, GitLab, JobId, JobSpec, State};
pub use manager::{Manager, Runner};
pub use own_docker::{OwnDocker, SmallDisk};
pub use sshd::Sshd;
pub use wait::{seconds, until};

use std::io::Write as _;

/// Says what is missing for this test and leaves it. Where the environment has `CI`, a
/// test that is skipped has failed.
#[macro_export]
macro_rules! skip {
    ($($missing:tt)*) => {{
        $crate::skipped(&format!($($missing)*));
        return;
    }};
}

/// Says that something is not tested, and why. Panics where the environment has `CI`.
pub fn skipped(missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {missing}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `println!`: the test runner keeps that to itself.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing}");
}
