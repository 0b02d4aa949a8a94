//! What decoders find in a body: all of it, or only the way to the items.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::{logs, metrics, profiles, trace};
use prost::{DecodeError, Message};
use wire::count::Format;
use wire::loki::PushRequest;
use wire::prometheus::{v1, v2};

/// Decodes all of `body` into the messages of its schema and counts their items.
pub(super) fn items(format: Format, body: &[u8]) -> Result<u64, DecodeError> {
    let items: usize = match format {
        Format::Traces => trace::v1::TracesData::decode(body)?
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans)
            .map(|scope| scope.spans.len())
            .sum(),
        Format::Metrics => metrics::v1::MetricsData::decode(body)?
            .resource_metrics
            .iter()
            .flat_map(|resource| &resource.scope_metrics)
            .flat_map(|scope| &scope.metrics)
            .map(|metric| match &metric.data {
                None => 0,
                Some(Data::Gauge(data)) => data.data_points.len(),
                Some(Data::Sum(data)) => data.data_points.len(),
                Some(Data::Histogram(data)) => data.data_points.len(),
                Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
                Some(Data::Summary(data)) => data.data_points.len(),
            })
            .sum(),
        Format::Logs => logs::v1::LogsData::decode(body)?
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs)
            .map(|scope| scope.log_records.len())
            .sum(),
        Format::Profiles => profiles::v1development::ProfilesData::decode(body)?
            .resource_profiles
            .iter()
            .flat_map(|resource| &resource.scope_profiles)
            .flat_map(|scope| &scope.profiles)
            .map(|profile| profile.samples.len())
            .sum(),
        Format::RemoteWrite1 => v1::WriteRequest::decode(body)?
            .timeseries
            .iter()
            .map(|series| series.samples.len() + series.histograms.len())
            .sum(),
        Format::RemoteWrite2 => v2::Request::decode(body)?
            .timeseries
            .iter()
            .map(|series| series.samples.len() + series.histograms.len())
            .sum(),
        Format::LokiPush => PushRequest::decode(body)?
            .streams
            .iter()
            .map(|stream| stream.entries.len())
            .sum(),
    };
    Ok(items as u64)
}

/// Decodes the way to the items by a schema that has nothing else, and counts them. What refuses a body here is damage that
/// counting must see.
pub(super) fn skeleton(format: Format, body: &[u8]) -> Result<u64, DecodeError> {
    let items: usize = match format {
        Format::Traces | Format::Logs => Three::decode(body)?
            .children
            .iter()
            .flat_map(|resource| &resource.children)
            .map(|scope| scope.items.len())
            .sum(),
        Format::Metrics => ThreeMetrics::decode(body)?
            .children
            .iter()
            .flat_map(|resource| &resource.children)
            .flat_map(|scope| &scope.children)
            .map(|metric| match &metric.data {
                None => 0,
                Some(
                    Kind::Gauge(data)
                    | Kind::Sum(data)
                    | Kind::Histogram(data)
                    | Kind::ExponentialHistogram(data)
                    | Kind::Summary(data),
                ) => data.items.len(),
            })
            .sum(),
        Format::Profiles => ThreeProfiles::decode(body)?
            .children
            .iter()
            .flat_map(|resource| &resource.children)
            .flat_map(|scope| &scope.children)
            .map(|profile| profile.items.len())
            .sum(),
        Format::RemoteWrite1 => RemoteWrite1::decode(body)?
            .children
            .iter()
            .map(|series| series.samples.len() + series.histograms.len())
            .sum(),
        Format::RemoteWrite2 => RemoteWrite2::decode(body)?
            .children
            .iter()
            .map(|series| series.samples.len() + series.histograms.len())
            .sum(),
        Format::LokiPush => Loki::decode(body)?
            .children
            .iter()
            .map(|stream| stream.items.len())
            .sum(),
    };
    Ok(items as u64)
}

/// Whether it is one of the two things about groups that prost judges and counting does not.
pub(super) fn is_about_groups(error: &DecodeError) -> bool {
    let text = error.to_string();
    text.ends_with("unexpected end group tag") || text.ends_with("recursion limit reached")
}

/// Field 2, once.
#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(bytes = "vec", repeated, tag = "2")]
    items: Vec<Vec<u8>>,
}

macro_rules! message_of {
    ($name:ident, $tag:literal, $child:ty) => {
        #[derive(Clone, PartialEq, Message)]
        struct $name {
            #[prost(message, repeated, tag = $tag)]
            children: Vec<$child>,
        }
    };
}

message_of!(Two, "2", Items);
message_of!(Three, "1", Two);

message_of!(OneProfiles, "2", Items);
message_of!(TwoProfiles, "2", OneProfiles);
message_of!(ThreeProfiles, "1", TwoProfiles);

message_of!(OneMetrics, "2", Metric);
message_of!(TwoMetrics, "2", OneMetrics);
message_of!(ThreeMetrics, "1", TwoMetrics);

message_of!(RemoteWrite1, "1", Series1);
message_of!(RemoteWrite2, "5", Series2);
message_of!(Loki, "1", Items);

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(oneof = "Kind", tags = "5, 7, 9, 10, 11")]
    data: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "5")]
    Gauge(Points),
    #[prost(message, tag = "7")]
    Sum(Points),
    #[prost(message, tag = "9")]
    Histogram(Points),
    #[prost(message, tag = "10")]
    ExponentialHistogram(Points),
    #[prost(message, tag = "11")]
    Summary(Points),
}

#[derive(Clone, PartialEq, Message)]
struct Points {
    #[prost(bytes = "vec", repeated, tag = "1")]
    items: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Series1 {
    #[prost(bytes = "vec", repeated, tag = "2")]
    samples: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Series2 {
    #[prost(bytes = "vec", repeated, tag = "2")]
    samples: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    histograms: Vec<Vec<u8>>,
}
