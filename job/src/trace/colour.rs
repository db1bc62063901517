//! The terminal colours of GitLab Runner's own lines.

/// Ends all colours.
pub const RESET: &str = "\x1b[0;m";
/// Clears to the end of the line.
pub const CLEAR: &str = "\x1b[0K";
/// Titles of stages.
pub const BOLD_CYAN: &str = "\x1b[36;1m";
/// Notices and echoed commands.
pub const BOLD_GREEN: &str = "\x1b[32;1m";
/// Errors.
pub const BOLD_RED: &str = "\x1b[31;1m";
/// Exceeded limits.
pub const BOLD_YELLOW: &str = "\x1b[33;1m";
/// Warnings.
pub const YELLOW: &str = "\x1b[0;33m";
