//! Who uses a key is found in the database: soon, all of it, and never more than a little of each key.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;
use model::ApiKey;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{OTHER, World, connect, eventually, head, post2, read_answer, read_pipelined};
use crate::routes::{GRPC, PROTOBUF};
use crate::upstream::{Reply, Script};

async fn world() -> World {
    World::start(Script::Answer(Reply::new(200))).await
}

/// A connection from an address of this machine.
pub(crate) async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    try_connect_from(from, to).await.unwrap()
}

/// As [`connect_from`], where it may be refused.
pub(crate) async fn try_connect_from(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().unwrap())?;
    socket.connect(to).await
}

async fn send(stream: &mut TcpStream, key: &ApiKey, agent: &[u8], expected: u16) {
    let headers = [PROTOBUF[0], ("x-api-key", key.reveal())];
    let head = head("/v1/traces", &headers, 0);
    let head = head.strip_suffix("\r\n").unwrap().as_bytes();
    let head = [head, b"user-agent: ", agent, b"\r\n\r\n"].concat();
    stream.write_all(&head).await.unwrap();
    assert_eq!(read_answer(stream).await.unwrap().status, expected);
}

/// Waits until the valid key was used from exactly these addresses.
pub(crate) async fn used_from(world: &World, expected: &[&str]) {
    eventually("addresses", async || {
        let found = uses(world, &world.keys.valid, "address").await;
        let found: Vec<_> = found.into_keys().collect();
        (found == expected)
            .then_some(())
            .ok_or(format!("{found:?}"))
    })
    .await;
}

/// The values of a kind that a key was used by, and in how many requests.
pub(crate) async fn uses(world: &World, key: &ApiKey, kind: &str) -> BTreeMap<String, i64> {
    let query = "select value, requests from key_uses where key_id = $1 and kind = $2";
    let rows = sqlx::query_as(query).bind(key.id().as_str().to_owned());
    let rows: Vec<(String, i64)> = rows
        .bind(kind.to_owned())
        .fetch_all(world.sql())
        .await
        .unwrap();
    rows.into_iter().collect()
}

async fn last_used(world: &World, key: &ApiKey) -> Option<OffsetDateTime> {
    let found = world.store.key_fetch(key.id()).await.unwrap();
    found.unwrap().last_used_at
}

fn of<const N: usize>(expected: [(&str, i64); N]) -> BTreeMap<String, i64> {
    expected.map(|(value, n)| (value.to_owned(), n)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_a_key_is_in_the_database_soon() {
    let world = world().await;
    let (key, began) = (&world.keys.valid, OffsetDateTime::now_utc());
    let mut here = connect(world.api).await;
    for _ in 0..3 {
        send(&mut here, key, b"sender/1", 200).await;
    }
    let long = [b'x'; 200];
    send(
        &mut connect_from("127.0.0.2", world.api).await,
        key,
        &long,
        200,
    )
    .await;
    // Refused later, but by a key that is good.
    let mismatch = [
        ("x-api-key", key.reveal()),
        ("x-scope-orgid", OTHER),
        ("user-agent", "caf\u{e9} \tx"),
    ];
    let method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let answer = post2(world.api, method, &[GRPC, &mismatch].concat(), &[&[0; 5]]).await;
    assert_eq!(answer.grpc_status(), Some("7"));
    // Not good, so not used.
    send(&mut here, &world.keys.revoked, b"thief", 401).await;
    let sent = OffsetDateTime::now_utc();

    let used_at = eventually("the key's last use", async || {
        last_used(&world, key)
            .await
            .ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(
        began <= used_at && used_at <= sent,
        "{began} {used_at} {sent}"
    );
    // The workers hand over on their own.
    let addresses = of([("127.0.0.1", 4), ("127.0.0.2", 1)]);
    eventually("all of its uses", async || {
        let found = uses(&world, key, "address").await;
        if found == addresses {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    let cut = "x".repeat(128);
    let agents = of([("sender/1", 3), (&cut, 1), ("caf?? ?x", 1)]);
    assert_eq!(uses(&world, key, "user_agent").await, agents);
    for unused in [
        &world.keys.other,
        &world.keys.revoked,
        &world.keys.logs_only,
    ] {
        assert_eq!(last_used(&world, unused).await, None);
        assert!(uses(&world, unused, "address").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_what_was_not_written() {
    let mut world = world().await;
    let key = world.keys.valid.clone();
    for _ in 0..20 {
        send(&mut connect(world.api).await, &key, b"sender", 200).await;
    }
    world.stop().await;
    assert!(last_used(&world, &key).await.is_some());
    assert_eq!(uses(&world, &key, "user_agent").await, of([("sender", 20)]));
    assert_eq!(uses(&world, &key, "address").await, of([("127.0.0.1", 20)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_user_agents_leave_few_rows_and_the_real_one_among_them() {
    let mut world = world().await;
    let key = world.keys.valid.clone();
    let (mut stream, mut buffer) = (connect(world.api).await, BytesMut::new());
    for hundred in 0..100 {
        let mut requests = String::new();
        for n in 0..100 {
            // One in ten is the real one; all are refused, since the upstream does not matter here.
            let agent = match n % 10 {
                0 => "real".to_owned(),
                _ => format!("agent {hundred}.{n}"),
            };
            let headers = [
                PROTOBUF[0],
                ("x-api-key", key.reveal()),
                ("x-scope-orgid", OTHER),
                ("user-agent", &agent),
            ];
            requests.push_str(&head("/v1/traces", &headers, 0));
        }
        stream.write_all(requests.as_bytes()).await.unwrap();
        for _ in 0..100 {
            let answer = read_pipelined(&mut stream, &mut buffer).await.unwrap();
            assert_eq!(answer.status, 403);
        }
    }
    let label = "what=\"user_agent\"";
    let dropped = world
        .metric("okmon_edge_key_uses_dropped_total", label)
        .await;
    assert!(dropped > 8900.0, "{dropped}");
    world.stop().await;
    let agents = uses(&world, &key, "user_agent").await;
    assert_eq!(agents.len(), 10, "{agents:?}");
    assert!(agents.contains_key("real"), "{agents:?}");
    assert_eq!(
        uses(&world, &key, "address").await,
        of([("127.0.0.1", 10_000)])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_a_while_loses_nothing() {
    let mut world = world().await;
    let keys = [world.keys.valid.clone(), world.keys.other.clone()];
    world.by_hand("alter table key_uses rename to away").await;
    let mut stream = connect(world.api).await;
    for key in &keys {
        send(&mut stream, key, b"before", 200).await;
    }
    eventually("a write that fails", async || {
        let errors = world
            .metric("okmon_edge_key_use_write_errors_total", "")
            .await;
        let waiting = world.metric("okmon_edge_key_uses_waiting", "").await;
        let failed = errors > 0.5 && waiting > 1.5;
        failed.then_some(()).ok_or(format!("{errors} {waiting}"))
    })
    .await;
    for key in &keys {
        assert_eq!(last_used(&world, key).await, None, "all or nothing");
        send(&mut stream, key, b"before", 200).await;
        send(&mut stream, key, b"after", 200).await;
    }
    drop(stream);
    world.by_hand("alter table away rename to key_uses").await;
    world.stop().await;
    for key in &keys {
        assert!(last_used(&world, key).await.is_some());
        let agents = uses(&world, key, "user_agent").await;
        assert_eq!(agents, of([("before", 2), ("after", 1)]));
    }
}
