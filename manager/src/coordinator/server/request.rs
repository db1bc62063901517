//! Runners come for jobs: the request, held open while there is none, and token verification.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::{
    answer::{self, Refusal},
    state::Server,
};

/// What is looked at of a job request; runners send far more.
#[derive(Deserialize)]
struct Request {
    token: Option<String>,
    info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    features: Option<Features>,
}

#[derive(Deserialize)]
struct Features {
    cancel_gracefully: Option<bool>,
}

impl Request {
    fn can_cancel_gracefully(&self) -> bool {
        let features = self.info.as_ref().and_then(|info| info.features.as_ref());
        features.and_then(|features| features.cancel_gracefully).unwrap_or(false)
    }
}

/// POST /api/v4/jobs/request
pub(super) async fn request(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request: Request = answer::json(body).await?;
    check(&server, &headers, request.token.as_deref())?;
    let deadline = Instant::now() + server.options.limits.long_poll;
    loop {
        let changed = server.ledger.queue.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(job) = server.ledger.take(request.can_cancel_gracefully()) {
            let payload = Json(server.payload(job));
            return Ok((StatusCode::CREATED, last_update(&server), payload).into_response());
        }
        let is_over = tokio::select! {
            () = changed => false,
            () = sleep_until(deadline) => true,
            () = server.stop.cancelled() => true,
        };
        if is_over {
            return Ok((StatusCode::NO_CONTENT, last_update(&server)).into_response());
        }
    }
}

/// POST /api/v4/runners/verify
pub(super) async fn verify(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request: Request = answer::json(body).await?;
    check(&server, &headers, request.token.as_deref())?;
    let token = &server.options.runner_token;
    let body = serde_json::json!({ "id": 1, "token": token, "token_expires_at": null });
    Ok(Json(body).into_response())
}

fn check(server: &Server, headers: &HeaderMap, shown: Option<&str>) -> Result<(), Refusal> {
    if answer::has_token(headers, shown, &server.options.runner_token) {
        return Ok(());
    }
    Err(Refusal::Forbidden(None))
}

fn last_update(server: &Server) -> [(&'static str, String); 1] {
    [("x-gitlab-last-update", server.ledger.update().to_string())]
}
