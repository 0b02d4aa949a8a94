//! What `/metrics` counts adds up, is there from the start, and tells no secret.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::AsyncWriteExt;

use crate::harness::{OTHER, TENANT, World, connect, eventually, head, post, post2};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PROTOCOLS: [&str; 4] = ["otlp_grpc", "otlp_http", "remote_write", "loki_push"];
const SIGNALS: [&str; 4] = ["traces", "metrics", "logs", "profiles"];
const OUTCOMES: [&str; 4] = ["accepted", "rejected", "refused", "abandoned"];
const CAUSES: [&str; 22] = [
    "no_credential",
    "malformed_credential",
    "unknown_key",
    "expired_key",
    "revoked_key",
    "auth_failures",
    "tenant_suspended",
    "tenant_mismatch",
    "scope",
    "too_large",
    "overloaded",
    "draining",
    "keys_unavailable",
    "upstream_unreachable",
    "upstream_denied",
    "upstream_timeout",
    "body_timeout",
    "bad_framing",
    "media_type",
    "not_found",
    "method",
    "client_gone",
];

/// The series and their values.
async fn series(world: &World) -> BTreeMap<String, f64> {
    let text = world.metrics().await;
    let lines = text.lines().filter(|line| line.starts_with("okmon_edge_"));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_series_is_there_from_the_start_at_zero() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let series = series(&world).await;
    let of = |prefix: &str| -> BTreeSet<&str> {
        let names = series.keys().map(String::as_str);
        names.filter(|name| name.starts_with(prefix)).collect()
    };
    let causes = CAUSES.map(|cause| format!("okmon_edge_refusals_total{{cause=\"{cause}\"}}"));
    assert_eq!(
        of("okmon_edge_refusals_total"),
        causes.iter().map(String::as_str).collect()
    );
    for protocol in PROTOCOLS {
        for signal in SIGNALS {
            let flow = format!("protocol=\"{protocol}\",signal=\"{signal}\"");
            for outcome in OUTCOMES {
                let name = format!("okmon_edge_requests_total{{{flow},outcome=\"{outcome}\"}}");
                assert_eq!(series.get(&name), Some(&0.0), "{name}");
            }
            for name in ["received_bytes_total", "request_duration_seconds_count"] {
                let name = format!("okmon_edge_{name}{{{flow}}}");
                assert_eq!(series.get(&name), Some(&0.0), "{name}");
            }
        }
    }
    assert_eq!(of("okmon_edge_requests_total").len(), 64);
    let counted = |name: &&String| name.split('{').next().unwrap().ends_with("_total");
    for name in series.keys().filter(counted) {
        // Keys and the configuration were read.
        let read = name.contains("_key_") || name.contains("_config_loads_");
        let started = read || series[name] == 0.0;
        assert!(started, "{name} counts something before there was anything");
    }
}

/// Waits until no request is under way: an answer can be here before its account is.
async fn settled(world: &World) -> BTreeMap<String, f64> {
    eventually("all requests to be accounted", async || {
        let series = series(world).await;
        let in_flight = series["okmon_edge_requests_in_flight"];
        if in_flight == 0.0 {
            return Ok(series);
        }
        Err(format!("{in_flight} in flight"))
    })
    .await
}

