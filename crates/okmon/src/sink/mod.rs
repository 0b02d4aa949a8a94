//! The sink of `okmon dev`: stands in for Mimir, Loki, Tempo and the Collector on one port and shows what arrived.
//!
//! It decodes for real, answers as the backend of the path would, and keeps the newest data in memory (`store` says how
//! much). It checks no credentials: whoever reaches it is taken at its word about the tenant, as the backends do.

mod api;
mod head;
mod inflate;
mod loki;
mod otlp;
mod remote_write;
mod store;

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use store::{Counts, Protocol, Received, Sink, TenantSummary};

/// The largest request body, as sent and again as inflated. In bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// How long requests under way may take once the sink was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);

impl Sink {
    /// Serves `listener` until `stop`: HTTP/1.1, HTTP/2 with prior knowledge and gRPC on one port.
    ///
    /// Requests under way at `stop` get two seconds.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let serving = axum::serve(listener, router(self))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            ended = serving => ended,
            () = async { stop.cancelled().await; tokio::time::sleep(DRAIN_MAX).await } => Ok(()),
        }
    }
}

fn router(sink: Sink) -> Router {
    Router::new()
        .merge(api::routes())
        .merge(otlp::http::routes())
        .merge(remote_write::routes())
        .merge(loki::routes())
        .merge(otlp::grpc::routes(&sink))
        .fallback(otlp::grpc::unknown_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sink)
}
