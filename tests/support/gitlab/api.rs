//! The runner API over HTTP: paths, headers and statuses; what they mean is in `jobs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, patch, post, put};
use serde_json::{Value, json};

use super::JobId;
use super::fault::{Endpoint, Fault};
use super::git;
use super::jobs::{Answer, Archive, Update};
use super::line::{self, Line};
use super::shared::Shared;

const LAST_UPDATE: &str = "x-gitlab-last-update";
/// Artifacts of tests are small; the log's pieces have 1 MiB at most.
const LARGEST_BODY_BYTES: usize = 256 * 1024 * 1024;

type Server = State<Arc<Shared>>;
type On = ConnectInfo<Line>;

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v4/jobs/request", post(request_job))
        .route("/api/v4/jobs/{id}", put(update_job))
        .route("/api/v4/jobs/{id}/trace", patch(patch_trace))
        .route("/api/v4/jobs/{id}/artifacts", post(upload).get(download))
        .route("/api/v4/runners/verify", post(verify))
        .route("/{group}/{project}/{*rest}", any(git::serve))
        .layer(DefaultBodyLimit::max(LARGEST_BODY_BYTES))
        .with_state(shared)
}

async fn request_job(State(shared): Server, ConnectInfo(line): On, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let process = hold(Arc::clone(&shared), request);
    answer(&shared, Endpoint::RequestJob, &line, process).await
}

