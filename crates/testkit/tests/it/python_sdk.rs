//! The OpenTelemetry SDK for Python, configured by its standard environment variables.

use std::time::Duration;

use testkit::sent::Expected;
use testkit::{Dev, Process, peers};

const RUN_MAX: Duration = Duration::from_mins(1);

fn sender(protocol: &str, compression: Option<&str>, dev: &Dev, key: &str) -> Process {
    let mut command = peers::python("otel_send.py");
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
    Process::spawn("otel_send.py", command)
}

fn arrives_whole(protocol: &str, expected: Expected<'_>) {
    let dev = Dev::start();
    sender(protocol, expected.content_encoding, &dev, &dev.ready.key)
        .wait(RUN_MAX)
        .succeeded();
    expected.arrive_at(&dev);
}

pub(crate) const GRPC: Expected<'_> = Expected {
    service: "okmon-python",
    protocol: "otlp_grpc",
    content_type: "application/grpc",
    content_encoding: None,
};

pub(crate) const HTTP: Expected<'_> = Expected {
    protocol: "otlp_http",
    content_type: "application/x-protobuf",
    ..GRPC
};

#[test]
fn what_the_python_sdk_sends_over_grpc_arrives_under_the_tenant_of_the_key() {
    arrives_whole("grpc", GRPC);
}

#[test]
fn what_the_python_sdk_sends_over_grpc_with_gzip_arrives_still_compressed() {
    let content_encoding = Some("gzip");
    arrives_whole(
        "grpc",
        Expected {
            content_encoding,
            ..GRPC
        },
    );
}

#[test]
fn what_the_python_sdk_sends_over_http_arrives_under_the_tenant_of_the_key() {
    arrives_whole("http", HTTP);
}

#[test]
fn what_the_python_sdk_sends_over_http_with_gzip_arrives_still_compressed() {
    let content_encoding = Some("gzip");
    arrives_whole(
        "http",
        Expected {
            content_encoding,
            ..HTTP
        },
    );
}

#[test]
fn with_an_unknown_key_the_python_sdk_reports_failure_at_once_and_nothing_arrives() {
    let dev = Dev::start();
    for protocol in ["grpc", "http"] {
        // Retries would take the SDK a minute.
        let finished = sender(protocol, None, &dev, &Dev::unknown_key()).wait(RUN_MAX / 3);
        finished.failed();
        let results = r#""traces": "FAILURE", "metrics": "FAILURE", "logs": "FAILURE""#;
        for result in results.split(", ") {
            assert!(finished.stdout.contains(result), "{finished:#?}");
        }
        assert!(!finished.stderr.contains("retrying"), "{finished:#?}");
    }
    dev.sink_is_empty();
}
