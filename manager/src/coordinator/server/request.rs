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
    #[serde(default)]
    info: Info,
}

#[derive(Deserialize, Default)]
struct Info {
    #[serde(default)]
    features: Features,
}

#[derive(Deserialize, Default)]
struct Features {
    #[serde(default)]
    cancel_gracefully: bool,
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
        if let Some(job) = server.ledger.take(request.info.features.cancel_gracefully) {
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
