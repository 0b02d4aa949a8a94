//! OTLP at the sink: every signal over gRPC and HTTP arrives as sent, and faults get the backend's answer.

use opentelemetry_proto::tonic::collector;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ResourceProfiles, ScopeProfiles,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::codec::CompressionEncoding;

use super::sink_harness::*;

use collector::logs::v1::ExportLogsServiceRequest as Logs;
use collector::logs::v1::logs_service_client::LogsServiceClient;
use collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use collector::profiles::v1development::ExportProfilesServiceRequest as Profiles;
use collector::profiles::v1development::profiles_service_client::ProfilesServiceClient;
use collector::trace::v1::ExportTraceServiceRequest as Traces;
use collector::trace::v1::trace_service_client::TraceServiceClient;

fn resource() -> Resource {
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    Resource {
        attributes: vec![
            attribute("service.name", Any::StringValue("shop".to_owned())),
            attribute("answer", Any::IntValue(42)),
        ],
        ..Resource::default()
    }
}

pub(crate) fn traces() -> Traces {
    let span = |name: &str| Span {
        trace_id: (0..16).collect(),
        span_id: (0..8).collect(),
        name: name.to_owned(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_001_500_000,
        ..Span::default()
    };
    let spans = ScopeSpans {
        spans: vec![span("GET /"), span("SELECT")],
        ..ScopeSpans::default()
    };
    Traces {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![spans],
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn metrics() -> Metrics {
    let point = |value| NumberDataPoint {
        time_unix_nano: 1_700_000_000_000_000_000,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    let data_points = vec![
        point(number_data_point::Value::AsInt(-7)),
        point(number_data_point::Value::AsDouble(0.25)),
        point(number_data_point::Value::AsInt(i64::MAX)),
    ];
    let metric = Metric {
        name: "queue.length".to_owned(),
        unit: "1".to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points })),
        ..Metric::default()
    };
    let scope = ScopeMetrics {
        metrics: vec![metric],
        ..ScopeMetrics::default()
    };
    Metrics {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource()),
            scope_metrics: vec![scope],
            ..ResourceMetrics::default()
        }],
    }
}

pub(crate) fn logs() -> Logs {
    let record = LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        severity_text: "WARN".to_owned(),
        body: Some(AnyValue {
            value: Some(Any::StringValue("paper jam <b>\u{1f5a8}</b>".to_owned())),
        }),
        ..LogRecord::default()
    };
    let scope = ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    };
    Logs {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource()),
            scope_logs: vec![scope],
            ..ResourceLogs::default()
        }],
    }
}

fn profiles() -> Profiles {
    let profile = Profile {
        profile_id: vec![9; 16],
        duration_nano: 5,
        ..Profile::default()
    };
    let scope = ScopeProfiles {
        profiles: vec![profile],
        ..ScopeProfiles::default()
    };
    Profiles {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(resource()),
            scope_profiles: vec![scope],
            ..ResourceProfiles::default()
        }],
        ..Profiles::default()
    }
}

/// Checks the newest entry of `signal` against what was sent.
fn assert_arrived<T: DeserializeOwned + PartialEq + std::fmt::Debug>(
    sink: &Running,
    signal: &str,
    expected: (&T, usize, &str),
) -> Value {
    let (sent, items, protocol) = expected;
    let entry = sink.newest(signal);
    let body: T = serde_json::from_value(entry["body"].clone()).unwrap();
    assert_eq!(&body, sent);
    assert_eq!(entry["item_count"], items);
    assert_eq!(entry["protocol"], protocol);
    assert_eq!(entry["tenant_header"], json!(["demo"]));
    entry
}

/// A request with the tenant header.
fn request<T>(message: T, tenants: &[&str]) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for tenant in tenants {
        request
            .metadata_mut()
            .append("x-scope-orgid", tenant.parse().unwrap());
    }
    request
}

/// Exports over gRPC as tenant `demo`, compressed or not.
macro_rules! export {
    ($sink:expr, $Client:ident, $message:expr, $encoding:expr) => {{
        let sink: &Running = $sink;
        sink.runtime.block_on(async {
            let mut client = $Client::connect(sink.base.clone()).await.unwrap();
            if let Some(encoding) = $encoding {
                client = client.send_compressed(encoding);
            }
            client.export(request($message, &["demo"])).await
        })
    }};
}

