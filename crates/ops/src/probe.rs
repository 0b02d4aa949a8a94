//! The operator's port: `/metrics`, `/livez`, `/readyz`. Says what a process reports of itself; decides nothing.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a process is not ready, by part; ready when nothing is left.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Vec<(&'static str, String)>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl Readiness {
    /// Says that `part` is not ready, and why.
    pub fn blocked_by(&self, part: &'static str, why: impl Into<String>) {
        self.0.send_modify(|reasons| {
            reasons.retain(|(name, _)| *name != part);
            reasons.push((part, why.into()));
        });
    }

    /// Says that `part` is ready.
    pub fn ready(&self, part: &'static str) {
        self.0
            .send_modify(|reasons| reasons.retain(|(name, _)| *name != part));
    }

    /// One line per part that is not ready; empty when all are.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.borrow();
        reasons
            .iter()
            .map(|(part, why)| format!("{part}: {why}"))
            .collect()
    }

    /// Waits until all parts are ready.
    pub async fn wait(&self) {
        // The sender is held by `self`, so the channel cannot close.
        let _ = self.0.subscribe().wait_for(Vec::is_empty).await;
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
