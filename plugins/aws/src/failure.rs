//! What went wrong at AWS, as one line: the call, AWS's code and reason, and what to do.
//!
//! The SDK's errors hold no credentials, and requests are never shown.

use std::error::Error;
use std::fmt;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

/// The longest reason that is shown: an answer may be a whole page of HTML.
const LONGEST_REASON: usize = 600;

/// A variant per reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AWS asks for fewer calls; nothing was done.
    Throttled,
    /// What was named does not exist.
    Absent,
    /// No answer, or none that says whether it was done.
    Unsure,
    /// Refused; nothing was done.
    Refused,
}

/// One call that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    message: String,
}

impl Failure {
    /// One that AWS did not word.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Failure> for mayfly_plugin::Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.message)
    }
}

/// Reads an error of the SDK. `call` is the name of AWS's operation.
pub(crate) fn failed<E>(call: &str, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let code = error.code().unwrap_or_default();
    let reason = match error.message() {
        Some(message) if !code.is_empty() => format!("{code}: {message}"),
        _ => chain(error),
    };
    let kind = kind(code, error.message().unwrap_or_default(), status);
    let reason = one_line(&reason);
    Failure { kind, message: format!("{call}: {reason}{}", advice(code, kind)) }
}

fn kind(code: &str, message: &str, status: Option<u16>) -> Kind {
    let throttling = ["Throttling", "RequestLimitExceeded", "TooManyRequests", "RequestThrottled"];
    if throttling.iter().any(|word| code.starts_with(word)) || status == Some(429) {
        return Kind::Throttled;
    }
    if code.starts_with("InvalidInstanceID") || message.contains("not found") {
        return Kind::Absent;
    }
    match status {
        Some(status) if status < 500 && !code.is_empty() => Kind::Refused,
        _ => Kind::Unsure,
    }
}

fn advice(code: &str, kind: Kind) -> &'static str {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            "; `fleeting-plugin-aws --iam-policy` prints what the plugin needs"
        }
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "AuthFailure"
        | "RequestExpired"
        | "SignatureDoesNotMatch" => {
            "; look at the credentials (profile, role) and at this machine's clock"
        }
        _ if kind == Kind::Throttled => "; the account has a limit of calls per second",
        _ => "",
    }
}

/// An error with what caused it; the SDK's own texts alone say little.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.ends_with(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_means_is_told_by_code_and_status() {
        for (code, message, status, expected) in [
            ("Throttling", "Rate exceeded", Some(400), Kind::Throttled),
            ("ThrottlingException", "", Some(400), Kind::Throttled),
            ("RequestLimitExceeded", "", Some(503), Kind::Throttled),
            ("InvalidInstanceID.NotFound", "", Some(400), Kind::Absent),
            ("ValidationError", "AutoScalingGroup name not found - x", Some(400), Kind::Absent),
            ("ValidationError", "violates min size", Some(400), Kind::Refused),
            ("InternalFailure", "", Some(500), Kind::Unsure),
            ("", "", Some(400), Kind::Unsure),
            ("", "", None, Kind::Unsure),
        ] {
            assert_eq!(kind(code, message, status), expected, "{code} {status:?}");
        }
    }

    #[test]
    fn a_page_becomes_a_line_that_ends() {
        let page = "<html>\n  ".repeat(500);
        let line = one_line(&page);
        assert!(!line.contains('\n') && line.ends_with('…'), "{line}");
        assert_eq!(line.chars().count(), LONGEST_REASON + 1);
    }
}
