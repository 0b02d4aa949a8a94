//! What counting a body's items costs on the wire, beside copying the body and beside decoding it. The throughput is of
//! inflated bytes; bodies come in frames of 16 KiB.

use std::hint::black_box;
use std::io::{Read as _, Write as _};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
    number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;
use serde::de::IgnoredAny;
use wire::count::{
    BodyCounter, Bounds, Coding, Counter, Format, Framing, JsonCounter, JsonFormat, Scratch,
    Written,
};
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

/// Numbers that look random and are the same each time (`SplitMix64`).
fn noise(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 512 spans with six attributes; ids, times and one of the attributes differ, as they do.
fn traces() -> TracesData {
    let span = |n: u64| {
        let start = 1_700_000_000_000_000_000 + noise(n) % 1_000_000_000;
        let mut attributes = attributes();
        if let Some(KeyValue { value, .. }) = attributes.get_mut(3) {
            *value = Some(AnyValue {
                value: Some(Value::StringValue(format!(
                    "user-{}",
                    noise(n + 1) % 100_000
                ))),
            });
        }
        Span {
            trace_id: [noise(n / 8), noise(n / 8 + 7)]
                .map(u64::to_be_bytes)
                .concat(),
            span_id: noise(n + 3).to_be_bytes().to_vec(),
            parent_span_id: noise(n + 2).to_be_bytes().to_vec(),
            name: "GET /v1/orders/{id}".to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + noise(n + 4) % 100_000_000,
            attributes,
            ..Span::default()
        }
    };
    TracesData {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: (0..512).map(span).collect(),
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
    let names = [
        "__name__",
        "cluster",
        "container",
        "instance",
        "job",
        "namespace",
        "node",
        "pod",
    ];
    let series = |n: u64| TimeSeries {
        labels: names
            .into_iter()
            .enumerate()
            .map(|(at, name)| Label {
                name: name.to_owned(),
                value: format!(
                    "orders-production-{:x}",
                    noise(n / (1 << (7 - at))) % 0xffff
                ),
            })
            .collect(),
        samples: vec![Sample {
            value: f64::from_bits(0x4000_0000_0000_0000 | noise(n) >> 12),
            timestamp: 1_700_000_000_000 + (n % 16).cast_signed(),
        }],
        ..TimeSeries::default()
    };
    WriteRequest {
        timeseries: (0..512).map(series).collect(),
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

/// What counting a compressed body costs, beside inflating it by its library alone.
fn compressed(c: &mut Criterion, format: Format, body: &[u8]) {
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).ok();
        encoder.finish().unwrap_or_default()
    };
    let zstd = zstd::encode_all(body, 3).unwrap_or_default();
    let snappy = snap::raw::Encoder::new()
        .compress_vec(body)
        .unwrap_or_default();
    let bounds = Bounds {
        inflated_max_bytes: 1 << 30,
        ratio_max: 10_000,
    };
    let mut scratch = Scratch::new();
    let mut group = c.benchmark_group(format!("inflate {format:?}"));
    group.throughput(Throughput::Bytes(body.len() as u64));
    for (coding, compressed) in [
        (Coding::Gzip, &gzip),
        (Coding::Zstd, &zstd),
        (Coding::SnappyBlock, &snappy),
    ] {
        group.bench_function(format!("{coding:?} count"), |b| {
            b.iter(|| {
                let written = Written::Protobuf(format);
                let mut counter = BodyCounter::new(written, coding, Framing::None, bounds);
                for frame in black_box(compressed).chunks(FRAME_BYTES) {
                    let mut rest = frame;
                    while !counter.push(&mut rest, &mut scratch, usize::MAX) {}
                }
                counter.finish(&mut scratch)
            });
        });
        group.bench_function(format!("{coding:?} library"), |b| {
            let mut inflated = Vec::with_capacity(body.len());
            b.iter(|| {
                inflated.clear();
                let compressed = black_box(&**compressed);
                match coding {
                    Coding::Gzip => flate2::read::GzDecoder::new(compressed)
                        .read_to_end(&mut inflated)
                        .is_ok(),
                    Coding::Zstd => zstd::stream::read::Decoder::new(compressed)
                        .and_then(|mut decoder| decoder.read_to_end(&mut inflated))
                        .is_ok(),
                    _ => {
                        inflated.resize(body.len(), 0);
                        snap::raw::Decoder::new()
                            .decompress(compressed, &mut inflated)
                            .is_ok()
                    }
                }
            });
        });
    }
    group.finish();
}

/// What counting JSON costs, beside what serde needs to find its end.
fn json(c: &mut Criterion) {
    let body = serde_json::to_vec(&traces()).unwrap_or_default();
    let mut group = c.benchmark_group("count JSON Traces");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("walk", |b| {
        b.iter(|| {
            let mut counter = JsonCounter::new(JsonFormat::Traces);
            for frame in black_box(&body).chunks(FRAME_BYTES) {
                counter.push(frame);
            }
            counter.finish()
        });
    });
    group.bench_function("serde", |b| {
        b.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(&body)).is_ok());
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    compare(c, Format::Traces, &traces());
    compare(c, Format::Metrics, &metrics());
    compare(c, Format::RemoteWrite1, &remote_write());
    compare(c, Format::LokiPush, &loki_push());
    compressed(c, Format::Traces, &traces().encode_to_vec());
    compressed(c, Format::RemoteWrite1, &remote_write().encode_to_vec());
    json(c);
}

criterion_group!(benches, bodies);
criterion_main!(benches);
