//! `X-Forwarded-For`: believed when a trusted proxy sends it, for each request of a connection anew, and never passed on.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::{Setup, World, collect2, connect, head, http2, post, read_answer, request2};
use crate::upstream::{Reply, Script};
use crate::uses::{connect_from, used_from};

const JSON: (&str, &str) = ("content-type", "application/x-protobuf");

/// The edge, which trusts 127.0.0.1 and 10.0.0.0/8.
async fn trusting(setup: Setup) -> World {
    let mut world = World::start_with(Script::Answer(Reply::new(200)), setup).await;
    let proxies = "[proxies]\ntrusted = ['127.0.0.1', '10.0.0.0/8']\n";
    let change = |text: String| format!("{text}{proxies}");
    world.reload(change).await.unwrap();
    world
}

async fn ask(stream: &mut TcpStream, key: &model::ApiKey, forwarded: &str) -> u16 {
    let headers = [
        JSON,
        ("x-api-key", key.reveal()),
        ("x-forwarded-for", forwarded),
    ];
    let head = head("/v1/traces", &headers, 0);
    stream.write_all(head.as_bytes()).await.unwrap();
    read_answer(stream).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_proxys_connection_has_its_own_sender() {
    let world = trusting(Setup::PATIENT).await;
    let key = &world.keys.valid;
    let mut stream = connect(world.api).await;
    for forwarded in [
        "203.0.113.1",
        "198.51.100.1, 203.0.113.2, 10.0.0.1",
        "2001:db8::3",
        "not an address",
    ] {
        assert_eq!(ask(&mut stream, key, forwarded).await, 200);
    }
    let send = http2(world.api).await;
    for forwarded in ["203.0.113.4", "203.0.113.5"] {
        let headers = [
            JSON,
            ("x-api-key", key.reveal()),
            ("x-forwarded-for", forwarded),
        ];
        let (response, _) = send
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request2("/v1/traces", &headers), true)
            .unwrap();
        assert_eq!(collect2(response).await.unwrap().status, 200);
    }
    let expected = [
        "127.0.0.1",
        "2001:db8::3",
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.4",
        "203.0.113.5",
    ];
    used_from(&world, &expected).await;
    for seen in world.upstream.take_seen() {
        assert!(seen.all("x-forwarded-for").is_empty(), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_trusted_proxy_is_not_believed() {
    let world = trusting(Setup::PATIENT).await;
    let mut stream = connect_from("127.0.0.2", world.api).await;
    let status = ask(&mut stream, &world.keys.valid, "203.0.113.1").await;
    assert_eq!(status, 200);
    used_from(&world, &["127.0.0.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_counted_by_the_senders_address() {
    let setup = Setup {
        auth_failures: 1,
        ..Setup::PATIENT
    };
    let world = trusting(setup).await;
    let unknown = || model::ApiKey::generate().unwrap();
    let mut stream = connect(world.api).await;
    assert_eq!(ask(&mut stream, &unknown(), "203.0.113.1").await, 401);
    assert_eq!(ask(&mut stream, &unknown(), "203.0.113.1").await, 429);
    assert_eq!(
        ask(&mut stream, &unknown(), "1.1.1.1, 203.0.113.1").await,
        429
    );
    assert_eq!(ask(&mut stream, &unknown(), "203.0.113.2").await, 401);
    // Who cannot say whom it speaks for, speaks for itself.
    assert_eq!(ask(&mut stream, &unknown(), "unknown").await, 401);
    assert_eq!(ask(&mut stream, &unknown(), "").await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_may_have_more_connections_than_a_sender() {
    let setup = Setup {
        connections: "open_per_address_max = 2",
        ..Setup::PATIENT
    };
    let world = trusting(setup).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(world.api).await;
        assert_eq!(
            ask(&mut stream, &world.keys.valid, "203.0.113.1").await,
            200
        );
        open.push(stream);
    }
    let headers = [JSON, ("x-api-key", world.keys.valid.reveal())];
    assert_eq!(
        post(world.api, "/v1/traces", &headers, b"").await.status,
        200
    );
}
