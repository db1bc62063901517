//! What requests have in common: tokens, bounded bodies, and how a refusal looks.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::state::Server;

/// Headers a token may stand in; which one depends on the runner's age.
const TOKEN_HEADERS: [&str; 3] = ["job-token", "runner-token", "private-token"];
/// Largest JSON body: a job request with every feature flag is below 4 KiB.
const JSON_LIMIT: usize = 1 << 20;
/// How long a small body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// A request that is not done as asked.
#[derive(Debug)]
pub(super) enum Refusal {
    BadRequest(&'static str),
    Unauthorized,
    /// Wrong token, or a job in the wrong state: then with GitLab's word for that state.
    Forbidden(Option<&'static str>),
    NotFound,
    MethodNotAllowed,
    Timeout,
    /// The log did not arrive intact; it is to be sent again from the start.
    TraceInvalid,
    TooLarge,
    UnsupportedMediaType,
    /// The log is this long; the next bytes must start there.
    Range(u64),
    Internal,
    Busy,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail) = match &self {
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, *detail),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, ""),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, ""),
            Self::NotFound => (StatusCode::NOT_FOUND, ""),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, ""),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, ""),
            Self::TraceInvalid => (StatusCode::PRECONDITION_FAILED, "send the trace again"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, ""),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, ""),
            Self::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, ""),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, ""),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, ""),
        };
        let separator = if detail.is_empty() { "" } else { ": " };
        let body = serde_json::json!({ "message": format!("{status}{separator}{detail}") });
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (status, json, body.to_string()).into_response();
        let headers = response.headers_mut();
        let mut add = |name: &'static str, value: String| {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        };
        match self {
            Self::Unauthorized => add("www-authenticate", "Basic realm=\"mayfly\"".into()),
            Self::Forbidden(Some(word)) => add("job-status", word.into()),
            Self::Range(length) => add("range", format!("0-{length}")),
            Self::Busy => add("retry-after", "1".into()),
            _ => {}
        }
        response
    }
}

/// The whole body, if it is no longer than `limit` bytes and arrives in time.
pub(super) async fn whole(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let collected = timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| Refusal::Timeout)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Err(_) => Err(Refusal::BadRequest("the body is cut off")),
    }
}

pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = whole(body, JSON_LIMIT).await?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::BadRequest("the body is not as expected"))
}

/// Does `work` to its end even if whoever asked for it goes away.
pub(super) async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or(Err(Refusal::Internal))
}

/// Whether `shown`, or a token in the headers, is `expected`.
pub(super) fn has_token(headers: &HeaderMap, shown: Option<&str>, expected: &str) -> bool {
    let in_headers = TOKEN_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    shown.into_iter().chain(in_headers).any(|token| same_secret(token, expected))
}

/// Compares by digest, so that the time it takes says nothing about either.
pub(super) fn same_secret(shown: &str, expected: &str) -> bool {
    Sha256::digest(shown) == Sha256::digest(expected)
}

impl Server {
    /// The job with this id, if a runner has it and shows its token.
    pub(super) fn live_job(
        &self,
        id: u64,
        headers: &HeaderMap,
        shown: Option<&str>,
    ) -> Result<usize, Refusal> {
        let job = self.own_job(id, headers, shown)?;
        if !self.ledger.is_live(job) {
            return Err(Refusal::Forbidden(Some(self.word(job))));
        }
        self.ledger.hear(job);
        Ok(job)
    }

    /// The job with this id, in whatever state, if its token is shown.
    pub(super) fn own_job(
        &self,
        id: u64,
        headers: &HeaderMap,
        shown: Option<&str>,
    ) -> Result<usize, Refusal> {
        let job = self.job(id).ok_or(Refusal::NotFound)?;
        if has_token(headers, shown, &self.files[job].token) {
            return Ok(job);
        }
        Err(Refusal::Forbidden(None))
    }
}
