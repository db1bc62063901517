//! The manager's own log, on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFlags;

/// Flag, then configuration, then `info`. Libraries say only what went wrong.
pub(crate) fn init(flags: &LogFlags, configured: Option<&str>, json: bool) {
    let level = flags.log_level.as_deref().or(configured).unwrap_or("info");
    let level = match level {
        // GitLab Runner's words that tracing has not.
        "panic" | "fatal" => "error",
        "warning" => "warn",
        other => other,
    };
    let directives = format!("warn,mayfly={level},mayfly_plugin={level},plugin={level}");
    let filter =
        EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("warn,mayfly=info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call can only come from a test.
    let _ = if flags.log_json || json { builder.json().try_init() } else { builder.try_init() };
}
