//! Which certificates TLS connections trust: those of the configuration and those of the
//! system.

/// Where distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: these are no certificates: {source}")]
pub(crate) struct BadCertificates {
    origin: String,
    source: reqwest::Error,
}

/// Makes a client trust `pem` beside the system's certificates. A machine without any is
/// no error: plain http still works, and https then says what is missing.
pub(crate) fn apply(
    builder: reqwest::ClientBuilder,
    pem: &[u8],
) -> Result<reqwest::ClientBuilder, BadCertificates> {
    let mut certificates = parse("tls-ca-file", pem)?;
    let from_environment = std::env::var("SSL_CERT_FILE").ok();
    let files = from_environment.iter().map(String::as_str).chain(SYSTEM_CERTIFICATES);
    for file in files {
        if let Ok(pem) = std::fs::read(file) {
            certificates.extend(parse(file, &pem)?);
            break;
        }
    }
    Ok(builder.tls_certs_only(certificates))
}

fn parse(origin: &str, pem: &[u8]) -> Result<Vec<reqwest::Certificate>, BadCertificates> {
    if pem.is_empty() {
        return Ok(Vec::new());
    }
    reqwest::Certificate::from_pem_bundle(pem)
        .map_err(|source| BadCertificates { origin: origin.into(), source })
}
