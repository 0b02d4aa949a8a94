//! What counting a body's items costs on the wire, beside copying the body and beside decoding it. The throughput is of
//! inflated bytes; bodies come in frames of 16 KiB.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
    number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;
use wire::count::{Counter, Format};
use wire::loki::{EntryAdapter, PushRequest, StreamAdapter};
use wire::prometheus::v1::{Label, Sample, TimeSeries, WriteRequest};

const FRAME_BYTES: usize = 16 << 10;

fn attributes() -> Vec<KeyValue> {
    [
        "http.request.method",
        "http.route",
        "server.address",
        "user.id",
        "k8s.pod.name",
        "region",
    ]
    .map(|key| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue("/v1/orders/{id}".to_owned())),
        }),
        ..KeyValue::default()
    })
    .to_vec()
}

/// 512 spans with six attributes.
fn traces() -> TracesData {
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![7; 8],
        name: "GET /v1/orders/{id}".to_owned(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_100_000_000,
        attributes: attributes(),
        ..Span::default()
    };
    TracesData {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![span; 512],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// 512 metrics with two data points of three attributes.
fn metrics() -> MetricsData {
    let point = NumberDataPoint {
        attributes: attributes().into_iter().take(3).collect(),
        time_unix_nano: 1_700_000_000_000_000_000,
        value: Some(number_data_point::Value::AsDouble(0.5)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "http.server.request.duration".to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::Gauge(Gauge {
            data_points: vec![point; 2],
        })),
        ..Metric::default()
    };
    MetricsData {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![metric; 512],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// 512 series with one sample and eight labels: of all bodies the one with the most fields to step over.
fn remote_write() -> WriteRequest {
    let label = Label {
        name: "namespace".to_owned(),
        value: "orders-production".to_owned(),
    };
    let series = TimeSeries {
        labels: vec![label; 8],
        samples: vec![Sample {
            value: 0.5,
            timestamp: 1_700_000_000_000,
        }],
        ..TimeSeries::default()
    };
    WriteRequest {
        timeseries: vec![series; 512],
        ..WriteRequest::default()
    }
}

/// 512 lines of 150 bytes.
fn loki_push() -> PushRequest {
    let entry = EntryAdapter {
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 1,
        }),
        line: "x".repeat(150),
        ..EntryAdapter::default()
    };
    PushRequest {
        format: String::new(),
        streams: vec![StreamAdapter {
            labels: "{job=\"orders\"}".to_owned(),
            entries: vec![entry; 512],
            hash: 0,
        }],
    }
}

fn compare<M: Message + Default>(c: &mut Criterion, format: Format, message: &M) {
    let body = message.encode_to_vec();
    let mut group = c.benchmark_group(format!("count {format:?}"));
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("walk", |b| {
        b.iter(|| {
            let mut counter = Counter::new(format);
            for frame in black_box(&body).chunks(FRAME_BYTES) {
                counter.push(frame);
            }
            counter.finish()
        });
    });
    group.bench_function("copy", |b| b.iter(|| black_box(&body).clone()));
    group.bench_function("decode", |b| {
        b.iter(|| M::decode(black_box(&*body)).is_ok());
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    compare(c, Format::Traces, &traces());
    compare(c, Format::Metrics, &metrics());
    compare(c, Format::RemoteWrite1, &remote_write());
    compare(c, Format::LokiPush, &loki_push());
}

criterion_group!(benches, bodies);
criterion_main!(benches);
