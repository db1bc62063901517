//! One attempt of each call of the runner API.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use job::plan::Report;
use job::report::{Ack, Answer, FinalState, Finished, Patched, Update};
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};

use super::wire::{Info, JobIdentity, JobRequestBody, VerifyBody};
use crate::config::Server;
use crate::secret::Secret;

/// GitLab holds a job request open for 50 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest job payload that is taken.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

/// Calls for one runner of one server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    api_url: String,
    ca_certificates: Vec<u8>,
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

/// A piece of a job's log.
#[derive(Clone, Debug)]
pub(crate) struct LogPiece {
    /// Where the server's log ends.
    pub(crate) offset: u64,
    pub(crate) bytes: bytes::Bytes,
    /// Whether the log may hold secrets: the server then shows it to fewer people.
    pub(crate) debug: bool,
}

impl Client {
    pub(crate) fn new(
        server: &Server,
        system_id: &str,
        in_containers: bool,
    ) -> Result<Self, ApiError> {
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
            ca_certificates: server.ca_certificates.clone(),
            token: server.token.clone(),
            system_id: system_id.to_owned(),
            info: Info::new(in_containers),
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
        let response = self.put(job, token, None).await?;
        match answer(&response).to_update() {
            Some(ack) => Ok(ack),
            None => Err(failure(response).await),
        }
    }

    /// Tells how a job ended.
    pub(crate) async fn finish(
        &self,
        job: u64,
        token: &Secret,
        end: &FinalState,
    ) -> Result<Finished, ApiError> {
        let response = self.put(job, token, Some(end)).await?;
        match answer(&response).to_final_state() {
            Some(finished) => Ok(finished),
            None => Err(failure(response).await),
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
        match answer(&response).to_piece() {
            Some(patched) => Ok(patched),
            None => Err(failure(response).await),
        }
    }

    /// What an agent needs to tell the server of a job by itself, once it was without any
    /// manager for `after`.
    pub(crate) fn report(
        &self,
        job: &job::payload::Job,
        after: Duration,
        debug_trace: bool,
    ) -> Report {
        Report {
            api_url: self.api_url.clone(),
            ca_certificates: self.ca_certificates.clone(),
            user_agent: crate::USER_AGENT.into(),
            job_id: job.id,
            job_token: job.token.clone(),
            info: serde_json::to_string(&self.info).unwrap_or_default(),
            failure_reasons: job.features.failure_reasons.clone(),
            debug_trace,
            after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
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
        end: Option<&FinalState>,
    ) -> Result<Response, ApiError> {
        let body = Update::new(&self.info, token.reveal(), end);
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

fn answer(response: &Response) -> Answer {
    Answer::new(response.status().as_u16(), |name| text_header(response.headers(), name))
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
    let retry_after = text_header(response.headers(), "retry-after");
    let retry_after = retry_after.and_then(job::report::retry_after);
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ApiError::Forbidden(status),
        status if job::report::may_pass(status.as_u16()) => {
            ApiError::Temporary { what: format!("the server answered {status}"), retry_after }
        }
        status => {
            let text = response.text().await.unwrap_or_default();
            let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            ApiError::Refused(format!("the server answered {status}: {text}"))
        }
    }
}
