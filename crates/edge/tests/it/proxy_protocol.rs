//! The PROXY protocol: whom a connection is from is told by proxies that are trusted, before everything else.

use std::net::SocketAddr;

use testkit::certificates::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{
    DEADLINE, Setup, World, collect2, connect, eventually, head, post, raw, read_answer, request2,
};
use crate::tls_client::{Client, HOST, ask, certificates, count};
use crate::upstream::{Reply, Script};
use crate::uses::{connect_from, used_from};

const REFUSED: &str = "okmon_edge_proxy_headers_refused_total";

/// The edge with a listener behind a proxy at 127.0.0.1, and these lines in its section.
async fn behind_proxy(setup: Setup, lines: &str) -> (World, SocketAddr) {
    let script = Script::Answer(Reply::new(200));
    let mut world = World::start_with(script, setup).await;
    let listener = "[listeners.proxied]\naddress = '127.0.0.1:0'\nproxy_protocol = 'required'\n";
    let proxies = "[proxies]\ntrusted = ['127.0.0.1', '10.0.0.0/8']\n";
    world
        .reload(|text| format!("{text}{proxies}{listener}{lines}"))
        .await
        .unwrap();
    let address = world.listener("proxied").unwrap();
    (world, address)
}

fn v1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 192.0.2.10 40000 4318\r\n").into_bytes()
}

