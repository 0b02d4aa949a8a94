//! TLS towards senders: every protocol through it, and how connections begin and end.

use std::time::Duration;

use rustls::ProtocolVersion;
use testkit::certificates::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{
    DEADLINE, OTHER, Setup, TENANT, World, collect2, connect, eventually, head, raw, read_answer,
    request2,
};
use crate::tls_client::{
    Client, HOST, alpn, ask, certificates, count, http2_over, reload, resumed, start_with, version,
};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The edge with one certificate.
async fn with_certificate(authority: &Authority) -> (World, std::net::SocketAddr) {
    with_connections(authority, "").await
}

/// The same, with these lines about connections.
async fn with_connections(
    authority: &Authority,
    connections: &'static str,
) -> (World, std::net::SocketAddr) {
    let setup = Setup {
        connections,
        ..Setup::PATIENT
    };
    start_with(setup, |world| {
        let pair = authority.issue(&[HOST]).write(world.folder(), "edge");
        certificates(&[&pair])
    })
    .await
}

async fn failures(world: &World, reason: &str) -> i64 {
    let labels = format!("failure=\"{reason}\"");
    let name = "okmon_edge_tls_handshake_failures_total";
    count(world, name, &labels).await
}

/// Waits until one more handshake has failed for this reason.
async fn fails_for(world: &World, reason: &str, before: i64) {
    eventually(reason, async || {
        let now = failures(world, reason).await;
        (now > before).then_some(()).ok_or(now.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_goes_through_tls_in_either_version() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    for tls12 in [false, true] {
        let mut client = Client::new(&authority);
        if tls12 {
            client = client.only_tls12();
        }
        let (answer, stream) = client.ask(&world, address, HOST).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert_eq!(alpn(&stream), Some("http/1.1"));
        assert_eq!(version(&stream) == ProtocolVersion::TLSv1_2, tls12);
        assert_eq!(world.seen_soon().await.all("x-scope-orgid"), [TENANT]);

        world.upstream.does(Script::Answer(Reply::grpc()));
        let stream = client.connect(address, HOST).await.unwrap();
        assert_eq!(alpn(&stream), Some("h2"));
        let mut send = http2_over(stream).await.ready().await.unwrap();
        let headers = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("x-api-key", world.keys.other.reveal()),
        ];
        let (response, mut body) = send
            .send_request(request2(METHOD, &headers), false)
            .unwrap();
        body.send_data(vec![0; 5].into(), true).unwrap();
        let answer = collect2(response).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
        assert_eq!(world.seen_soon().await.all("x-scope-orgid"), [OTHER]);
        world
            .upstream
            .does(Script::Answer(Reply::new(200).body("ok")));
    }
    let handshakes = "okmon_edge_tls_handshakes_total";
    assert_eq!(count(&world, handshakes, "version=\"1.2\"").await, 2);
    assert_eq!(count(&world, handshakes, "version=\"1.3\"").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_no_protocol_may_speak_either() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    let client = Client::new(&authority).offering(&[]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    assert_eq!(alpn(&stream), None);
    assert_eq!(ask(&world, &mut stream).await.unwrap().status, 200);

    let stream = client.connect(address, HOST).await.unwrap();
    let mut send = http2_over(stream).await.ready().await.unwrap();
    let headers = [("x-api-key", world.keys.valid.reveal())];
    let (response, _) = send
        .send_request(request2("/v1/nowhere", &headers), true)
        .unwrap();
    assert_eq!(collect2(response).await.unwrap().status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_settled_on_http2_may_speak_nothing_else() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    let client = Client::new(&authority).offering(&["h2"]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let head = head("/v1/traces", &headers, 0);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    // However it ends, no answer comes.
    let reading = stream.read_to_end(&mut said);
    let _ = tokio::time::timeout(DEADLINE, reading).await.unwrap();
    assert!(!said.starts_with(b"HTTP/1"), "{}", said.escape_ascii());
    assert!(world.upstream.take_seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_in_both_directions() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    let answer: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    world
        .upstream
        .does(Script::Answer(Reply::new(200).body(answer.clone())));
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let client = Client::new(&authority).offering(&["http/1.1"]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let head = head("/v1/traces", &headers, body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    // What the socket did not take at once waits in the session.
    stream.flush().await.unwrap();
    let answered = read_answer(&mut stream).await.unwrap();
    assert!(answered.body == answer, "{} bytes", answered.body.len());
    assert!(world.seen_soon().await.body == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_before_the_body_can_read_the_answer() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    let client = Client::new(&authority).offering(&["http/1.1"]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.unknown.reveal()),
    ];
    let head = head("/v1/traces", &headers, 8 << 20);
    let (mut read, mut write) = tokio::io::split(stream_of(&mut stream));
    let writing = async {
        write.write_all(head.as_bytes()).await.unwrap();
        // The edge stops reading at some point; that is not our concern.
        for _ in 0..1024 {
            if write.write_all(&[7; 8192]).await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        let answer = read_answer(&mut read).await.expect("an answer");
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("connection"), Some("close"));
        let mut rest = Vec::new();
        let end = read.read_to_end(&mut rest).await;
        assert!(end.is_ok() && rest.is_empty(), "not cut off: {end:?}");
    };
    tokio::select! {
        () = async { writing.await; std::future::pending().await } => {}
        () = reading => {}
    }
}

fn stream_of<T>(stream: &mut T) -> &mut T {
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_idle_for_long_is_closed_and_not_cut_off() {
    let authority = Authority::new("root");
    let (world, address) = with_connections(&authority, "idle_timeout = '100ms'").await;
    let client = Client::new(&authority);
    let (answer, mut stream) = client.ask(&world, address, HOST).await.unwrap();
    assert_eq!(answer.status, 200);
    let end = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await;
    assert_eq!(
        end.unwrap().unwrap(),
        0,
        "rustls tells when no goodbye was said"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_cut_off_too() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    world.upstream.does(Script::DieMidAnswer);
    let client = Client::new(&authority).offering(&["http/1.1"]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let request = [head("/v1/traces", &headers, 1).as_bytes(), b"x"].concat();
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    end.unwrap().expect_err("no goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_fail_are_counted_by_reason() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    let before = failures(&world, "not_tls").await;
    raw(address, b"POST /v1/logs HTTP/1.1\r\nhost: a\r\n\r\n").await;
    fails_for(&world, "not_tls", before).await;

    let client = Client::new(&authority).offering(&["spdy/1"]);
    assert!(client.connect(address, HOST).await.is_err());
    fails_for(&world, "alpn", 0).await;

    let stranger = Client::new(&Authority::new("other"));
    assert!(stranger.connect(address, HOST).await.is_err());
    fails_for(&world, "refused_by_client", 0).await;

    drop(connect(address).await);
    fails_for(&world, "closed", 0).await;
    let succeeded = count(&world, "okmon_edge_tls_handshakes_total", "").await;
    assert_eq!(succeeded, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_may_take_as_long_as_a_head() {
    let authority = Authority::new("root");
    let (world, address) = with_connections(&authority, "head_timeout = '200ms'").await;
    let mut silent = connect(address).await;
    let mut dripping = connect(address).await;
    dripping.write_all(b"\x16\x03\x01\x02").await.unwrap();
    for stream in [&mut silent, &mut dripping] {
        let end = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    }
    eventually("both", async || match failures(&world, "timeout").await {
        2 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    let client = Client::new(&authority);
    assert!(client.ask(&world, address, HOST).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_than_allowed_is_refused() {
    let authority = Authority::new("root");
    let (mut world, address) = with_certificate(&authority).await;
    let old = Client::new(&authority).only_tls12();
    assert!(old.connect(address, HOST).await.is_ok());
    let pair = authority.issue(&[HOST]).write(world.folder(), "edge");
    let section = certificates(&[&pair]) + "min_version = '1.3'";
    reload(&mut world, &section).await.unwrap();
    assert!(old.connect(address, HOST).await.is_err());
    fails_for(&world, "version", 0).await;
    let new = Client::new(&authority);
    assert!(new.ask(&world, address, HOST).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_taken_up_again_on_every_worker_and_after_new_certificates() {
    let authority = Authority::new("root");
    let (mut world, address) = with_certificate(&authority).await;
    for tls12 in [false, true] {
        let mut client = Client::new(&authority).resuming();
        if tls12 {
            client = client.only_tls12();
        }
        let (_, first) = client.ask(&world, address, HOST).await.unwrap();
        assert!(!resumed(&first));
        // The connections stay open: the next one goes to the other worker.
        let (_, second) = client.ask(&world, address, HOST).await.unwrap();
        assert!(resumed(&second), "{:?}", version(&second));
        let pair = authority.issue(&[HOST]).write(world.folder(), "edge");
        reload(&mut world, &certificates(&[&pair])).await.unwrap();
        let (_, third) = client.ask(&world, address, HOST).await.unwrap();
        assert!(resumed(&third), "{:?}", version(&third));
    }
    let name = "okmon_edge_tls_handshakes_total";
    assert_eq!(count(&world, name, "resumed=\"true\"").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_byte_by_byte_is_served() {
    let authority = Authority::new("root");
    let (world, address) = with_certificate(&authority).await;
    let client = Client::new(&authority).offering(&["http/1.1"]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let request = [head("/v1/traces", &headers, 4).as_bytes(), b"four"].concat();
    for byte in request {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let answering = tokio::time::timeout(Duration::from_secs(30), read_answer(&mut stream));
    assert_eq!(answering.await.unwrap().unwrap().status, 200);
}
