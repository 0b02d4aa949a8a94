//! Upstreams over TLS: HTTP/1.1 and gRPC alike, and only with a certificate that is trusted.

use crate::harness::{TENANT, World, post, post2};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_through_tls_when_the_certificate_is_trusted() {
    let world = World::start_tls(Script::Answer(Reply::new(200).body("ok")), true).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let body = vec![7; 200_000];
    for _ in 0..3 {
        let headers = [("content-type", "application/x-protobuf"), key];
        let answer = post(world.api, "/v1/traces", &headers, &body).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        let seen = world.upstream.take_seen().remove(0);
        assert!(seen.whole && seen.body == body && seen.all("x-scope-orgid") == [TENANT]);
    }
    let opened = world
        .metric("okmon_edge_upstream_connections_total", "")
        .await;
    assert!(opened < 2.5, "at most one connection per worker: {opened}");
    world.upstream.does(Script::Answer(Reply::grpc()));
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        key,
    ];
    let answer = post2(world.api, METHOD, &headers, &[&[0; 5]]).await;
    assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_an_upstream_whose_certificate_is_not_trusted() {
    let world = World::start_tls(Script::Answer(Reply::new(200)), false).await;
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    assert_eq!(
        post(world.api, "/v1/traces", &headers, b"x").await.status,
        503
    );
    assert!(world.upstream.take_seen().is_empty());
}
