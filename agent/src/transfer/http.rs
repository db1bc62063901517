//! Requests to the runner API, with its certificates, retries and redirects.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use job::plan::Transfer;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Body, SendBody};

use crate::Error;

/// Attempts and waits of GitLab Runner's artifact commands.
const ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// GitLab Runner's default for `[runners.artifact] response_header_timeout`.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(600);
/// Where distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(root_certificates(&transfer.ca_certificates)?)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // A token must not follow a redirect to another host.
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .user_agent(&transfer.user_agent)
            .build();
        Ok(Self { agent: config.into(), api_url: transfer.api_url.clone() })
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

/// The plan's certificates and the system's; Mozilla's where there are none.
fn root_certificates(pem: &[u8]) -> Result<RootCerts, Error> {
    let mut certificates = parse(pem)?;
    for path in SYSTEM_CERTIFICATES {
        if let Ok(pem) = std::fs::read(path) {
            certificates.extend(parse(&pem)?);
            break;
        }
    }
    if certificates.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn parse(pem: &[u8]) -> Result<Vec<Certificate<'static>>, Error> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        let item = item.map_err(|error| Error::new(format!("a CA certificate: {error}")))?;
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    Ok(certificates)
}
