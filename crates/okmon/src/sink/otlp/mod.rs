//! The four export requests of OTLP: what signal they carry, and how many items.

pub(super) mod grpc;
pub(super) mod http;

use model::Signal;
use opentelemetry_proto::tonic::collector;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) use collector::logs::v1::ExportLogsServiceRequest as Logs;
pub(super) use collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
pub(super) use collector::profiles::v1development::ExportProfilesServiceRequest as Profiles;
pub(super) use collector::trace::v1::ExportTraceServiceRequest as Traces;

/// A request of one of OTLP's services. Its JSON is OTLP's.
pub(super) trait Export: prost::Message + Default + Serialize + DeserializeOwned {
    /// What it carries.
    const SIGNAL: Signal;

    /// How many spans, data points, log records or profiles.
    fn item_count(&self) -> usize;
}

impl Export for Traces {
    const SIGNAL: Signal = Signal::Traces;

    fn item_count(&self) -> usize {
        let scopes = self
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }
}

impl Export for Metrics {
    const SIGNAL: Signal = Signal::Metrics;

    fn item_count(&self) -> usize {
        let scopes = self
            .resource_metrics
            .iter()
            .flat_map(|resource| &resource.scope_metrics);
        scopes
            .flat_map(|scope| &scope.metrics)
            .map(data_point_count)
            .sum()
    }
}

impl Export for Logs {
    const SIGNAL: Signal = Signal::Logs;

    fn item_count(&self) -> usize {
        let scopes = self
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs);
        scopes.map(|scope| scope.log_records.len()).sum()
    }
}

impl Export for Profiles {
    const SIGNAL: Signal = Signal::Profiles;

    fn item_count(&self) -> usize {
        let scopes = self
            .resource_profiles
            .iter()
            .flat_map(|resource| &resource.scope_profiles);
        scopes.map(|scope| scope.profiles.len()).sum()
    }
}

fn data_point_count(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
    }
}
