//! Routing: from method, path and headers to protocol and signal. The input is a line with the method, one with the target, then lines of
//! `name: value`.
//!
//! - A request has a place exactly if its method is POST and its raw path is on the list below, letter by letter; one slash at the end
//!   is forgiven, but not to gRPC. Nothing is decoded, folded or shortened.
//! - The place is the one that the list names. Only Loki's JSON on the path that it shares with remote write is told by a header.
//! - An answer is written in the place's protocol, or in gRPC for those who say that they speak it.
#![no_main]

use http::{Method, Request, header};
use libfuzzer_sys::fuzz_target;
use model::Signal;

const GRPC: [(&str, Signal); 4] = [
    (
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Traces,
    ),
    (
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Metrics,
    ),
    (
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Logs,
    ),
    (
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        Signal::Profiles,
    ),
];

const SHARED: &str = "/api/prom/push";

const HTTP: [(&str, &str, Signal); 14] = [
    ("/v1/traces", "otlp_http", Signal::Traces),
    ("/otlp/v1/traces", "otlp_http", Signal::Traces),
    ("/v1/metrics", "otlp_http", Signal::Metrics),
    ("/otlp/v1/metrics", "otlp_http", Signal::Metrics),
    ("/api/v1/otlp/v1/metrics", "otlp_http", Signal::Metrics),
    ("/opentelemetry/v1/metrics", "otlp_http", Signal::Metrics),
    ("/v1/logs", "otlp_http", Signal::Logs),
    ("/otlp/v1/logs", "otlp_http", Signal::Logs),
    ("/v1development/profiles", "otlp_http", Signal::Profiles),
    (
        "/otlp/v1development/profiles",
        "otlp_http",
        Signal::Profiles,
    ),
    ("/api/v1/push", "remote_write", Signal::Metrics),
    ("/api/v1/write", "remote_write", Signal::Metrics),
    (SHARED, "remote_write", Signal::Metrics),
    ("/loki/api/v1/push", "loki_push", Signal::Logs),
];

fuzz_target!(|input: &[u8]| {
    let (method, rest) = fuzz::line(input);
    let (target, rest) = fuzz::line(rest);
    let Ok(request) = Request::builder().method(method).uri(target).body(()) else {
        return;
    };
    let (mut parts, ()) = request.into_parts();
    parts.headers = fuzz::headers(rest);

    let path = parts.uri.path();
    // An independent reading of the target: what is between authority and query.
    if target.starts_with(b"/") {
        let end = target
            .iter()
            .position(|byte| b"?#".contains(byte))
            .unwrap_or(target.len());
        assert_eq!(path.as_bytes(), &target[..end]);
    }
    let expected = listed(path, is_json(&parts.headers));
    let place = edge::fuzzing::place(&parts);
    match (&place, expected) {
        (Ok(place), Some(expected)) => {
            assert_eq!(parts.method, Method::POST);
            assert_eq!(*place, expected);
        }
        (Ok(place), None) => panic!("{path} has a place: {place:?}"),
        (Err(refused), Some(_)) => {
            assert_eq!(refused.label(), "method");
            assert_ne!(parts.method, Method::POST);
        }
        (Err(refused), None) => assert_eq!(refused.label(), "not_found"),
    }
    let speaks_grpc = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let dialect = if speaks_grpc {
        Some("otlp_grpc")
    } else {
        expected.map(|(protocol, _)| protocol)
    };
    assert_eq!(edge::fuzzing::dialect(&parts), dialect);
});

fn listed(path: &str, json: bool) -> Option<(&'static str, Signal)> {
    if let Some((_, signal)) = GRPC.iter().find(|(listed, _)| *listed == path) {
        return Some(("otlp_grpc", *signal));
    }
    let bare = path.strip_suffix('/').unwrap_or(path);
    if bare == SHARED && json {
        return Some(("loki_push", Signal::Logs));
    }
    let (_, protocol, signal) = HTTP.iter().find(|(listed, ..)| *listed == bare)?;
    Some((protocol, *signal))
}

/// Whether there is one content type, and that is JSON.
fn is_json(headers: &http::HeaderMap) -> bool {
    let values: Vec<_> = headers.get_all(header::CONTENT_TYPE).iter().collect();
    let [value] = values[..] else { return false };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let media = text.split(';').next().unwrap_or_default();
    media.trim().eq_ignore_ascii_case("application/json")
}
