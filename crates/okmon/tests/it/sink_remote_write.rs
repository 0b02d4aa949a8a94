//! Remote write at the sink: both versions arrive as sent, and faults get the answer of Mimir or Prometheus.

use prost::Message as _;
use serde_json::json;
use wire::prometheus::{v1, v2};

use super::sink_harness::*;

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

pub(crate) fn request_v1() -> v1::WriteRequest {
    let label = |name: &str, value: &str| v1::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    v1::WriteRequest {
        timeseries: vec![v1::TimeSeries {
            labels: vec![label("__name__", "up"), label("job", "api")],
            samples: [(1.5, 1_000), (stale, 2_000)]
                .map(|(value, timestamp)| v1::Sample { value, timestamp })
                .into(),
            exemplars: vec![v1::Exemplar {
                labels: vec![label("trace_id", "abc")],
                value: 9.0,
                timestamp: 1_500,
            }],
            histograms: vec![v1::Histogram {
                count: Some(v1::histogram::Count::CountInt(3)),
                sum: 4.5,
                schema: -4,
                positive_spans: vec![v1::BucketSpan {
                    offset: -1,
                    length: 2,
                }],
                positive_deltas: vec![1, -1],
                timestamp: 3_000,
                ..v1::Histogram::default()
            }],
        }],
        metadata: vec![v1::MetricMetadata {
            r#type: v1::metric_metadata::MetricType::Gauge.into(),
            metric_family_name: "up".to_owned(),
            help: "Is it up?".to_owned(),
            unit: String::new(),
        }],
    }
}

fn request_v2() -> v2::Request {
    v2::Request {
        symbols: ["", "__name__", "up", "job", "api", "Is it up?"]
            .map(str::to_owned)
            .into(),
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2, 3, 4],
            samples: vec![v2::Sample {
                value: 1.5,
                timestamp: 1_000,
                start_timestamp: 10,
            }],
            histograms: vec![
                v2::Histogram {
                    count: Some(v2::histogram::Count::CountFloat(3.5)),
                    timestamp: 3_000,
                    ..v2::Histogram::default()
                };
                2
            ],
            exemplars: vec![
                v2::Exemplar {
                    labels_refs: vec![3, 4],
                    value: 9.0,
                    timestamp: 1_500
                };
                3
            ],
            metadata: Some(v2::Metadata {
                r#type: v2::metadata::MetricType::Gauge.into(),
                help_ref: 5,
                unit_ref: 0,
            }),
        }],
    }
}

