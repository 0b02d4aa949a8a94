//! Several endpoints behind one upstream: what one of them does, senders do not notice where it can be helped.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{Answer, Setup, World, connect, eventually, head, post, post2, read_answer};
use crate::streaming::GATHERED;
use crate::upstream::{Reply, Script, Upstream};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A world whose upstreams are `first`, which does `script`, and `other`.
async fn with_other(script: Script, other: SocketAddr, more: &str) -> World {
    let mut world = World::start(script).await;
    let first = world.upstream.address;
    let urls = format!("urls = ['http://{first}', 'http://{other}']\n{more}");
    world
        .reload(|text| text.replace(&format!("url = 'http://{first}'"), &urls))
        .await
        .unwrap();
    world
}

async fn send(world: &World, body: &[u8]) -> Answer {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    post(world.api, "/v1/traces", &headers, body).await
}

async fn send_grpc(world: &World) -> Answer {
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    post2(world.api, METHOD, &headers, &[&[0; 5], &[]]).await
}

async fn up(world: &World, endpoint: SocketAddr) -> bool {
    // Of the upstream that OTLP/HTTP traces go to.
    let label = format!("upstream=\"http\",endpoint=\"{endpoint}\"");
    world.metric("okmon_edge_endpoint_up", &label).await > 0.0
}

