//! Reading what was received: the JSON API and the page at `/`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use model::{Signal, TenantId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::store::{Received, Sink, TenantSummary};

const PAGE: &str = include_str!("page.html");

type NotFound = (StatusCode, Json<Value>);

pub(super) fn routes() -> Router<Sink> {
    Router::new()
        .route("/", get(Html(PAGE)))
        // What Vector's health check for Loki asks before it sends.
        .route("/ready", get("ready\n"))
        .route("/api/tenants", get(tenants))
        .route("/api/tenants/{id}", axum::routing::delete(clear))
        .route("/api/tenants/{id}/{signal}", get(received))
}

async fn tenants(State(sink): State<Sink>) -> Json<Vec<TenantSummary>> {
    Json(sink.tenants())
}

#[derive(Deserialize)]
struct Page {
    /// At most so many requests, the newest.
    limit: Option<usize>,
}

async fn received(
    State(sink): State<Sink>,
    Path((id, signal)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Arc<Received>>>, NotFound> {
    let signal = Signal::ALL
        .into_iter()
        .find(|known| known.as_str() == signal);
    let signal =
        signal.ok_or_else(|| not_found("no such signal: use traces, metrics, logs or profiles"))?;
    let limit = page.limit.unwrap_or(usize::MAX);
    Ok(Json(sink.received(&tenant(&id)?, signal, limit)))
}

async fn clear(
    State(sink): State<Sink>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, NotFound> {
    sink.clear(&tenant(&id)?);
    Ok(StatusCode::NO_CONTENT)
}

fn tenant(id: &str) -> Result<TenantId, NotFound> {
    TenantId::parse(id).map_err(|error| not_found(&error.to_string()))
}

fn not_found(error: &str) -> NotFound {
    (StatusCode::NOT_FOUND, Json(json!({"error": error})))
}
