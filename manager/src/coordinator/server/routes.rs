//! Which address does what.

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, patch, post, put},
};

use super::{answer::Refusal, artifacts, fetch, report, request, state::Server, trace};

/// All that is served.
pub(super) fn router(server: Arc<Server>) -> Router {
    let job = Router::new()
        .route("/", put(report::update))
        .route("/trace", patch(trace::append))
        .route("/artifacts", get(artifacts::download).post(artifacts::upload));
    let api = Router::new()
        .route("/runners/verify", post(request::verify))
        .route("/jobs/request", post(request::request))
        .nest("/jobs/{id}", job)
        .fallback(async || Refusal::NotFound);
    Router::new().nest("/api/v4", api).fallback(fetch::serve).with_state(server)
}