/// Answers when there is a job, or when the time is over. As at GitLab's Workhorse only a
/// client that echoes the newest `X-GitLab-Last-Update` is kept waiting.
async fn hold(shared: Arc<Shared>, request: Value) -> Response {
    let runner = request["token"].as_str().unwrap_or_default().to_owned();
    if shared.is_revoked(&runner) {
        return status(403);
    }
    let settings = shared.settings();
    let is_new = request["last_update"].as_str() == Some(&shared.jobs().version.to_string());
    let end = tokio::time::Instant::now() + settings.hold;
    let waiting = Waiting::new(&shared);
    loop {
        let arrived = shared.arrived.notified();
        tokio::pin!(arrived);
        arrived.as_mut().enable();
        if let Some((payload, version)) = shared.hand_out(&runner) {
            let headers = [
                (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
                (LAST_UPDATE, version.to_string()),
            ];
            return (StatusCode::CREATED, headers, payload.to_string()).into_response();
        }
        let is_over = !is_new || tokio::time::timeout_at(end, arrived).await.is_err();
        if is_over {
            drop(waiting);
            let version = shared.jobs().version.to_string();
            return (StatusCode::NO_CONTENT, [(LAST_UPDATE, version)]).into_response();
        }
    }
}

/// Counts a job request that is being held.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Whoever waits for this number looks at it under the lock.
        drop(shared.jobs());
        shared.changed();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn update_job(
    State(shared): Server,
    ConnectInfo(line): On,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let output = &said["output"];
    let update = Update {
        state: text(&said["state"]).unwrap_or_default(),
        failure_reason: text(&said["failure_reason"]),
        exit_code: said["exit_code"].as_i64(),
        output: text(&output["checksum"]).zip(output["bytesize"].as_u64()),
    };
    let endpoint = if update.state == "running" { Endpoint::Touch } else { Endpoint::Finish };
    let token = text(&said["token"]).unwrap_or_else(|| job_token(&headers));
    let process = async {
        let answer = shared.change(|jobs, now| jobs.update((JobId(id), &token), update, now));
        reply(&shared, &answer, "{}")
    };
    answer(&shared, endpoint, &line, process).await
}

async fn patch_trace(
    State(shared): Server,
    ConnectInfo(line): On,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = job_token(&headers);
    let range = text_of(&headers, "content-range")
        .and_then(|range| range.split_once('-'))
        .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let process = async {
        let answer = shared.change(|jobs, now| jobs.append((JobId(id), &token), range, &body, now));
        reply(&shared, &answer, "")
    };
    answer(&shared, Endpoint::Trace, &line, process).await
}

async fn upload(
    State(shared): Server,
    ConnectInfo(line): On,
    (Path(id), RawQuery(query)): (Path<u64>, RawQuery),
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let process = async {
        let kind = text_of(&headers, "content-type").unwrap_or_default();
        let Some((filename, content)) = file_of_form(kind, &body) else {
            return status(400);
        };
        let archive = Archive { filename, query: query.unwrap_or_default(), content };
        let token = job_token(&headers);
        let answer = shared.change(|jobs, now| jobs.store((JobId(id), &token), archive, now));
        reply(&shared, &answer, "{}")
    };
    answer(&shared, Endpoint::Upload, &line, process).await
}

async fn download(
    State(shared): Server,
    ConnectInfo(line): On,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Response {
    let process = async {
        let token = job_token(&headers);
        match shared.change(|jobs, now| jobs.fetch((JobId(id), &token), now)) {
            Ok(content) => content.into_response(),
            Err(code) => status(code),
        }
    };
    answer(&shared, Endpoint::Download, &line, process).await
}

async fn verify(State(shared): Server, ConnectInfo(line): On, body: Bytes) -> Response {
    let process = async {
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        if shared.is_revoked(said["token"].as_str().unwrap_or_default()) {
            return status(403);
        }
        let runner = json!({"id": 1, "token": said["token"], "token_expires_at": null});
        axum::Json(runner).into_response()
    };
    answer(&shared, Endpoint::Verify, &line, process).await
}

/// Processes a call, unless a fault is due that does otherwise.
async fn answer(
    shared: &Shared,
    endpoint: Endpoint,
    line: &Line,
    process: impl Future<Output = Response>,
) -> Response {
    shared.requests[endpoint as usize].fetch_add(1, Ordering::Relaxed);
    let fault = shared.faults().take(endpoint, Instant::now());
    match fault {
        None => process.await,
        Some(Fault::Answer { status, headers }) => {
            let mut response = self::status(status);
            for (name, value) in headers {
                if let Ok(value) = value.parse() {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Some(Fault::LoseRequest) => line.cut().await,
        Some(Fault::LoseAnswer) => {
            drop(process.await);
            line.cut().await
        }
        Some(Fault::CutAnswer) => line::cut_body(process.await).await,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            process.await
        }
        Some(Fault::SlowBody(pause)) => line::slow_body(process.await, pause).await,
    }
}

fn reply(shared: &Shared, answer: &Answer, body: &'static str) -> Response {
    let mut response = status(answer.status);
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    };
    if let Some(job_status) = answer.job_status {
        set("job-status", job_status.into());
        let interval = shared.settings().update_interval.as_secs_f64();
        set("x-gitlab-trace-update-interval", interval.to_string());
    }
    if let Some(end) = answer.range {
        set("range", format!("0-{end}"));
    }
    if !body.is_empty() {
        set("content-type", "application/json".into());
        *response.body_mut() = Body::from(body);
    }
    response
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// GitLab Runner 17 sends the job's token as `Private-Token` in updates.
fn job_token(headers: &HeaderMap) -> String {
    let token = text_of(headers, "job-token").or_else(|| text_of(headers, "private-token"));
    token.unwrap_or_default().to_owned()
}

/// Name and content of the only file of a `multipart/form-data` body.
fn file_of_form(content_type: &str, body: &Bytes) -> Option<(String, Bytes)> {
    let boundary = content_type.split_once("boundary=")?.1.trim_matches('"');
    let start = find(body, format!("--{boundary}\r\n").as_bytes())?;
    let head_end = start + find(&body[start..], b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&body[start..head_end]).into_owned();
    let filename = head.split_once("filename=\"")?.1.split('"').next()?.to_owned();
    let tail = format!("\r\n--{boundary}--");
    // From the end: the boundary may be part of the content before.
    let from = body.len().saturating_sub(tail.len() + 4);
    let end = from + find(&body[from..], tail.as_bytes())?;
    Some((filename, body.slice(head_end + 4..end)))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_one_file() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.zip\"\r\n\r\nx\r\n--b y\r\n--b--\r\n";
        let (name, content) =
            file_of_form("multipart/form-data; boundary=b", &Bytes::from_static(body))
                .expect("a file");
        assert_eq!((name.as_str(), content.as_ref()), ("a.zip", b"x\r\n--b y".as_slice()));
        assert!(file_of_form("text/plain", &Bytes::from_static(body)).is_none());
    }
}
