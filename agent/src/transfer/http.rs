//! Artifacts' requests to the runner API, with their retries.

use std::thread;
use std::time::Duration;

use job::plan::Transfer;
use ureq::http::Response;
use ureq::{Body, SendBody};

use crate::{Error, http};

/// Attempts and waits of GitLab Runner's artifact commands.
const ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// GitLab Runner's default for `[runners.artifact] response_header_timeout`.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(600);
pub(super) struct Http {
    agent: ureq::Agent,
    api_url: String,
}

/// What an attempt came to.
pub(super) enum Attempt<T> {
    Done(T),
    /// Worth trying again.
    Again(String),
    /// Not worth it.
    Never(String),
}

impl Http {
    pub(super) fn new(transfer: &Transfer) -> Result<Self, Error> {
        let (certificates, name) = (&transfer.ca_certificates, &transfer.user_agent);
        let agent = http::client(certificates, name, (RESPONSE_TIMEOUT, None))?;
        Ok(Self { agent, api_url: transfer.api_url.clone() })
    }

    /// URL of something of a job.
    pub(super) fn url(&self, job_id: u64, what: &str) -> String {
        format!("{}jobs/{job_id}/{what}", self.api_url)
    }

    pub(super) fn get(
        &self,
        url: &str,
        job_token: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = job_token {
            request = request.header("JOB-TOKEN", token);
        }
        request.call()
    }

    pub(super) fn post(
        &self,
        url: &str,
        job_token: &str,
        content_type: &str,
        (body, limit): (SendBody<'_>, Duration),
    ) -> Result<Response<Body>, ureq::Error> {
        self.agent
            .post(url)
            .config()
            .timeout_send_body(Some(limit))
            .build()
            .header("JOB-TOKEN", job_token)
            .content_type(content_type)
            .send(body)
    }
}

/// Tries until it is done or hopeless.
pub(super) fn retry<T>(what: &str, mut attempt: impl FnMut() -> Attempt<T>) -> Result<T, Error> {
    let mut wait = FIRST_WAIT;
    for left in (0..ATTEMPTS).rev() {
        match attempt() {
            Attempt::Done(done) => return Ok(done),
            Attempt::Never(why) => return Err(Error::new(format!("{what}: {why}"))),
            Attempt::Again(why) if left == 0 => return Err(Error::new(format!("{what}: {why}"))),
            Attempt::Again(why) => println!("WARNING: {what}: {why}. Retrying..."),
        }
        thread::sleep(wait);
        wait *= 2;
    }
    Err(Error::new(format!("{what}: gave up")))
}

/// Whether a status means that the server may do better next time.
pub(super) fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504) || status >= 512
}
