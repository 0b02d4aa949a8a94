//! A path is matched raw and whole, and what goes upstream is a constant.

use crate::harness::{World, post, post2, raw};
use crate::upstream::{Reply, Script};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_exact_path_is_a_route_and_the_upstream_sees_ours() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    for (path, upstream) in [
        ("/v1/traces", "/v1/traces"),
        ("/v1/traces/", "/v1/traces"),
        ("/v1/traces?extra_label=tenant=b", "/v1/traces"),
        ("/v1/metrics", "/otlp/v1/metrics"),
        ("/v1/logs", "/otlp/v1/logs"),
        ("/api/v1/write?x=1", "/api/v1/push"),
        ("/loki/api/v1/push", "/loki/api/v1/push"),
        ("http://edge/v1/traces", "/v1/traces"),
    ] {
        assert_eq!(
            post(world.api, path, &headers, b"x").await.status,
            200,
            "{path}"
        );
        assert_eq!(world.upstream.take_seen()[0].path, upstream, "{path}");
    }
    for path in [
        "/",
        "//v1/traces",
        "/v1//traces",
        "/v1/traces//",
        "/v1%2ftraces",
        "/v1/%74races",
        "/v1/../v1/traces",
        "/v1/./traces",
        "/V1/traces",
        "/v1/traces;x",
        "/v1/traces/admin",
        "/prefix/v1/traces",
        "/api/v1/push/../../admin",
        "/metrics",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export/",
    ] {
        let answer = post(world.api, path, &headers, b"x").await;
        assert_eq!(answer.status, 404, "{path}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(
            text.contains("/v1/traces"),
            "the answer names the right paths: {text}"
        );
        if !path.contains("%2f") {
            assert_eq!(
                post2(world.api, path, &headers, &[b"x"]).await.status,
                404,
                "{path}"
            );
        }
    }
    for target in [
        "*",
        "edge:80",
        "http://[::1/v1/traces",
        "\\v1\\traces",
        "v1/traces",
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = raw(world.api, request.as_bytes()).await;
        let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
        assert!(status == "404" || status == "400", "{target}: {status}");
    }
    assert!(world.upstream.take_seen().is_empty());
    let unknown = "/opentelemetry.proto.collector.trace.v1.TraceService/Nothing";
    let answer = post2(
        world.api,
        unknown,
        &[("content-type", "application/grpc")],
        &[&[0; 5]],
    )
    .await;
    assert_eq!((answer.status, answer.grpc_status()), (200, Some("12")));
}