fn v2(source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[192, 0, 2, 10, 0x9c, 0x40, 0x10, 0xde]].concat();
    // With an extension, as load balancers have them.
    let rest = [&addresses[..], &[0xea, 0, 3, b'v', b'p', b'c']].concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &rest].concat()
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn request(world: &World) -> Vec<u8> {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    [head("/v1/traces", &headers, 4).as_bytes(), b"four"].concat()
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) -> Option<u16> {
    stream.write_all(bytes).await.ok()?;
    read_answer(stream).await.map(|answer| answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_header_is_the_senders() {
    let (world, address) = behind_proxy(Setup::PATIENT, "").await;
    let request = request(&world);
    for header in [
        v1("203.0.113.1"),
        v2([203, 0, 113, 2]),
        LOCAL.to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
    ] {
        let mut stream = connect(address).await;
        // At once, as proxies do, and again on the same connection.
        let first = [&header[..], &request].concat();
        assert_eq!(send(&mut stream, &first).await, Some(200));
        assert_eq!(send(&mut stream, &request).await, Some(200));
    }
    used_from(&world, &["127.0.0.1", "203.0.113.1", "203.0.113.2"]).await;
    assert_eq!(count(&world, REFUSED, "").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_may_come_byte_by_byte_and_http2_after_it() {
    let (world, address) = behind_proxy(Setup::PATIENT, "").await;
    let mut stream = connect(address).await;
    for byte in v1("203.0.113.1") {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(send(&mut stream, &request(&world)).await, Some(200));

    let mut stream = connect(address).await;
    stream.write_all(&v2([203, 0, 113, 2])).await.unwrap();
    let handshake = h2::client::Builder::new().handshake::<_, bytes::Bytes>(stream);
    let (send, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let headers = [("x-api-key", world.keys.valid.reveal())];
    let request = request2("/v1/nowhere", &headers);
    let mut send = send.ready().await.unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let answer = collect2(response).await.unwrap();
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_comes_after_the_header() {
    let authority = Authority::new("root");
    let folder = tempfile::tempdir().unwrap();
    let pair = authority.issue(&[HOST]).write(folder.path(), "edge");
    let tls = format!("[listeners.proxied.tls]\n{}", certificates(&[&pair]));
    let (world, address) = behind_proxy(Setup::PATIENT, &tls).await;
    let client = Client::new(&authority).offering(&["http/1.1"]);
    for header in [v1("203.0.113.1"), v2([203, 0, 113, 2])] {
        let mut tcp = connect(address).await;
        tcp.write_all(&header).await.unwrap();
        let mut stream = client.connect_over(tcp, HOST).await.unwrap();
        assert_eq!(ask(&world, &mut stream).await.unwrap().status, 200);
    }
    used_from(&world, &["203.0.113.1", "203.0.113.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_or_sends_no_header_is_refused() {
    let setup = Setup {
        connections: "head_timeout = '300ms'",
        ..Setup::PATIENT
    };
    let (world, address) = behind_proxy(setup, "").await;
    let request = request(&world);
    let problem = async |problem: &str, expected: i64| {
        let label = format!("problem=\"{problem}\"");
        eventually(problem, async || {
            match count(&world, REFUSED, &label).await {
                n if n == expected => Ok(()),
                n => Err(n.to_string()),
            }
        })
        .await;
    };
    let mut stranger = connect_from("127.0.0.2", address).await;
    let bytes = [&v1("203.0.113.1")[..], &request].concat();
    assert_eq!(send(&mut stranger, &bytes).await, None);
    problem("untrusted", 1).await;

    assert!(raw(address, &request).await.is_empty());
    assert!(
        raw(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .is_empty()
    );
    problem("missing", 2).await;

    let bad = [&b"PROXY TCP4 203.0.113.1\r\n"[..], &request].concat();
    assert!(raw(address, &bad).await.is_empty());
    let long = [&LOCAL[..14], &[0xff, 0xff]].concat();
    assert!(raw(address, &long).await.is_empty());
    problem("malformed", 2).await;

    let mut slow = connect(address).await;
    slow.write_all(b"PROXY TCP4 203").await.unwrap();
    let end = tokio::time::timeout(DEADLINE, slow.read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    problem("timeout", 1).await;

    let mut short = connect(address).await;
    short.write_all(LOCAL.split_at(10).0).await.unwrap();
    drop(short);
    problem("closed", 1).await;
    assert!(world.upstream.take_seen().is_empty());

    // A health check is no problem.
    let silent = "okmon_edge_connections_silent_total";
    drop(connect(address).await);
    eventually("it was noticed", async || {
        match count(&world, silent, "").await {
            0 => Err("no"),
            _ => Ok(()),
        }
        .map_err(str::to_owned)
    })
    .await;
    assert_eq!(count(&world, REFUSED, "").await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_not_asked_for_a_header_is_no_request() {
    let (world, _) = behind_proxy(Setup::PATIENT, "").await;
    for header in [v1("203.0.113.1"), v2([203, 0, 113, 2])] {
        let bytes = [&header[..], &request(&world)].concat();
        let answer = raw(world.api, &bytes).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 400"),
            "{}",
            answer.escape_ascii()
        );
    }
    assert!(world.upstream.take_seen().is_empty());
    let refusals = "okmon_edge_refusals_total";
    let bad = count(&world, refusals, "cause=\"bad_framing\"").await;
    assert_eq!(bad, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_open_connections_are_counted_by_the_senders_address() {
    let setup = Setup {
        auth_failures: 1,
        connections: "open_per_address_max = 2",
        ..Setup::PATIENT
    };
    let (world, address) = behind_proxy(setup, "").await;
    let ask_as = async |source: &str, key: &model::ApiKey| {
        let mut stream = connect(address).await;
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("x-api-key", key.reveal()),
        ];
        let request = head("/v1/traces", &headers, 0);
        let bytes = [&v1(source)[..], request.as_bytes()].concat();
        send(&mut stream, &bytes).await
    };
    let unknown = || model::ApiKey::generate().unwrap();
    assert_eq!(ask_as("203.0.113.1", &unknown()).await, Some(401));
    assert_eq!(ask_as("203.0.113.1", &unknown()).await, Some(429));
    assert_eq!(ask_as("203.0.113.2", &unknown()).await, Some(401));

    let open = async |source: &str| {
        let mut stream = connect(address).await;
        let bytes = [&v1(source)[..], &request(&world)].concat();
        (send(&mut stream, &bytes).await, stream)
    };
    let first = [open("203.0.113.3").await, open("203.0.113.3").await];
    assert!(first.iter().all(|(status, _)| *status == Some(200)));
    assert_eq!(open("203.0.113.3").await.0, None, "its share is used up");
    let others = [
        open("203.0.113.4").await,
        open("203.0.113.5").await,
        // Another proxy has no share of its own.
        open("10.0.0.1").await,
        open("10.0.0.1").await,
        open("10.0.0.1").await,
    ];
    assert!(others.iter().all(|(status, _)| *status == Some(200)));
    drop(first);
    eventually("a place", async || match open("203.0.113.3").await.0 {
        Some(200) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let elsewhere = post(world.api, "/v1/nowhere", &[], b"").await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_nothing_is_held_against_the_sender_and_not_against_its_proxy() {
    let setup = Setup {
        strangers: 5,
        ..Setup::PATIENT
    };
    let (world, address) = behind_proxy(setup, "").await;
    let ask = async |source: &str| {
        let mut stream = connect(address).await;
        let bytes = [&v1(source)[..], head("/v1/nowhere", &[], 0).as_bytes()].concat();
        send(&mut stream, &bytes).await
    };
    eventually("the budget's end", async || {
        match ask("203.0.113.1").await {
            None => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for source in ["203.0.113.2", "203.0.113.3"] {
        assert_eq!(ask(source).await, Some(404));
    }
    let closed = "okmon_edge_connections_closed_total";
    let kept_out = count(&world, closed, "reason=\"stranger_budget\"").await;
    assert_eq!(kept_out, 1);
}
