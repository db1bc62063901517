//! One attempt of each call of the runner API.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};

use super::wire::{Info, JobIdentity, JobRequestBody, Output, UpdateBody, VerifyBody};
use crate::config::Server;
use crate::secret::Secret;

/// GitLab holds a job request open for 50 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds of `X-GitLab-Trace-Update-Interval`; GitLab Runner takes 15 minutes at most.
const SHORTEST_UPDATE_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_UPDATE_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Largest job payload that is taken.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

/// Calls for one runner of one server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    api_url: String,
    token: Secret,
    system_id: String,
    info: Info,
    /// Echoed to the server: this makes it hold requests open.
    last_update: Mutex<String>,
}

/// The answer to a job request.
#[derive(Debug)]
pub(crate) enum JobRequest {
    /// A job, to be acknowledged and run.
    Job(Box<job::payload::Job>),
    /// A job that this build does not understand.
    Unreadable {
        /// Its id.
        id: u64,
        /// Its token.
        token: Secret,
        /// What is not understood.
        why: String,
    },
    /// None now.
    Nothing,
}

/// Why a call failed, as far as its caller can react.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The token is not accepted: it was revoked, or the runner was removed.
    #[error("the server does not accept the token ({0}); is the runner still registered there?")]
    Forbidden(StatusCode),
    /// Something that may be better next time.
    #[error("{what}")]
    Temporary {
        /// What was seen.
        what: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Something that will not.
    #[error("{0}")]
    Refused(String),
}

/// What the server says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    /// It may go on.
    Running,
    /// It shall be stopped gracefully.
    Canceling,
    /// It is over for the server: nothing more is to be sent.
    Over,
}

/// The server took something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    /// What it says of the job.
    pub(crate) job: JobState,
    /// How often it wants to hear of the job.
    pub(crate) update_interval: Option<Duration>,
}

/// A piece of a job's log.
#[derive(Clone, Debug)]
pub(crate) struct LogPiece {
    /// Where the server's log ends.
    pub(crate) offset: u64,
    pub(crate) bytes: bytes::Bytes,
    /// Whether the log may hold secrets: the server then shows it to fewer people.
    pub(crate) debug: bool,
}

/// What became of a piece of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patched {
    /// It is stored.
    Stored(Ack),
    /// The server has the log up to this offset only, or further: go on from there.
    Elsewhere(u64),
}

/// How a job ended, in the server's words.
#[derive(Clone, Debug)]
pub(crate) struct FinalState {
    pub(crate) success: bool,
    pub(crate) failure_reason: &'static str,
    pub(crate) exit_code: Option<i32>,
    /// Size and CRC-32 of the whole log, where they are known.
    pub(crate) log: Option<(u64, u32)>,
}

/// What became of a final state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// The job is done.
    Accepted,
    /// Not stored yet: say it again after a while.
    NotYet(Ack),
    /// The log that the server has is not the whole: send it again from the start.
    LogDiffers,
    /// The server has given the job up.
    Over,
}

