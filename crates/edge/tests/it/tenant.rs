//! Whatever a client sends, the upstream sees one tenant: the key's.

use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{OTHER, TENANT, World, post, post2, read_pipelined};
use crate::upstream::{Reply, Script};

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
fn check(seen: &crate::upstream::Seen, sent: &str) {
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

/// Names with every letter in either case, and dashes that may be underscores.
fn spelling(name: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<(bool, bool)>(), name.len()).prop_map(move |choices| {
        let letters = name.chars().zip(choices);
        let spelt = letters.map(|(letter, (upper, underscore))| match letter {
            '-' if underscore => '_',
            _ if upper => letter.to_ascii_uppercase(),
            _ => letter,
        });
        spelt.collect()
    })
}

fn header() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        spelling("x-scope-orgid"),
        spelling("x-scope-userid"),
        spelling("thanos-tenant"),
        spelling("x-api-key-2"),
        spelling("x-forwarded-for"),
        spelling("connection"),
        spelling("x-grafana-id"),
        spelling("cookie"),
        spelling("te"),
        "[a-z][a-z0-9_-]{0,12}".prop_filter("framing is another test's", |name| {
            !matches!(
                name.as_str(),
                "host" | "expect" | "upgrade" | "content-length" | "transfer-encoding"
            )
        }),
    ];
    let value = prop_oneof![
        Just(TENANT.to_owned()),
        Just(OTHER.to_owned()),
        Just("X-Scope-OrgID".to_owned()),
        Just("keep-alive, x-scope-orgid".to_owned()),
        Just(String::new()),
        "[ -~]{0,20}",
    ];
    (name, value)
}

/// 100,000 requests over the public socket, many on one connection: the upstream's view is checked for each that passed.
#[tokio::test(flavor = "multi_thread")]
async fn no_set_of_headers_changes_who_is_asking() {
    const CONNECTIONS: u64 = 20;
    const BATCHES: usize = 100;
    const PIPELINED: usize = 50;
    let world = Arc::new(World::start(Script::Answer(Reply::new(200))).await);
    let senders = (0..CONNECTIONS).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            // The failure text has the headers; a seed is not needed to see them again.
            let mut runner = TestRunner::new(Config::default());
            let headers = proptest::collection::vec(header(), 0..6);
            let mut passed = 0;
            let mut stream = TcpStream::connect(world.api).await.unwrap();
            let mut buffer = BytesMut::new();
            for _ in 0..BATCHES {
                let mut batch = String::new();
                for _ in 0..PIPELINED {
                    batch += "POST /v1/metrics HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n";
                    batch += &format!("authorization: Bearer {}\r\ncontent-length: 0\r\n", world.keys.valid.reveal());
                    for (name, value) in headers.new_tree(&mut runner).unwrap().current() {
                        batch += &format!("{name}: {value}\r\n");
                    }
                    batch += "\r\n";
                }
                stream.write_all(batch.as_bytes()).await.ok();
                for _ in 0..PIPELINED {
                    let Some(answer) = read_pipelined(&mut stream, &mut buffer).await else {
                        // `Connection: close` was among the headers: the rest of the batch was not taken.
                        stream = TcpStream::connect(world.api).await.unwrap();
                        buffer.clear();
                        break;
                    };
                    assert!([200, 401, 403].contains(&answer.status), "{answer:?} to one of\n{batch}");
                    passed += usize::from(answer.status == 200);
                }
            }
            passed
        })
    });
    let mut passed = 0;
    for sender in senders.collect::<Vec<_>>() {
        passed += sender.await.unwrap();
    }
    let seen = world.upstream.take_seen();
    assert!(
        passed > 10_000 && seen.len() >= passed,
        "{passed} passed, {} arrived",
        seen.len()
    );
    for request in &seen {
        check(request, &format!("{request:?}"));
    }
}
