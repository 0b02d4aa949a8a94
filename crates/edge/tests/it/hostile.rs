//! Senders that mean no good, or are broken, over HTTP/1.1: what they may take is bounded, and others do not notice.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Setup, World, connect, eventually, head, post, read_answer};
use crate::upstream::{Reply, Script};

pub(crate) async fn start(connections: &'static str) -> World {
    let setup = Setup {
        connections,
        ..Setup::PATIENT
    };
    World::start_with(Script::Answer(Reply::new(200)), setup).await
}

/// Waits until as many connections were ended for this reason.
pub(crate) async fn closed(world: &World, reason: &str, times: f64) {
    let label = format!("reason=\"{reason}\"");
    eventually("the counter", async || {
        let value = world
            .metric("okmon_edge_connections_closed_total", &label)
            .await;
        if value >= times {
            Ok(())
        } else {
            Err(value.to_string())
        }
    })
    .await;
}

/// A request that has to succeed, on a connection of its own.
pub(crate) async fn good(world: &World) {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    assert_eq!(
        post(world.api, "/v1/traces", &headers, b"x").await.status,
        200
    );
}

fn request(key: &str) -> Vec<u8> {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key),
    ];
    (head("/v1/traces", &headers, 1) + "x").into_bytes()
}

/// Sends a request on an open connection: the status, and whether the connection stays.
async fn ask(connection: &mut TcpStream, key: &str) -> (u16, bool) {
    connection.write_all(&request(key)).await.unwrap();
    let answer = read_answer(connection).await.expect("an answer");
    (answer.status, answer.header("connection") != Some("close"))
}

/// Waits for the end of a connection; nothing may come before it.
async fn ended(mut connection: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = connection.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_gets_no_more_connections_than_its_share() {
    let world = start("open_per_address_max = 2").await;
    let key = world.keys.valid.reveal();
    let mut kept = [connect(world.api).await, connect(world.api).await];
    for connection in &mut kept {
        assert_eq!(ask(connection, key).await, (200, true));
    }
    ended(connect(world.api).await).await;
    closed(&world, "open_per_address_max", 1.0).await;
    let [first, mut second] = kept;
    drop(first);
    eventually("a place is free", async || {
        let mut again = connect(world.api).await;
        again
            .write_all(&request(key))
            .await
            .map_err(|error| error.to_string())?;
        read_answer(&mut again)
            .await
            .map(drop)
            .ok_or_else(|| "closed".to_owned())
    })
    .await;
    assert_eq!(ask(&mut second, key).await, (200, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_connections_than_set() {
    let world = start("open_max = 2").await;
    let key = world.keys.valid.reveal();
    let mut kept = [connect(world.api).await, connect(world.api).await];
    for connection in &mut kept {
        assert_eq!(ask(connection, key).await, (200, true));
    }
    ended(connect(world.api).await).await;
    closed(&world, "open_max", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_make_room_for_newcomers() {
    let world = start("open_max = 4\nstrangers_max = 2").await;
    let key = world.keys.valid.reveal();
    let mut known = connect(world.api).await;
    assert_eq!(ask(&mut known, key).await, (200, true));
    // Each is silent, has begun a request, or has shown a key that is unknown.
    let silent = connect(world.api).await;
    let mut asks = connect(world.api).await;
    assert_eq!(
        ask(&mut asks, world.keys.unknown.reveal()).await,
        (401, true)
    );
    let mut begins = connect(world.api).await;
    begins.write_all(&request(key)[..20]).await.unwrap();
    ended(silent).await;
    closed(&world, "strangers_max", 1.0).await;
    let mut next = connect(world.api).await;
    ended(asks).await;
    closed(&world, "strangers_max", 2.0).await;
    // Who shows a key stays, and strangers have what is left.
    assert_eq!(ask(&mut next, key).await, (200, true));
    let mut last = connect(world.api).await;
    assert_eq!(ask(&mut last, key).await, (200, true));
    good(&world).await;
    ended(begins).await;
    for mut kept in [known, next, last] {
        assert_eq!(ask(&mut kept, key).await, (200, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_shown_a_key_may_idle() {
    let world = start("stranger_timeout = '300ms'").await;
    let mut known = connect(world.api).await;
    assert_eq!(
        ask(&mut known, world.keys.valid.reveal()).await,
        (200, true)
    );
    let mut stranger = connect(world.api).await;
    assert_eq!(
        ask(&mut stranger, world.keys.unknown.reveal()).await,
        (401, true)
    );
    ended(stranger).await;
    closed(&world, "stranger_timeout", 1.0).await;
    assert_eq!(
        ask(&mut known, world.keys.valid.reveal()).await,
        (200, true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_shown_a_key_may_not_idle_for_ever() {
    let world = start("idle_timeout = '300ms'").await;
    let mut known = connect(world.api).await;
    assert_eq!(
        ask(&mut known, world.keys.valid.reveal()).await,
        (200, true)
    );
    ended(known).await;
    closed(&world, "idle_timeout", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_not_waited_for() {
    let world = start("head_timeout = '300ms'").await;
    let mut drips = connect(world.api).await;
    drips
        .write_all(b"POST /v1/traces HTTP/1.1\r\na: ")
        .await
        .unwrap();
    // Slower than the edge reads, faster than the time it allows.
    let mut drop_of = tokio::time::interval(Duration::from_millis(20));
    eventually("the connection ends", async || {
        drop_of.tick().await;
        match drips.write_all(b"a").await {
            Ok(()) => Err("it takes more".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    closed(&world, "head_timeout", 1.0).await;
    let says_nothing = connect(world.api).await;
    ended(says_nothing).await;
    closed(&world, "head_timeout", 2.0).await;
    good(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_told_with_an_answer() {
    let world = start("age_max = '200ms'").await;
    let mut old = connect(world.api).await;
    let key = world.keys.valid.reveal();
    eventually("the last answer", async || match ask(&mut old, key).await {
        (200, false) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    ended(old).await;
    closed(&world, "age_max", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_as_many_requests_as_set() {
    let world = start("requests_max = 2").await;
    let mut connection = connect(world.api).await;
    let key = world.keys.valid.reveal();
    assert_eq!(ask(&mut connection, key).await, (200, true));
    assert_eq!(ask(&mut connection, key).await, (200, false));
    ended(connection).await;
    closed(&world, "requests_max", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_counted() {
    let world = start("headers_max = 10").await;
    let key = world.keys.valid.reveal();
    let mut headers = vec![
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key),
    ];
    // With host and content-length.
    headers.extend([("x-a", "b"); 6]);
    assert_eq!(
        post(world.api, "/v1/traces", &headers, b"x").await.status,
        200
    );
    headers.push(("x-a", "b"));
    let answer = post(world.api, "/v1/traces", &headers, b"x").await;
    assert_eq!(answer.status, 431);
    let refused = world
        .metric("okmon_edge_refusals_total", "\"too_large\"")
        .await;
    assert!(refused > 0.0);
}
