//! Whatever a client sends, the upstream sees one tenant: the key's.

use crate::harness::{OTHER, TENANT, World, post, post2, raw};
use crate::upstream::{Reply, Script, Seen};

const MEDIA: (&str, &str) = ("content-type", "application/x-protobuf");
const GRPC: (&str, &str) = ("content-type", "application/grpc");
const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_agrees_passes_once_however_often_it_was_sent() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let headers = [
        MEDIA,
        key,
        ("X-Scope-OrgID", TENANT),
        ("x-scope-orgid", TENANT),
    ];
    assert_eq!(
        post(world.api, "/v1/metrics", &headers, b"x").await.status,
        200
    );
    assert_eq!(world.upstream.take_seen()[0].all("x-scope-orgid"), [TENANT]);
    let headers = [
        MEDIA,
        key,
        ("X-Scope-OrgID", TENANT),
        ("X-Scope-OrgID", OTHER),
    ];
    assert_eq!(
        post(world.api, "/v1/metrics", &headers, b"x").await.status,
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lenient_listener_overwrites_and_counts() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let headers = [
        MEDIA,
        ("x-api-key", world.keys.valid.reveal()),
        ("x-scope-orgid", OTHER),
    ];
    assert_eq!(
        post(world.lenient, "/v1/metrics", &headers, b"x")
            .await
            .status,
        200
    );
    assert_eq!(world.upstream.take_seen()[0].all("x-scope-orgid"), [TENANT]);
    assert!(
        world
            .metric("okmon_edge_tenant_headers_ignored_total", "")
            .await
            >= 1.0
    );
}

/// Nothing but what is on the list, and exactly one tenant header.
pub(crate) fn check(seen: &Seen, sent: &str) {
    assert_eq!(seen.all("x-scope-orgid"), [TENANT], "{sent}");
    let allowed = [
        "host",
        "content-length",
        "transfer-encoding",
        "content-type",
        "content-encoding",
        "user-agent",
        "traceparent",
        "tracestate",
        "x-prometheus-remote-write-version",
        "x-victoriametrics-remote-write-version",
        "retry-attempt",
        "te",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-timeout",
        "x-scope-orgid",
    ];
    for (name, value) in &seen.headers {
        assert!(
            allowed.contains(&name.as_str()),
            "{name}: {value} in {seen:?}\n{sent}"
        );
        assert!(!value.contains("obs_"), "a key left us in {name}\n{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_alikes_and_hop_headers_never_arrive() {
    let world = World::start(Script::Answer(Reply::grpc())).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    for (name, value) in [
        ("x_scope_orgid", OTHER),
        ("X-Scope-UserID", OTHER),
        ("THANOS-TENANT", OTHER),
        ("AccountID", "1"),
        ("ProjectID", "1"),
        ("X-Prom-Label-Policy", "a"),
        ("X-Loki-Ingestion-Policy", "a"),
        ("X-Mimir-SkipLabelNameValidation", "true"),
        ("X-Grafana-Id", "a"),
        ("Cookie", "a=b"),
        ("Proxy-Authorization", "a"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Forwarded", "for=1.2.3.4"),
    ] {
        let sent = format!("{name}: {value}");
        assert_eq!(
            post(world.api, "/v1/metrics", &[MEDIA, key, (name, value)], b"x")
                .await
                .status,
            200
        );
        check(&world.upstream.take_seen()[0], &sent);
        let name = name.to_lowercase();
        post2(world.api, METHOD, &[GRPC, key, (&name, value)], &[&[0; 5]]).await;
        check(&world.upstream.take_seen()[0], &sent);
    }
    for connection in [
        "X-Scope-OrgID",
        "close, x-scope-orgid",
        "content-type, X-Scope-OrgID",
    ] {
        let headers = [MEDIA, key, ("connection", connection)];
        assert_eq!(
            post(world.api, "/v1/metrics", &headers, b"x").await.status,
            200
        );
        check(&world.upstream.take_seen()[0], connection);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_name_nobody() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = world.keys.valid.reveal();
    let request = format!(
        "POST /v1/metrics HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-type: application/x-protobuf\r\n\
         trailer: x-scope-orgid\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         1\r\nx\r\n0\r\nX-Scope-OrgID: {OTHER}\r\nX-API-Key: {key}\r\n\r\n"
    );
    let answer = raw(world.api, request.as_bytes()).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let seen = world.upstream.take_seen().remove(0);
    check(&seen, &request);
    assert!(seen.whole && seen.body == b"x", "{seen:?}");
}