#[test]
fn every_signal_arrives_over_grpc_in_every_encoding() {
    let sink = &start();
    for (encoding, name) in [
        (None, Value::Null),
        (Some(CompressionEncoding::Gzip), "gzip".into()),
        (Some(CompressionEncoding::Zstd), "zstd".into()),
    ] {
        export!(sink, TraceServiceClient, traces(), encoding).unwrap();
        export!(sink, MetricsServiceClient, metrics(), encoding).unwrap();
        export!(sink, LogsServiceClient, logs(), encoding).unwrap();
        export!(sink, ProfilesServiceClient, profiles(), encoding).unwrap();

        let entry = assert_arrived(sink, "traces", (&traces(), 2, "otlp_grpc"));
        assert_eq!(entry["content_encoding"], name);
        assert_eq!(entry["content_type"], "application/grpc");
        assert_eq!(
            entry["path"],
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        );
        assert_arrived(sink, "metrics", (&metrics(), 3, "otlp_grpc"));
        assert_arrived(sink, "logs", (&logs(), 1, "otlp_grpc"));
        assert_arrived(sink, "profiles", (&profiles(), 1, "otlp_grpc"));
    }
}

#[test]
fn a_grpc_message_over_the_limit_is_exhausted_as_sent_and_as_inflated() {
    let sink = &start();
    let mut huge = traces();
    huge.resource_spans[0].schema_url = "0".repeat(okmon::sink::BODY_BYTES_MAX);
    for encoding in [None, Some(CompressionEncoding::Zstd)] {
        let status = export!(sink, TraceServiceClient, huge.clone(), encoding).unwrap_err();
        assert_eq!(
            status.code(),
            tonic::Code::ResourceExhausted,
            "{encoding:?}: {status:?}"
        );
    }
    assert!(sink.received("traces").is_empty());
}

#[test]
fn grpc_wants_exactly_one_valid_tenant_and_a_known_method() {
    let sink = &start();
    let code = |tenants: &[&str]| {
        sink.runtime.block_on(async {
            let mut client = TraceServiceClient::connect(sink.base.clone())
                .await
                .unwrap();
            client
                .export(request(traces(), tenants))
                .await
                .unwrap_err()
                .code()
        })
    };
    assert_eq!(code(&[]), tonic::Code::Unauthenticated);
    assert_eq!(code(&["demo", "demo"]), tonic::Code::Unauthenticated);
    assert_eq!(code(&["demo|other"]), tonic::Code::InvalidArgument);

    let answer = sink.post(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
        &[("Content-Type", "application/grpc")],
        b"",
    );
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"));
}

#[test]
fn every_signal_arrives_over_http_in_both_formats() {
    let sink = &start();
    check_http(
        sink,
        "traces",
        &["/v1/traces", "/otlp/v1/traces"],
        (&traces(), 2),
    );
    check_http(
        sink,
        "metrics",
        &["/v1/metrics", "/otlp/v1/metrics"],
        (&metrics(), 3),
    );
    check_http(sink, "logs", &["/v1/logs", "/otlp/v1/logs"], (&logs(), 1));
    check_http(
        sink,
        "profiles",
        &["/v1development/profiles"],
        (&profiles(), 1),
    );
}

fn check_http<T>(sink: &Running, signal: &str, paths: &[&str], (sent, items): (&T, usize))
where
    T: Message + serde::Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    for path in paths {
        for (content_type, body) in [
            (PROTOBUF, sent.encode_to_vec()),
            (JSON, serde_json::to_vec(sent).unwrap()),
        ] {
            let answer = sink.post(path, &[("Content-Type", content_type)], &body);
            if *path == "/otlp/v1/logs" {
                assert_eq!((answer.status, answer.text()), (204, ""), "{path}");
            } else {
                let success = if content_type == JSON {
                    r#"{"partialSuccess":{}}"#
                } else {
                    ""
                };
                assert_eq!((answer.status, answer.text()), (200, success), "{path}");
                assert_eq!(answer.header("content-type"), content_type);
            }
            let entry = assert_arrived(sink, signal, (sent, items, "otlp_http"));
            assert_eq!(entry["content_type"], content_type);
            assert_eq!(entry["path"], *path);
        }
    }
}

#[test]
fn otlp_over_http_inflates_what_the_backend_of_the_path_inflates() {
    let sink = &start();
    let body = metrics().encode_to_vec();
    let post = |path: &str, encoding: &str, body: &[u8]| {
        sink.post(
            path,
            &[("Content-Type", PROTOBUF), ("Content-Encoding", encoding)],
            body,
        )
        .status
    };
    for (encoding, body) in [
        ("gzip", gzip(&body)),
        ("zstd", zstd(&body)),
        ("deflate", zlib(&body)),
        ("zlib", zlib(&body)),
        ("snappy", snappy_block(&body)),
        ("snappy", snappy_framed(&body)),
        ("x-snappy-framed", snappy_framed(&body)),
    ] {
        assert_eq!(post("/v1/metrics", encoding, &body), 200, "{encoding}");
        let entry = assert_arrived(sink, "metrics", (&metrics(), 3, "otlp_http"));
        assert_eq!(entry["content_encoding"], encoding);
        let others = if matches!(encoding, "gzip" | "zstd") {
            200
        } else {
            415
        };
        assert_eq!(
            post("/otlp/v1/metrics", encoding, &body),
            others,
            "{encoding}"
        );
    }
    assert_eq!(post("/v1/metrics", "br", &body), 400);
    assert_eq!(
        post(
            "/otlp/v1/logs",
            "snappy",
            &snappy_block(&logs().encode_to_vec())
        ),
        400
    );
}

