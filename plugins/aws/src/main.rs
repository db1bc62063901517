//! `fleeting-plugin-aws`: instances of EC2 Auto Scaling groups.
//!
//! `--iam-policy [GROUP…]` prints the permissions that it needs.

mod policy;

use std::process::ExitCode;

fn main() -> ExitCode {
    policy::print_if_asked().unwrap_or(ExitCode::FAILURE)
}