/// One request of each kind there is, several times; the bytes of the bodies that were taken.
async fn mix(world: &World) {
    let key = ("x-api-key", world.keys.valid.reveal());
    let media = ("content-type", "application/x-protobuf");
    let grpc = [("content-type", "application/grpc"), key];
    for _ in 0..3 {
        world.upstream.does(Script::Answer(Reply::new(200)));
        assert_eq!(
            post(world.api, "/v1/traces", &[media, key], &[1; 100])
                .await
                .status,
            200
        );
        post2(world.api, "/api/v1/push", &[media, key], &[&[1; 200]]).await;
        world.upstream.does(Script::Answer(Reply::new(400)));
        post(world.api, "/loki/api/v1/push", &[media, key], &[1; 300]).await;
        world.upstream.does(Script::Answer(Reply::grpc()));
        post2(world.api, METHOD, &grpc, &[&[0; 5]]).await;
        let trailers = vec![("grpc-status", "8")];
        world.upstream.does(Script::Answer(Reply {
            trailers,
            ..Reply::grpc()
        }));
        post2(world.api, METHOD, &grpc, &[&[0; 5]]).await;
        world.upstream.does(Script::DieMidAnswer);
        let mut stream = connect(world.api).await;
        let request = head("/v1/traces", &[media, key], 1);
        stream
            .write_all(&[request.as_bytes(), b"x"].concat())
            .await
            .unwrap();
        assert!(crate::harness::read_answer(&mut stream).await.is_none());

        post(world.api, "/v1/traces", &[media], b"x").await;
        let unknown = ("x-api-key", world.keys.unknown.reveal());
        post(world.api, "/v1/traces", &[media, unknown], b"x").await;
        post2(world.api, METHOD, &grpc[..1], &[&[0; 5]]).await;
        post(
            world.api,
            "/v1/metrics",
            &[media, key, ("x-scope-orgid", OTHER)],
            b"x",
        )
        .await;
        post(world.api, "/v1/nothing", &[media, key], b"x").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_add_up() {
    let world = World::start(Script::Hang).await;
    mix(&world).await;
    let series = settled(&world).await;
    for (name, expected) in [
        (
            "requests_total{protocol=\"otlp_http\",signal=\"traces\",outcome=\"accepted\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"otlp_http\",signal=\"traces\",outcome=\"abandoned\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"otlp_http\",signal=\"traces\",outcome=\"refused\"}",
            6.0,
        ),
        (
            "requests_total{protocol=\"otlp_http\",signal=\"metrics\",outcome=\"refused\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"remote_write\",signal=\"metrics\",outcome=\"accepted\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"loki_push\",signal=\"logs\",outcome=\"rejected\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"otlp_grpc\",signal=\"traces\",outcome=\"accepted\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"otlp_grpc\",signal=\"traces\",outcome=\"rejected\"}",
            3.0,
        ),
        (
            "requests_total{protocol=\"otlp_grpc\",signal=\"traces\",outcome=\"refused\"}",
            3.0,
        ),
        ("refusals_total{cause=\"no_credential\"}", 6.0),
        ("refusals_total{cause=\"unknown_key\"}", 3.0),
        ("refusals_total{cause=\"tenant_mismatch\"}", 3.0),
        ("refusals_total{cause=\"not_found\"}", 3.0),
        ("unrouted_requests_total", 3.0),
        (
            "received_bytes_total{protocol=\"otlp_http\",signal=\"traces\"}",
            303.0,
        ),
        (
            "received_bytes_total{protocol=\"remote_write\",signal=\"metrics\"}",
            600.0,
        ),
        (
            "received_bytes_total{protocol=\"loki_push\",signal=\"logs\"}",
            900.0,
        ),
        (
            "received_bytes_total{protocol=\"otlp_grpc\",signal=\"traces\"}",
            30.0,
        ),
    ] {
        let value = series[&format!("okmon_edge_{name}")];
        assert!(
            (value - expected).abs() < 0.5,
            "{name}: {value}, not {expected}"
        );
    }
    let sum = |name: &str| -> f64 {
        let of_name = series.iter().filter(|(known, _)| known.starts_with(name));
        of_name.map(|(_, value)| value).sum()
    };
    let requests = sum("okmon_edge_requests_total");
    let timed = sum("okmon_edge_request_duration_seconds_count");
    assert!(
        (requests - 30.0).abs() < 0.5,
        "{requests} ends of 30 routed requests"
    );
    assert!((timed - requests).abs() < 0.5, "{timed} were timed");
    let refused = sum("okmon_edge_refusals_total");
    assert!(
        (refused - 15.0).abs() < 0.5,
        "{refused} refusals; nothing else was counted as one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_named_and_no_tenant_before_its_key_was_seen() {
    let world = World::start(Script::Hang).await;
    mix(&world).await;
    let text = world.metrics().await;
    for key in [&world.keys.valid, &world.keys.unknown] {
        let id = key.id().to_string();
        assert!(!text.contains(&id), "the key's id");
    }
    for secret in ["obs_", OTHER] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    let named = text.lines().filter(|line| line.contains(TENANT));
    let mut named = named.map(|line| line.split('{').next().unwrap());
    assert!(named.all(|name| name.starts_with("okmon_edge_tenant_")));
}
