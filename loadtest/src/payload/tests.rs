//! Bodies are what they claim to be: decoded by the real message types.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;

use super::*;

const PROTOCOLS: [Protocol; 4] = [
    Protocol::OtlpGrpc,
    Protocol::OtlpHttp,
    Protocol::RemoteWrite,
    Protocol::Loki,
];
const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

fn body(protocol: Protocol, signal: Signal) -> Bytes {
    protocol.bodies(signal, 4096, 1).remove(0)
}

#[test]
fn bodies_have_about_the_asked_size_on_the_wire() {
    for protocol in PROTOCOLS {
        for signal in SIGNALS {
            for (size, off_max) in [(1024, 200), (32 * 1024, 650), (1024 * 1024, 20_000)] {
                for body in protocol.bodies(signal, size, 3) {
                    assert!(
                        body.len().abs_diff(size) < off_max,
                        "{protocol:?} {signal:?}: asked {size}, got {}",
                        body.len()
                    );
                }
            }
        }
    }
}

#[test]
fn bodies_of_one_run_differ() {
    for protocol in PROTOCOLS {
        let bodies = protocol.bodies(Signal::Logs, 1024, 8);
        for (n, body) in bodies.iter().enumerate() {
            assert!(!bodies[..n].contains(body), "{protocol:?}: body {n} again");
        }
    }
}

#[test]
fn otlp_bodies_decode_into_spans_metrics_and_log_records() {
    let traces =
        ExportTraceServiceRequest::decode(body(Protocol::OtlpHttp, Signal::Traces)).unwrap();
    let of_resource = &traces.resource_spans[0];
    assert_eq!(
        of_resource.resource.as_ref().unwrap().attributes[0].key,
        "service.name"
    );
    let span = &of_resource.scope_spans[0].spans[0];
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    assert_eq!((span.name.as_str(), span.kind), ("GET /orders/{id}", 2));
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);

    let metrics =
        ExportMetricsServiceRequest::decode(body(Protocol::OtlpHttp, Signal::Metrics)).unwrap();
    let metric = &metrics.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::Gauge(gauge)) = &metric.data else {
        panic!("not a gauge: {metric:?}");
    };
    assert_eq!(gauge.data_points[0].attributes[0].key, "pod");

    let logs = ExportLogsServiceRequest::decode(body(Protocol::OtlpHttp, Signal::Logs)).unwrap();
    let record = &logs.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!(
        (record.severity_number, record.severity_text.as_str()),
        (9, "INFO")
    );
    assert!(record.body.is_some());
}

#[test]
fn grpc_bodies_are_one_message_with_its_length_before_it() {
    let framed = body(Protocol::OtlpGrpc, Signal::Traces);
    let (prefix, message) = framed.split_at(5);
    assert_eq!(prefix[0], 0);
    assert_eq!(
        u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize,
        message.len()
    );
    ExportTraceServiceRequest::decode(message).unwrap();
}

#[derive(prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[test]
fn remote_write_bodies_are_snappy_blocks_of_series_with_sorted_labels() {
    let plain = snap::raw::Decoder::new()
        .decompress_vec(&body(Protocol::RemoteWrite, Signal::Metrics))
        .unwrap();
    let request = WriteRequest::decode(&plain[..]).unwrap();
    let series = &request.timeseries[0];
    let names: Vec<_> = series.labels.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["__name__", "job", "pod"]);
    assert!(series.samples[0].timestamp > 1_700_000_000_000);
}

#[derive(prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Stream>,
}

#[derive(prost::Message)]
struct Stream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Entry>,
}

#[derive(prost::Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Time>,
    #[prost(string, tag = "2")]
    line: String,
}

#[derive(prost::Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[test]
fn loki_bodies_are_snappy_blocks_of_streams_with_entries() {
    let plain = snap::raw::Decoder::new()
        .decompress_vec(&body(Protocol::Loki, Signal::Logs))
        .unwrap();
    let request = PushRequest::decode(&plain[..]).unwrap();
    let stream = &request.streams[0];
    assert!(stream.labels.starts_with("{job=\"checkout\", pod="));
    let entry = &stream.entries[0];
    assert!(entry.timestamp.as_ref().unwrap().seconds > 1_700_000_000);
    assert!(entry.line.starts_with("level=info"));
}
