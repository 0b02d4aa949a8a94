//! Bodies pass as they come, in both directions, and whatever breaks is told to the sender and never hidden from the upstream.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    Answer, World, collect2, eventually, head, http2, post, post2, read_answer, request2,
};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const MEDIA: (&str, &str) = ("content-type", "application/x-protobuf");

fn headers(world: &World) -> [(&str, &str); 2] {
    [MEDIA, ("x-api-key", world.keys.valid.reveal())]
}

fn grpc_headers(world: &World) -> [(&str, &str); 3] {
    [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-api-key", world.keys.valid.reveal()),
    ]
}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from((n / 7 + n * 31) % 251).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_arrive_as_they_were_sent() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    for length in [0, 1, 1000, 65_535, 65_536, 300_000, 8 << 20] {
        let body = bytes(length);
        assert_eq!(
            post(world.api, "/v1/traces", &headers(&world), &body)
                .await
                .status,
            200
        );
        let seen = world.upstream.take_seen().remove(0);
        assert!(
            seen.whole && seen.body == body,
            "{length} bytes over HTTP/1.1"
        );
        assert_eq!(seen.all("content-length"), [length.to_string()]);

        let mut stream = TcpStream::connect(world.api).await.unwrap();
        let [(_, media), (_, key)] = headers(&world);
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: {media}\r\nx-api-key: {key}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for chunk in body.chunks(70_001) {
            stream
                .write_all(format!("{:X}\r\n", chunk.len()).as_bytes())
                .await
                .unwrap();
            stream.write_all(chunk).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
        let seen = world.upstream.take_seen().remove(0);
        assert!(seen.whole && seen.body == body, "{length} bytes chunked");

        let frames: Vec<_> = body.chunks(16_384).collect();
        assert_eq!(
            post2(world.api, "/v1/traces", &headers(&world), &frames)
                .await
                .status,
            200
        );
        let seen = world.upstream.take_seen().remove(0);
        assert!(
            seen.whole && seen.body == body,
            "{length} bytes over HTTP/2"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_frames_and_trailers_pass_unchanged() {
    let reply = Reply {
        trailers: vec![
            ("grpc-status", "8"),
            ("grpc-message", "slow%20down"),
            ("grpc-status-details-bin", "CAgSCXNsb3cgZG93bg"),
        ],
        ..Reply::grpc()
    };
    let world = World::start(Script::Answer(reply.clone())).await;
    let message = bytes(100_000);
    let frames: Vec<_> = message.chunks(999).collect();
    let extra = [("grpc-encoding", "gzip"), ("grpc-timeout", "5S")];
    let headers = [&grpc_headers(&world)[..], &extra].concat();
    let answer = post2(world.api, METHOD, &headers, &frames).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &[0; 5][..]));
    for (name, value) in reply.trailers {
        assert_eq!(answer.trailers.get(name).unwrap(), value);
    }
    let seen = world.upstream.take_seen().remove(0);
    assert!(seen.whole && seen.body == message);
    assert_eq!(
        (seen.all("grpc-encoding"), seen.all("grpc-timeout")),
        (vec!["gzip"], vec!["5S"])
    );

    let refused = Reply::new(200)
        .header("content-type", "application/grpc")
        .header("grpc-status", "8");
    world.upstream.does(Script::Answer(refused));
    let answer = post2(world.api, METHOD, &headers, &frames).await;
    assert!(
        answer.trailers_only && answer.grpc_status() == Some("8"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_says_arrives_unchanged() {
    let world = World::start(Script::Hang).await;
    let written = "x-prometheus-remote-write-samples-written";
    for status in [
        200, 202, 204, 260, 400, 413, 422, 429, 500, 501, 502, 503, 529,
    ] {
        let body = if status == 204 {
            ""
        } else {
            "the backend's own words"
        };
        let reply = Reply::new(status)
            .header("retry-after", "37")
            .header(written, "12")
            .header("content-type", "text/plain")
            .header("server", "secret/1.0")
            .header("via", "secret")
            .header("server-timing", "artificial_delay;dur=1")
            .header("connection", "x-internal")
            .header("x-internal", "1")
            .body(body);
        world.upstream.does(Script::Answer(reply));
        let answer = post(world.api, "/api/v1/push", &headers(&world), b"x").await;
        assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()));
        assert_eq!(
            (answer.header("retry-after"), answer.header(written)),
            (Some("37"), Some("12"))
        );
        for hidden in ["server", "via", "server-timing", "x-internal"] {
            assert_eq!(answer.header(hidden), None, "{hidden}");
        }
    }
    for status in [401, 403] {
        world.upstream.does(Script::Answer(Reply::new(status)));
        let answer = post(world.api, "/api/v1/push", &headers(&world), b"x").await;
        assert_eq!(
            answer.status, 503,
            "our own credential failed, not the customer's"
        );
    }
    assert!(world.metric("okmon_edge_upstream_denied_total", "").await >= 2.0);
}

/// What a sender is told when there is no answer to pass on.
fn temporary(answer: &Answer, http: u16) {
    if let Some(code) = answer.grpc_status() {
        assert_eq!(code, "14", "{answer:?}");
        assert!(
            answer.header("google.rpc.retryinfo-bin").is_some(),
            "{answer:?}"
        );
    } else {
        assert_eq!(answer.status, http, "{answer:?}");
        let wait: u64 = answer
            .header("retry-after")
            .expect("a hint")
            .parse()
            .unwrap();
        assert!((1..=4).contains(&wait));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_makes_the_sender_keep_its_data() {
    let world = World::start(Script::Die).await;
    for (script, status) in [
        (Script::Die, 503),
        (Script::Hang, 504),
        (Script::Stall, 504),
    ] {
        world.upstream.does(script);
        temporary(
            &post(world.api, "/v1/traces", &headers(&world), b"x").await,
            status,
        );
        temporary(
            &post2(world.api, "/v1/traces", &headers(&world), &[b"x"]).await,
            status,
        );
        temporary(
            &post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await,
            status,
        );
    }
    world.upstream.does(Script::Answer(Reply::new(200)));
    assert_eq!(
        post(world.api, "/v1/traces", &headers(&world), b"x")
            .await
            .status,
        200,
        "the next request works"
    );

    // A port that nobody listens on.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::start_against(nobody).await;
    temporary(
        &post(world.api, "/v1/traces", &headers(&world), b"x").await,
        503,
    );
    temporary(
        &post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await,
        503,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_pass_for_a_whole_one() {
    let world = World::start(Script::DieMidAnswer).await;
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    stream
        .write_all(head("/v1/traces", &headers(&world), 1).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(
        read_answer(&mut stream).await.is_none(),
        "HTTP/1.1: the connection breaks before the end"
    );
    let mut send = http2(world.api).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2("/v1/traces", &headers(&world)), false)
        .unwrap();
    stream.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert!(
        collect2(response).await.is_err(),
        "HTTP/2: the stream is reset"
    );
    let answer = post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await;
    assert_eq!(
        answer.trailers.get("grpc-status").unwrap(),
        "14",
        "gRPC: the trailers say so"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_is_the_answer() {
    let world = Arc::new(World::start(Script::Hang).await);
    let body = bytes(1 << 20);
    for script in [
        Script::AnswerEarly(Reply::new(200)),
        Script::AnswerAndClose(
            Reply::new(413)
                .header("connection", "close")
                .body("too much"),
        ),
    ] {
        let status = if matches!(script, Script::AnswerEarly(_)) {
            200
        } else {
            413
        };
        world.upstream.does(script);
        let senders = (0..100).map(|n| {
            let (world, body) = (Arc::clone(&world), body.clone());
            tokio::spawn(async move {
                if n % 2 == 0 {
                    post(world.api, "/v1/traces", &headers(&world), &body[..32 << 10])
                        .await
                        .status
                } else {
                    let frames: Vec<_> = body.chunks(16_384).collect();
                    post2(world.api, "/v1/traces", &headers(&world), &frames)
                        .await
                        .status
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            assert_eq!(sender.await.unwrap(), status);
        }
    }
    for reply in [
        Reply::grpc(),
        Reply::new(200)
            .header("content-type", "application/grpc")
            .header("grpc-status", "8"),
    ] {
        let code = if reply.trailers.is_empty() { "8" } else { "0" };
        world.upstream.does(Script::AnswerEarly(reply));
        let senders = (0..100).map(|_| {
            let (world, body) = (Arc::clone(&world), body.clone());
            tokio::spawn(async move {
                let frames: Vec<_> = body.chunks(16_384).collect();
                post2(world.api, METHOD, &grpc_headers(&world), &frames).await
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            assert_eq!(sender.await.unwrap().grpc_status(), Some(code));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_given_up() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    stream
        .write_all(head("/v1/traces", &headers(&world), 100).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"half").await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 408);
    assert!(!world.seen_soon().await.whole);

    let mut send = http2(world.api).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2(METHOD, &grpc_headers(&world)), false)
        .unwrap();
    stream
        .send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false)
        .unwrap();
    assert_eq!(collect2(response).await.unwrap().grpc_status(), Some("14"));
    assert!(!world.seen_soon().await.whole);
}

/// Waits until so many requests were booked as abandoned.
async fn abandoned(world: &World, wanted: f64) {
    eventually("abandoned requests", async || {
        let name = "okmon_edge_requests_total";
        match world.metric(name, "outcome=\"abandoned\"").await {
            n if n >= wanted => Ok(()),
            n => Err(format!("{n} of {wanted}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_resets_the_upstream_and_counts_as_abandoned() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    stream
        .write_all(head("/v1/traces", &headers(&world), 100).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"half").await.unwrap();
    drop(stream);
    abandoned(&world, 1.0).await;

    let mut send = http2(world.api).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2(METHOD, &grpc_headers(&world)), false)
        .unwrap();
    stream
        .send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false)
        .unwrap();
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    abandoned(&world, 2.0).await;
    let seen = world.upstream.take_seen();
    assert!(seen.iter().all(|seen| !seen.whole), "{seen:?}");

    // While it waits for the answer.
    world.upstream.does(Script::Hang);
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    stream
        .write_all(head("/v1/traces", &headers(&world), 1).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"x").await.unwrap();
    world.seen_soon().await;
    drop(stream);
    abandoned(&world, 3.0).await;
    assert!(
        world
            .metric("okmon_edge_requests_in_flight", "")
            .await
            .abs()
            < 0.5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_slows_the_client_instead_of_filling_memory() {
    let world = World::start(Script::Stall).await;
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    stream
        .write_all(head("/v1/traces", &headers(&world), 16 << 20).as_bytes())
        .await
        .unwrap();
    let chunk = bytes(64 << 10);
    let mut written = 0;
    // The edge gives up after the upstream's time limit, and what it took until then is the measure.
    while written < 16 << 20 {
        match stream.write(&chunk).await {
            Ok(n) => written += n,
            Err(_) => break,
        }
        let mut answer = [0; 1];
        if stream.try_read(&mut answer).is_ok() {
            break;
        }
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok();
    assert!(
        written < 14 << 20,
        "{written} bytes were taken though nobody read them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on_only_with_a_good_key() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let expect = ("expect", "100-continue");
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    let [media, key] = headers(&world);
    stream
        .write_all(head("/v1/traces", &[media, key, expect], 4).as_bytes())
        .await
        .unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);

    let mut stream = TcpStream::connect(world.api).await.unwrap();
    let unknown = ("x-api-key", world.keys.unknown.reveal());
    stream
        .write_all(head("/v1/traces", &[media, unknown, expect], 4).as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 401 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_on_both_sides() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let mut stream = TcpStream::connect(world.api).await.unwrap();
    for _ in 0..50 {
        stream
            .write_all(head("/v1/traces", &headers(&world), 1).as_bytes())
            .await
            .unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    }
    let opened = world
        .metric("okmon_edge_upstream_connections_total", "")
        .await;
    assert!((opened - 1.0).abs() < 0.5, "{opened} connections");

    let key = world.keys.valid.reveal();
    let old = format!(
        "POST /v1/traces HTTP/1.0\r\ncontent-type: application/x-protobuf\r\nx-api-key: {key}\r\ncontent-length: 1\r\n\r\nx"
    );
    let answer = crate::harness::raw(world.api, old.as_bytes()).await;
    assert!(
        answer.starts_with(b"HTTP/1.0 200 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