async fn replays(world: &World) -> f64 {
    world.metric("okmon_edge_upstream_replays_total", "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_breaks_connections_is_left_and_nobody_notices() {
    let well = Upstream::start(Script::Answer(Reply::new(200))).await;
    let world = with_other(
        Script::Die,
        well.address,
        "eject_for = '1m'\nprobe_every = '1m'",
    )
    .await;
    let body = vec![7; 20_000];
    for _ in 0..40 {
        assert_eq!(send(&world, &body).await.status, 200);
    }
    assert!(!up(&world, world.upstream.address).await);
    assert!(up(&world, well.address).await);
    let repeated = replays(&world).await;
    assert!(
        (2.5..=3.5).contains(&repeated),
        "three in a row: {repeated}"
    );
    let seen = well.take_seen();
    assert_eq!(seen.len(), 40);
    assert!(seen.iter().all(|seen| seen.whole && seen.body == body));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_sent_once_more_too() {
    let well = Upstream::start(Script::Answer(Reply::grpc())).await;
    let world = with_other(Script::Die, well.address, "").await;
    for _ in 0..10 {
        let answer = send_grpc(&world).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_gets_requests_again_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let world = with_other(
        Script::Answer(Reply::new(200)),
        gone,
        "probe_every = '20ms'\neject_for = '1m'",
    )
    .await;
    for _ in 0..20 {
        assert_eq!(send(&world, b"x").await.status, 200);
    }
    assert!(!up(&world, gone).await, "one refused connection is enough");
    let back = TcpListener::bind(gone).await.unwrap();
    tokio::spawn(async move { while back.accept().await.is_ok() {} });
    eventually("it is back", async || {
        if up(&world, gone).await {
            Ok(())
        } else {
            Err("it is not".to_owned())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declines_before_the_body_is_taken_is_passed_over() {
    let well = Upstream::start(Script::Answer(Reply::new(200))).await;
    let world = with_other(Script::AnswerEarly(Reply::new(503)), well.address, "").await;
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    for _ in 0..10 {
        let mut connection = connect(world.api).await;
        let head = head("/v1/traces", &headers, 2 * GATHERED);
        let first = [head.as_bytes(), &[7; GATHERED]].concat();
        let heads = well.heads();
        connection.write_all(&first).await.unwrap();
        eventually("it is at the one that takes it", async || {
            if well.heads() > heads {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
        connection.write_all(&[8; GATHERED]).await.unwrap();
        assert_eq!(read_answer(&mut connection).await.unwrap().status, 200);
    }
    for seen in well.take_seen() {
        assert!(seen.body == [vec![7; GATHERED], vec![8; GATHERED]].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_when_to_come_again_is_passed_on() {
    let busy = Script::AnswerEarly(Reply::new(503).header("retry-after", "7"));
    let other = Upstream::start(busy.clone()).await;
    let world = with_other(busy, other.address, "").await;
    for _ in 0..10 {
        let answer = send(&world, b"x").await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("7"))
        );
    }
    assert!(replays(&world).await < 0.5);
    assert!(up(&world, other.address).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_too_large_to_keep_is_told_to_come_again() {
    let also_dies = Upstream::start(Script::Die).await;
    let mut world = with_other(Script::Die, also_dies.address, "").await;
    let first = world.upstream.address;
    let urls = format!("urls = ['http://{first}', 'http://{}']", also_dies.address);
    world
        .reload(|text| {
            text.replace(&format!("url = 'http://{first}'"), &urls)
                + "[replay]\nbody_max = '1KiB'\n"
        })
        .await
        .unwrap();
    let answer = send(&world, &vec![7; 50_000]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert!(replays(&world).await < 0.5, "it could not be kept");
    let impossible = world
        .metric("okmon_edge_upstream_replays_impossible_total", "")
        .await;
    assert!(impossible > 0.5);
    // A small one is tried twice, and then told the same.
    assert_eq!(send(&world, b"x").await.status, 503);
    assert!(replays(&world).await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_not_the_upstreams_failure() {
    let other = Upstream::start(Script::Hang).await;
    let world = with_other(Script::Hang, other.address, "eject_after = 1").await;
    for _ in 0..4 {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("x-api-key", world.keys.valid.reveal()),
        ];
        let mut connection = connect(world.api).await;
        let request = head("/v1/traces", &headers, 1) + "x";
        connection.write_all(request.as_bytes()).await.unwrap();
        let heads = world.upstream.heads() + other.heads();
        eventually("it is upstream", async || {
            match world.upstream.heads() + other.heads() {
                now if now > 0 || heads > 0 => Ok(()),
                _ => Err("not yet".to_owned()),
            }
        })
        .await;
    }
    eventually("all are gone", async || {
        match world.metric("okmon_edge_requests_in_flight", "").await {
            n if n < 0.5 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
    assert!(world.metric("okmon_edge_endpoint_failures_total", "").await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_are_given_to_an_upstream_than_it_may_have() {
    let mut world = World::start_with(Script::Hang, Setup::PATIENT).await;
    let url = format!("url = 'http://{}'", world.upstream.address);
    world
        .reload(|text| text.replace(&url, &format!("{url}\nrequests_max = 1")))
        .await
        .unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let mut hanging = connect(world.api).await;
    let request = head("/v1/traces", &headers, 1) + "x";
    hanging.write_all(request.as_bytes()).await.unwrap();
    world.seen_soon().await;
    let answer = send(&world, b"x").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert!(world.metric("okmon_edge_upstream_full_total", "").await > 0.5);
    drop(hanging);
    world.upstream.does(Script::Answer(Reply::new(200)));
    eventually("its place is free", async || {
        match send(&world, b"x").await.status {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_dies_with_the_next_request_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let mut buffer = vec![0; 4096];
        loop {
            // Answers the first request of each connection, and closes when the second has come.
            let (mut connection, _) = listener.accept().await.unwrap();
            assert_ne!(connection.read(&mut buffer).await.unwrap(), 0);
            connection.write_all(ok).await.unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                let _ = connection.read(&mut buffer).await;
            });
        }
    });
    let world = World::start_against(address, Setup::PATIENT).await;
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let request = head("/v1/traces", &headers, 1) + "x";
    // One connection, so one worker with one pool.
    let mut connection = connect(world.api).await;
    for _ in 0..6 {
        connection.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut connection).await.unwrap().status, 200);
    }
    assert!(replays(&world).await > 0.5);
    assert!(world.metric("okmon_edge_endpoint_failures_total", "").await < 0.5);
}
