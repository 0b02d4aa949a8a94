//! The OpenTelemetry SDK for JavaScript, configured by its standard environment variables.

use std::time::Duration;

use testkit::sent::Expected;
use testkit::{Dev, Process, peers};

const RUN_MAX: Duration = Duration::from_mins(1);

fn sender(protocol: &str, compression: Option<&str>, dev: &Dev, key: &str) -> Process {
    let mut command = peers::node("otel_send.js");
    let endpoint = match protocol {
        "grpc" => &dev.ready.otlp_grpc,
        _ => &dev.ready.otlp_http,
    };
    command
        .arg(protocol)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("Authorization=Bearer%20{key}"),
        )
        .envs(compression.map(|it| ("OTEL_EXPORTER_OTLP_COMPRESSION", it)));
    Process::spawn("otel_send.js", command)
}

fn arrives_whole(protocol: &str, expected: Expected<'_>) {
    let dev = Dev::start();
    sender(protocol, expected.content_encoding, &dev, &dev.ready.key)
        .wait(RUN_MAX)
        .succeeded();
    expected.arrive_at(&dev);
}

const JSON: Expected<'_> = Expected {
    service: "okmon-js",
    protocol: "otlp_http",
    content_type: "application/json",
    content_encoding: None,
};

#[test]
fn what_the_javascript_sdk_sends_as_json_arrives_as_json() {
    arrives_whole("http", JSON);
}

#[test]
fn what_the_javascript_sdk_sends_as_json_with_gzip_arrives_still_compressed() {
    let content_encoding = Some("gzip");
    arrives_whole(
        "http",
        Expected {
            content_encoding,
            ..JSON
        },
    );
}

#[test]
fn what_the_javascript_sdk_sends_as_protobuf_arrives_as_protobuf() {
    let content_type = "application/x-protobuf";
    arrives_whole(
        "proto",
        Expected {
            content_type,
            ..JSON
        },
    );
}

#[test]
fn what_the_javascript_sdk_sends_over_grpc_arrives_under_the_tenant_of_the_key() {
    let expected = Expected {
        protocol: "otlp_grpc",
        content_type: "application/grpc",
        ..JSON
    };
    arrives_whole("grpc", expected);
}

#[test]
fn with_an_unknown_key_the_javascript_sdk_reports_failure_and_nothing_arrives() {
    let dev = Dev::start();
    for protocol in ["http", "proto", "grpc"] {
        let finished = sender(protocol, None, &dev, &Dev::unknown_key()).wait(RUN_MAX);
        finished.failed();
        let failures = finished.stdout.matches("FAILURE").count();
        assert_eq!(failures, 3, "{finished:#?}");
    }
    dev.sink_is_empty();
}