impl Client {
    pub(crate) fn new(server: &Server, system_id: &str) -> Result<Self, ApiError> {
        let build = |error: reqwest::Error| {
            ApiError::Refused(format!("cannot make an HTTP client: {error}"))
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(crate::USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A token never follows a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        builder = crate::trust::apply(builder, &server.ca_certificates)
            .map_err(|error| ApiError::Refused(error.to_string()))?;
        Ok(Self {
            http: builder.build().map_err(build)?,
            api_url: format!("{}/api/v4/", server.url),
            token: server.token.clone(),
            system_id: system_id.to_owned(),
            info: Info::new(),
            last_update: Mutex::default(),
        })
    }

    /// Asks for a job; the server may take its time.
    pub(crate) async fn request_job(&self) -> Result<JobRequest, ApiError> {
        let last_update = self.last_update.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let body = JobRequestBody {
            info: &self.info,
            token: self.token.reveal(),
            system_id: &self.system_id,
            last_update: &last_update,
        };
        let request = self
            .http
            .post(format!("{}jobs/request", self.api_url))
            .header("RUNNER-TOKEN", self.token.reveal())
            .timeout(REQUEST_TIMEOUT)
            .json(&body);
        let response = request.send().await.map_err(|error| temporary(&error))?;
        if let Some(value) = text_header(response.headers(), "x-gitlab-last-update") {
            *self.last_update.lock().unwrap_or_else(PoisonError::into_inner) = value.to_owned();
        }
        match response.status() {
            StatusCode::CREATED => {
                let bytes = body_of(response).await?;
                read_job(&bytes)
            }
            StatusCode::NO_CONTENT => Ok(JobRequest::Nothing),
            _ => Err(failure(response).await),
        }
    }

    /// Tells that a job runs. It is how a job is acknowledged, and how a silent one is
    /// kept alive.
    pub(crate) async fn touch(&self, job: u64, token: &Secret) -> Result<Ack, ApiError> {
        let response = self.put(job, token, "running", None).await?;
        match response.status() {
            status if status.is_success() => Ok(ack(response.headers())),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(OVER),
            _ => Err(failure(response).await),
        }
    }

    /// Tells how a job ended.
    pub(crate) async fn finish(
        &self,
        job: u64,
        token: &Secret,
        end: &FinalState,
    ) -> Result<Finished, ApiError> {
        let state = if end.success { "success" } else { "failed" };
        let response = self.put(job, token, state, Some(end)).await?;
        match response.status() {
            StatusCode::OK => Ok(Finished::Accepted),
            StatusCode::ACCEPTED => Ok(Finished::NotYet(ack(response.headers()))),
            StatusCode::PRECONDITION_FAILED => Ok(Finished::LogDiffers),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(Finished::Over),
            _ => Err(failure(response).await),
        }
    }

    /// Appends to a job's log.
    pub(crate) async fn patch_trace(
        &self,
        job: u64,
        token: &Secret,
        piece: LogPiece,
    ) -> Result<Patched, ApiError> {
        let LogPiece { offset, bytes, debug } = piece;
        let end = offset + bytes.len() as u64;
        let response = self
            .http
            .patch(format!("{}jobs/{job}/trace?debug_trace={debug}", self.api_url))
            .header("JOB-TOKEN", token.reveal())
            .header("Content-Type", "text/plain")
            .header("Content-Range", format!("{offset}-{}", end.saturating_sub(1)))
            .timeout(CALL_TIMEOUT)
            .body(bytes)
            .send()
            .await
            .map_err(|error| temporary(&error))?;
        match response.status() {
            StatusCode::ACCEPTED => Ok(Patched::Stored(ack(response.headers()))),
            StatusCode::RANGE_NOT_SATISFIABLE => match range_end(response.headers()) {
                Some(end) => Ok(Patched::Elsewhere(end)),
                None => Err(ApiError::Temporary {
                    what: "the server refuses the log's range, and does not say which it wants"
                        .into(),
                    retry_after: None,
                }),
            },
            StatusCode::FORBIDDEN => Ok(Patched::Stored(OVER)),
            _ => Err(failure(response).await),
        }
    }

    /// Whether the server knows the token. GitLab learns the features from it.
    pub(crate) async fn verify(&self) -> Result<(), ApiError> {
        let body =
            VerifyBody { info: &self.info, token: self.token.reveal(), system_id: &self.system_id };
        let response = self
            .http
            .post(format!("{}runners/verify", self.api_url))
            .header("RUNNER-TOKEN", self.token.reveal())
            .timeout(CALL_TIMEOUT)
            .json(&body)
            .send()
            .await
            .map_err(|error| temporary(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(failure(response).await) }
    }

    async fn put(
        &self,
        job: u64,
        token: &Secret,
        state: &str,
        end: Option<&FinalState>,
    ) -> Result<Response, ApiError> {
        let log = end.and_then(|end| end.log);
        let checksum = log.map(|(_, crc32)| format!("crc32:{crc32:08x}"));
        let body = UpdateBody {
            info: &self.info,
            token: token.reveal(),
            state,
            failure_reason: end.filter(|end| !end.success).map(|end| end.failure_reason),
            checksum: checksum.as_deref(),
            output: log
                .zip(checksum.as_deref())
                .map(|((bytesize, _), checksum)| Output { checksum, bytesize }),
            exit_code: end.and_then(|end| end.exit_code),
        };
        let request = self
            .http
            .put(format!("{}jobs/{job}", self.api_url))
            .header("JOB-TOKEN", token.reveal())
            .timeout(CALL_TIMEOUT)
            .json(&body);
        request.send().await.map_err(|error| temporary(&error))
    }
}

fn read_job(payload: &[u8]) -> Result<JobRequest, ApiError> {
    let why = match serde_json::from_slice(payload) {
        Ok(job) => return Ok(JobRequest::Job(Box::new(job))),
        Err(error) => error.to_string(),
    };
    match serde_json::from_slice::<JobIdentity>(payload) {
        Ok(JobIdentity { id, token }) => {
            Ok(JobRequest::Unreadable { id, token: Secret::new(token), why })
        }
        Err(_) => {
            Err(ApiError::Refused(format!("the server sent a job that cannot be read: {why}")))
        }
    }
}

const OVER: Ack = Ack { job: JobState::Over, update_interval: None };

fn ack(headers: &HeaderMap) -> Ack {
    let job = match text_header(headers, "job-status") {
        Some("canceled" | "failed") => JobState::Over,
        Some("canceling") => JobState::Canceling,
        _ => JobState::Running,
    };
    let interval = text_header(headers, "x-gitlab-trace-update-interval");
    let update_interval = interval
        .and_then(|text| text.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|interval| !interval.is_zero())
        .map(|interval| interval.clamp(SHORTEST_UPDATE_INTERVAL, LONGEST_UPDATE_INTERVAL));
    Ack { job, update_interval }
}

/// `Range: 0-N` says that the log has N bytes.
fn range_end(headers: &HeaderMap) -> Option<u64> {
    text_header(headers, "range")?.rsplit('-').next()?.trim().parse().ok()
}

fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

async fn body_of(response: Response) -> Result<bytes::Bytes, ApiError> {
    let too_long = response.content_length().is_some_and(|n| n > MAX_PAYLOAD_BYTES as u64);
    if too_long {
        return Err(ApiError::Refused("the server sent a job that is too large".into()));
    }
    let bytes = response.bytes().await.map_err(|error| temporary(&error))?;
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(ApiError::Refused("the server sent a job that is too large".into()));
    }
    Ok(bytes)
}

fn temporary(error: &reqwest::Error) -> ApiError {
    // The innermost cause says what happened; the outer ones repeat the URL.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    ApiError::Temporary { what: format!("the server cannot be reached: {what}"), retry_after: None }
}

async fn failure(response: Response) -> ApiError {
    let status = response.status();
    let retry_after = text_header(response.headers(), "retry-after")
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ApiError::Forbidden(status),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            ApiError::Temporary { what: format!("the server answered {status}"), retry_after }
        }
        status if status.is_server_error() => {
            ApiError::Temporary { what: format!("the server answered {status}"), retry_after }
        }
        status => {
            let text = response.text().await.unwrap_or_default();
            let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            ApiError::Refused(format!("the server answered {status}: {text}"))
        }
    }
}
