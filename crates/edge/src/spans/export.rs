//! Sends spans by OTLP/gRPC, many at a time.

use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Finished, span};
use crate::metrics::SpanMetrics;

/// Spans in one message.
const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long one message may take, tries included.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// How long the last ones may take, while the process stops.
const LAST_MAX: Duration = Duration::from_secs(5);
const NAME: &str = "okmon-edge";

/// Makes what exports to `endpoint`, with these lines as headers. It connects when it first sends. The library adds the headers
/// of `OTEL_EXPORTER_OTLP_HEADERS`.
pub(super) fn exporter(endpoint: &str, headers: &str) -> Result<SpanExporter, String> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_MAX)
        .with_metadata(metadata(headers)?);
    if endpoint.starts_with("https:") {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_native_roots());
    }
    let mut exporter = builder
        .build()
        .map_err(|error| format!("spans.endpoint: {error}"))?;
    let resource = Resource::builder().with_service_name(NAME).build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// Reads lines of `name: value`. What is wrong is told without the value, which may be a secret.
fn metadata(lines: &str) -> Result<MetadataMap, String> {
    let mut headers = http::HeaderMap::new();
    for (n, line) in lines.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = line.split_once(':').and_then(|(name, value)| {
            let name = http::HeaderName::try_from(name.trim()).ok()?;
            let mut value = http::HeaderValue::try_from(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        let (name, value) = read
            .ok_or_else(|| format!("spans.headers_file: line {} is not \"name: value\"", n + 1))?;
        headers.append(name, value);
    }
    Ok(MetadataMap::from_headers(headers))
}

/// Exports what workers hand over until none can any more, or `stop`; and what is left then.
pub(super) async fn keep_exporting(
    exporter: SpanExporter,
    mut arriving: mpsc::Receiver<Finished>,
    metrics: SpanMetrics,
    stop: CancellationToken,
) {
    let mut exporting = Exporting {
        exporter,
        scope: InstrumentationScope::builder(NAME).build(),
        metrics,
        failing: false,
    };
    let sending = async {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let is_open = tokio::select! {
                is_open = gather(&mut arriving, &mut batch) => is_open,
                () = stop.cancelled() => false,
            };
            while batch.len() < BATCH_MAX
                && let Ok(finished) = arriving.try_recv()
            {
                batch.push(finished);
            }
            if !batch.is_empty() {
                exporting.export(&mut batch).await;
            } else if !is_open {
                // None are handed over any more: the workers have ended, or have others to hand over to.
                break;
            }
        }
    };
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_MAX).await;
    };
    tokio::select! {
        () = sending => {}
        () = too_late => warn!("the last spans were not exported: nobody took them in time"),
    }
}

/// Gathers a batch; false when nothing will come any more.
async fn gather(arriving: &mut mpsc::Receiver<Finished>, batch: &mut Vec<Finished>) -> bool {
    if batch.is_empty() && arriving.recv_many(batch, BATCH_MAX).await == 0 {
        return false;
    }
    let until = tokio::time::sleep(GATHER);
    let more = async {
        while batch.len() < BATCH_MAX
            && arriving.recv_many(batch, BATCH_MAX - batch.len()).await > 0
        {}
    };
    tokio::select! {
        () = until => {}
        () = more => {}
    }
    true
}

struct Exporting {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    metrics: SpanMetrics,
    failing: bool,
}

impl Exporting {
    /// Sends a batch, which is empty then. What is not taken in time is dropped: it is of no use later.
    async fn export(&mut self, batch: &mut Vec<Finished>) {
        let count = batch.len() as u64;
        let spans = batch
            .drain(..)
            .map(|finished| span::span(finished, &self.scope));
        let exported = self.exporter.export(spans.collect());
        let exported = tokio::time::timeout(EXPORT_MAX, exported).await;
        let error = match exported {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", EXPORT_MAX.as_secs())),
        };
        match &error {
            None => {
                self.metrics.exported.increment(count);
                if self.failing {
                    info!("spans are exported again");
                }
            }
            Some(error) => {
                self.metrics.dropped_in_export.increment(count);
                if !self.failing {
                    warn!(
                        error,
                        "spans could not be exported; they are dropped until they can"
                    );
                }
            }
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_what_is_wrong_is_told_without_the_secret() {
        let read = metadata("# a key\n\nAuthorization: Bearer obs_secret\nx-a: b: c\r\n").unwrap();
        assert_eq!(read.get("authorization").unwrap(), "Bearer obs_secret");
        assert_eq!(read.get("x-a").unwrap(), "b: c");
        assert!(!format!("{read:?}").contains("obs_secret"));
        for bad in ["obs_secret", "a b: obs_secret", ": obs_secret"] {
            let error = metadata(&format!("x-a: b\n{bad}")).unwrap_err();
            assert!(error.contains("line 2"), "{error}");
            assert!(!error.contains("obs_secret"), "{error}");
        }
    }
}
