//! `fleeting-plugin-mayfly`: several provider plugins as one group, under supervision.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