#[test]
fn remote_write_1_arrives_as_sent_and_is_answered_without_counts() {
    let sink = start();
    let body = snappy_block(&request_v1().encode_to_vec());
    for path in ["/api/v1/push", "/api/v1/write"] {
        let headers = [
            ("Content-Type", PROTOBUF),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        let answer = sink.post(path, &headers, &body);
        assert_eq!((answer.status, answer.text()), (204, ""));
        assert!(
            WRITTEN
                .iter()
                .all(|name| !answer.headers.contains_key(*name)),
            "{answer:?}"
        );

        let entry = sink.newest("metrics");
        assert_eq!(entry["protocol"], "remote_write");
        assert_eq!(entry["content_encoding"], "snappy");
        assert_eq!(entry["item_count"], 3);
        assert_eq!(
            entry["body"],
            json!({
                "timeseries": [{
                    "labels": {"__name__": "up", "job": "api"},
                    "samples": [{"value": 1.5, "timestamp": 1_000}, {"value": "StaleNaN", "timestamp": 2_000}],
                    "exemplars": [{"labels": {"trace_id": "abc"}, "value": 9.0, "timestamp": 1_500}],
                    "histograms": [{
                        "timestamp": 3_000, "count": 3, "sum": 4.5, "schema": -4, "zero_threshold": 0.0, "zero_count": null,
                        "positive_spans": [{"offset": -1, "length": 2}], "positive_deltas": [1, -1], "reset_hint": "unknown",
                    }],
                }],
                "metadata": [{"metric_family_name": "up", "type": "gauge", "help": "Is it up?", "unit": ""}],
            })
        );
    }
}

#[test]
fn remote_write_2_arrives_with_symbols_resolved_and_is_answered_with_counts() {
    let sink = start();
    let body = snappy_block(&request_v2().encode_to_vec());
    for path in ["/api/v1/push", "/api/v1/write"] {
        let answer = sink.post(
            path,
            &[("Content-Type", V2), ("Content-Encoding", "snappy")],
            &body,
        );
        assert_eq!(answer.status, 204);
        assert_eq!(WRITTEN.map(|name| answer.header(name)), ["1", "2", "3"]);

        let entry = sink.newest("metrics");
        assert_eq!(entry["item_count"], 3);
        let series = &entry["body"]["timeseries"][0];
        assert_eq!(series["labels"], json!({"__name__": "up", "job": "api"}));
        assert_eq!(
            series["samples"],
            json!([{"value": 1.5, "timestamp": 1_000, "start_timestamp": 10}])
        );
        assert_eq!(series["histograms"][1]["count"], 3.5);
        assert_eq!(series["exemplars"][2]["labels"], json!({"job": "api"}));
        assert_eq!(
            series["metadata"],
            json!({"type": "gauge", "help": "Is it up?", "unit": ""})
        );
    }
}

#[test]
fn a_space_before_the_proto_parameter_makes_it_an_empty_version_1() {
    let sink = start();
    let body = snappy_block(&request_v2().encode_to_vec());
    let spaced = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
    let answer = sink.post("/api/v1/push", &[("Content-Type", spaced)], &body);
    assert_eq!((answer.status, answer.header(WRITTEN[0])), (204, ""));
    assert_eq!(sink.newest("metrics")["item_count"], 0);
}

#[test]
fn mimir_ignores_the_encoding_that_prometheus_refuses() {
    let sink = start();
    let body = snappy_block(&request_v1().encode_to_vec());
    let post = |path: &str, content_type: &str, encoding: &str| {
        sink.post(
            path,
            &[
                ("Content-Type", content_type),
                ("Content-Encoding", encoding),
            ],
            &body,
        )
        .status
    };
    assert_eq!(post("/api/v1/push", PROTOBUF, "zstd"), 204);
    assert_eq!(post("/api/v1/push", "image/png", "snappy"), 204);
    assert_eq!(post("/api/v1/write", PROTOBUF, "zstd"), 415);
    assert_eq!(post("/api/v1/write", JSON, "snappy"), 415);
    assert_eq!(
        post(
            "/api/v1/write",
            "application/x-protobuf;proto=other",
            "snappy"
        ),
        415
    );
}

#[test]
fn bombs_damage_and_bad_references_are_400_and_counted_as_nothing() {
    let sink = start();
    let mut dangling = request_v2();
    dangling.timeseries[0].labels_refs[1] = 99;
    for (body, words) in [
        (snappy_block(&bomb()), "larger than 67108864 bytes"),
        (request_v2().encode_to_vec(), "snappy"),
        (snappy_block(b"\x2a\x7f"), "failed to decode"),
        (
            snappy_block(&dangling.encode_to_vec()),
            "timeseries[0]: symbol 99 of 6 does not exist",
        ),
    ] {
        let answer = sink.post("/api/v1/push", &[("Content-Type", V2)], &body);
        assert_eq!(
            (answer.status, WRITTEN.map(|name| answer.header(name))),
            (400, ["0", "0", "0"])
        );
        assert!(
            answer.text().contains(words),
            "{:?} lacks {words:?}",
            answer.text()
        );
    }
    let answer = sink.post_bare("/api/v1/push", &[], b"");
    assert_eq!((answer.status, answer.text()), (401, "no org id\n"));
    assert!(sink.received("metrics").is_empty());
}
