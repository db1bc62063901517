//! `fleeting-plugin-aws`: instances of EC2 Auto Scaling groups.
//!
//! `--iam-policy [GROUP…]` prints the permissions that it needs.

mod access;
mod capacity;
mod checks;
mod cloud;
mod config;
mod failure;
mod fleet;
mod group;
mod lease;
mod machines;
mod notices;
mod password;
mod policy;
mod scaling;
mod standing;
mod suspending;

use std::process::ExitCode;

fn main() -> ExitCode {
    policy::print_if_asked().unwrap_or_else(|| mayfly_plugin::serve(group::AwsGroup::default()))
}
