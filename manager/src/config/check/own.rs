//! `[runners.mayfly]`: our own keys.

use std::time::Duration;

use super::super::file::{GoDuration, RunnerEntry};
use super::super::report::Findings;

/// Longer than the 105 s after which a manager gives a job up whose instance it cannot reach
/// (three keepalives and a minute); much less than the hour after which GitLab drops a job
/// that it hears nothing of.
const REPORT_ALONE_AFTER: Duration = Duration::from_secs(120);
/// Less is surely a mistake: a number without a unit is nanoseconds.
const SHORTEST_ALONE: Duration = Duration::from_secs(1);

/// How long an agent is without a manager before it tells the server of its job by itself.
pub(super) fn alone_after(entry: &RunnerEntry, at: &str, findings: &mut Findings) -> Duration {
    let Some(GoDuration(after)) = entry.mayfly.report_alone_after else {
        return REPORT_ALONE_AFTER;
    };
    let key = format!("{at}.mayfly.report_alone_after");
    if !after.is_zero() && after < SHORTEST_ALONE {
        findings.error(
            &key,
            format!("{after:?} is too short"),
            "write it with its unit, as \"120s\"; \"0s\" switches it off",
        );
    } else if !after.is_zero() && after < REPORT_ALONE_AFTER {
        findings.warn(
            &key,
            format!("{after:?} is less than a manager takes to give up an instance"),
            "an agent and its manager may tell the server different ends of a job",
        );
    }
    after
}
