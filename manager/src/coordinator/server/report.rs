//! Runners report on jobs: PUT requests keep a job alive or end it.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    EventKind,
    answer::{self, Refusal},
    ledger::{End, Reported},
    state::Server,
};

/// Longest failure reason that is kept; GitLab's words are below 50 bytes.
const REASON_LIMIT: usize = 100;

#[derive(Deserialize)]
struct Update {
    token: Option<String>,
    state: Option<String>,
    failure_reason: Option<String>,
    exit_code: Option<i64>,
    checksum: Option<String>,
    output: Option<Output>,
}

#[derive(Deserialize)]
struct Output {
    checksum: Option<String>,
    bytesize: Option<u64>,
}

/// PUT /api/v4/jobs/:id
pub(super) async fn update(
    State(server): State<Arc<Server>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let update: Update = answer::json(body).await?;
    let job = server.own_job(id, &headers, update.token.as_deref())?;
    let word = server.word(job);
    let reported = match update.state.as_deref() {
        Some("pending" | "running") => None,
        Some("success") => Some(Reported::Success),
        Some("failed") => Some(Reported::Failed),
        _ => return Err(Refusal::BadRequest("state is none of running, success, failed")),
    };
    if !server.ledger.is_live(job) {
        let is_repeated = reported.is_some() && server.ledger.record(job).reported == reported;
        return if is_repeated { Ok(done(&server, word)) } else { Err(forbidden(word)) };
    }
    server.ledger.hear(job);
    if let Some(reported) = reported {
        let server = Arc::clone(&server);
        let end = async move { finish(&server, job, reported, update).await };
        answer::uninterrupted(end).await?;
    }
    Ok(done(&server, word))
}

/// Ends the job once its log is known to be whole.
async fn finish(
    server: &Server,
    job: usize,
    reported: Reported,
    update: Update,
) -> Result<(), Refusal> {
    let mut trace = server.files[job].trace.lock().await;
    let (checksum, length) = match update.output {
        Some(output) => (output.checksum.or(update.checksum), output.bytesize),
        None => (update.checksum, None),
    };
    let checksum = checksum.filter(|checksum| !checksum.is_empty());
    if !trace.is_intact(checksum.as_deref(), length) {
        let has_reset = trace.reset().await.map_err(|error| {
            tracing::error!(job, %error, "cannot empty a job's log");
            Refusal::Internal
        })?;
        if has_reset {
            server.ledger.tell_trace(job, EventKind::TraceReset { job });
            return Err(Refusal::TraceInvalid);
        }
        tracing::warn!(job, "a job's log does not match its checksum and is kept as it came");
    }
    let failed = reported == Reported::Failed;
    let reason = update.failure_reason.filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or_else(|| "script_failure".into());
    let end = End {
        reported: Some(reported),
        exit_code: update.exit_code.and_then(|code| i32::try_from(code).ok()),
        failure_reason: failed.then(|| reason.chars().take(REASON_LIMIT).collect()),
    };
    server.ledger.finish(job, end);
    Ok(())
}

/// The job's state before the report, as in GitLab.
fn done(server: &Server, word: &'static str) -> Response {
    let interval = server.options.limits.trace_interval.as_secs().max(1);
    let headers = [
        ("job-status", word.to_string()),
        ("x-gitlab-trace-update-interval", interval.to_string()),
    ];
    (StatusCode::OK, headers, Json(serde_json::json!({}))).into_response()
}

fn forbidden(word: &'static str) -> Refusal {
    Refusal::Forbidden(Some(word))
}
