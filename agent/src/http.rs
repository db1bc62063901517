//! An HTTP client for the job server: its certificates, no redirects, deadlines.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Where distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client that trusts these certificates (PEM) beside the system's, and waits at most so
/// long for an answer; with a limit of the whole request, for all of it.
pub(crate) fn client(
    ca_certificates: &[u8],
    user_agent: &str,
    (response_limit, whole_limit): (Duration, Option<Duration>),
) -> Result<ureq::Agent, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(root_certificates(ca_certificates)?)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // A token must not follow a redirect to another host.
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT.min(response_limit)))
        .timeout_recv_response(Some(response_limit))
        .timeout_global(whole_limit)
        .user_agent(user_agent)
        .build();
    Ok(config.into())
}

/// These certificates and the system's; Mozilla's where there are none.
fn root_certificates(pem: &[u8]) -> Result<RootCerts, Error> {
    let mut certificates = parse(pem)?;
    for path in SYSTEM_CERTIFICATES {
        if let Ok(pem) = std::fs::read(path) {
            // One that cannot be read is the machine's business, not the job's.
            certificates.extend(parse_pem(&pem).flatten().filter_map(certificate));
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
        certificates.extend(certificate(item));
    }
    Ok(certificates)
}

fn certificate(item: PemItem<'static>) -> Option<Certificate<'static>> {
    match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    }
}
