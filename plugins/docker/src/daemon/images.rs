//! Images: whether one is there, and fetching it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Daemon, DaemonError, escape};
use crate::image::{Login, Reference};

/// A large image over a slow line.
const PULL_LIMIT: Duration = Duration::from_secs(30 * 60);
/// One message of progress; longer ones do not exist.
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

impl Daemon {
    /// Whether the daemon has an image.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, DaemonError> {
        let request = self.call(Method::GET, &format!("/images/{}/json", escape(image)));
        match self.send(&format!("look for image {image}"), request).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image from its registry.
    pub(crate) async fn pull(
        &self,
        image: &Reference,
        login: Option<&Login>,
    ) -> Result<(), DaemonError> {
        let step = format!("pull image {image}");
        let mut request = self
            .call(Method::POST, "/images/create")
            .query(&[("fromImage", image.repository()), ("tag", image.version())])
            .timeout(PULL_LIMIT);
        if let Some(login) = login {
            request = request.header("X-Registry-Auth", header(login, image.registry()));
        }
        let mut response = self.send(&step, request).await?;
        let mut line = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| self.unreachable(&step, &error))?;
            let Some(chunk) = chunk else {
                return check(&step, &line);
            };
            for part in chunk.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if part.ends_with(b"\n") || line.len() > MESSAGE_LIMIT_BYTES {
                    check(&step, &line)?;
                    line.clear();
                }
            }
        }
    }
}

/// A failed pull is a success that tells of its failure.
fn check(step: &str, line: &[u8]) -> Result<(), DaemonError> {
    #[derive(Deserialize)]
    struct Progress {
        error: Option<String>,
    }
    match serde_json::from_slice(line) {
        Ok(Progress { error: Some(message) }) => {
            Err(DaemonError::Refused { step: step.to_owned(), status: 200, message })
        }
        _ => Ok(()),
    }
}

fn header(login: &Login, registry: &str) -> String {
    let content = match login {
        Login::Password { user, password } => {
            json!({"username": user, "password": password, "serveraddress": registry})
        }
        Login::Token(token) => json!({"identitytoken": token, "serveraddress": registry}),
    };
    URL_SAFE.encode(content.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_found_in_the_progress() {
        assert!(check("pull", br#"{"status":"Pulling fs layer","progressDetail":{}}"#).is_ok());
        assert!(check("pull", b"").is_ok());
        let failed = check("pull image x", br#"{"errorDetail":{},"error":"manifest unknown"}"#);
        assert_eq!(
            failed.expect_err("an error").to_string(),
            "cannot pull image x: manifest unknown"
        );
    }
}
