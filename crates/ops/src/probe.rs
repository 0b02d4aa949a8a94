//! The operator's port: `/metrics`, `/livez`, `/readyz`. Says what a process reports of itself; decides nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why a process is not ready, by part; ready when nothing is left.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Readiness {
    /// Says that `part` is not ready, and why.
    pub fn blocked_by(&self, part: &'static str, why: impl Into<String>) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.retain(|(name, _)| *name != part);
        reasons.push((part, why.into()));
    }

    /// Says that `part` is ready.
    pub fn ready(&self, part: &'static str) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.retain(|(name, _)| *name != part);
    }

    /// One line per part that is not ready; empty when all are.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons
            .iter()
            .map(|(part, why)| format!("{part}: {why}"))
            .collect()
    }
}

/// Serves the operator's port until `stop`.
///
/// `/livez` is 200 while the process can answer at all, `/readyz` 200 or 503 with the reasons, `/metrics` the Prometheus
/// text format.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
    stop: CancellationToken,
) -> io::Result<()> {
    let readyz = async move || {
        let reasons = readiness.reasons();
        if reasons.is_empty() {
            (StatusCode::OK, "ready\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
        }
    };
    let render = async move || {
        let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
        (text, metrics.render()).into_response()
    };
    let router = Router::new()
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