#[test]
fn bombs_and_damaged_bodies_get_the_answer_of_the_backend() {
    let sink = &start();
    let bomb = bomb();
    for (encoding, body, damaged) in [
        ("gzip", gzip(&bomb), gzip(b"once whole").split_off(4)),
        ("zstd", zstd(&bomb), zstd(b"once whole").split_off(4)),
        ("deflate", zlib(&bomb), b"not zlib".to_vec()),
        ("snappy", snappy_block(&bomb), b"\xff\xff\xff".to_vec()),
    ] {
        let headers = [("Content-Type", JSON), ("Content-Encoding", encoding)];
        for body in [&body, &damaged] {
            let answer = sink.post("/v1/traces", &headers, body);
            assert_eq!(
                (answer.status, answer.json()["code"].as_i64()),
                (400, Some(3)),
                "{encoding} {answer:?}"
            );
            assert_eq!(answer.header("content-type"), JSON);
        }
    }
    let gzipped = [("Content-Type", PROTOBUF), ("Content-Encoding", "gzip")];
    assert_eq!(
        sink.post("/otlp/v1/metrics", &gzipped, &gzip(&bomb)).status,
        413
    );
    assert_eq!(
        sink.post("/otlp/v1/logs", &gzipped, &gzip(&bomb)).status,
        413
    );
    assert_eq!(
        sink.post("/v1/traces", &[("Content-Type", PROTOBUF)], &bomb)
            .status,
        400
    );

    let cut = &traces().encode_to_vec()[..40];
    let answer = sink.post("/v1/traces", &[("Content-Type", PROTOBUF)], cut);
    let status = wire::rpc::Status::decode(&*answer.body).unwrap();
    assert_eq!((answer.status, status.code), (400, 3));
    assert!(status.message.contains("resource_spans"), "{status:?}");

    let answer = sink.post("/otlp/v1/logs", &[("Content-Type", JSON)], b"{");
    let status = wire::rpc::Status::decode(&*answer.body).unwrap();
    assert_eq!((answer.status, status.code), (400, 0));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(sink.get("/api/tenants").json(), json!([]));
}

#[test]
fn content_types_are_compared_as_the_backend_compares_them() {
    let sink = &start();
    let body = serde_json::to_vec(&metrics()).unwrap();
    let post = |path: &str, content_type: &str| {
        sink.post(path, &[("Content-Type", content_type)], &body)
            .status
    };
    assert_eq!(post("/v1/metrics", "application/json; charset=utf-8"), 200);
    assert_eq!(
        post("/otlp/v1/metrics", "application/json; charset=utf-8"),
        415
    );
    assert_eq!(
        post("/otlp/v1/logs", "application/json; charset=utf-8"),
        400
    );
    assert_eq!(post("/v1/metrics", "text/plain"), 415);
    assert_eq!(sink.get("/v1/metrics").status, 405);
    assert_eq!(post("/v1/nothing", JSON), 404);
}

#[test]
fn a_request_without_a_tenant_is_401_no_org_id() {
    let sink = &start();
    let json = [("Content-Type", JSON)];
    let answer = sink.post_bare("/v1/traces", &json, b"{}");
    assert_eq!(
        (answer.status, answer.json()),
        (401, json!({"code": 16, "message": "no org id"}))
    );
    for path in ["/otlp/v1/metrics", "/otlp/v1/logs"] {
        let answer = sink.post_bare(path, &json, b"{}");
        assert_eq!(
            (answer.status, answer.text()),
            (401, "no org id\n"),
            "{path}"
        );
    }
    let two = [("Content-Type", JSON), ("X-Scope-OrgID", "a|b")];
    assert_eq!(sink.post_bare("/otlp/v1/metrics", &two, b"{}").status, 401);
    assert_eq!(sink.post_bare("/otlp/v1/logs", &two, b"{}").status, 400);
}

#[test]
fn an_export_without_data_succeeds_but_at_loki() {
    let sink = &start();
    let json = [("Content-Type", JSON)];
    assert_eq!(sink.post("/v1/traces", &json, b"{}").status, 200);
    assert_eq!(sink.post("/otlp/v1/metrics", &json, b"{}").status, 200);
    assert_eq!(sink.post("/otlp/v1/logs", &json, b"{}").status, 422);
    assert_eq!(sink.newest("traces")["item_count"], 0);
}
