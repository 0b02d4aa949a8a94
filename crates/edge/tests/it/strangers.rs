//! Connections that come to nothing: how many an address may bring, and that nobody else notices.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Setup, World, eventually, head, read_answer};
use crate::hostile::{closed, good};
use crate::routes::PROTOBUF;
use crate::upstream::{Reply, Script};
use crate::uses::{connect_from, try_connect_from};

const HERE: &str = "127.0.0.9";
const ELSEWHERE: &str = "127.0.0.10";
/// What HTTP/2 begins with, and then bytes that are none: a frame that is too long.
const NO_HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\0\0\0\0\0";

async fn world(strangers: u32) -> World {
    let setup = Setup {
        strangers,
        ..Setup::PATIENT
    };
    World::start_with(Script::Answer(Reply::new(200)), setup).await
}

/// Asks on an open connection; `None` when it has ended.
async fn ask(stream: &mut TcpStream, key: &str) -> Option<u16> {
    let headers = [PROTOBUF[0], ("x-api-key", key)];
    let head = head("/v1/traces", &headers, 0);
    stream.write_all(head.as_bytes()).await.ok()?;
    Some(read_answer(stream).await?.status)
}

/// Asks with a key that nobody was given, on a connection of its own.
async fn in_vain(from: &str, world: &World) -> Option<u16> {
    let mut stream = try_connect_from(from, world.api).await.ok()?;
    ask(&mut stream, world.keys.unknown.reveal()).await
}

/// Waits until connections from here are not let in any more. Those that are meanwhile stay open: so they cost nothing.
async fn kept_out(from: &str, world: &World) {
    let name = "okmon_edge_connections_closed_total";
    let label = "reason=\"stranger_budget\"";
    let before = world.metric(name, label).await;
    let mut open = Vec::new();
    eventually("no more is let in", async || {
        let Ok(mut stream) = try_connect_from(from, world.api).await else {
            return Ok(());
        };
        match ask(&mut stream, world.keys.unknown.reveal()).await {
            None => Ok(()),
            Some(status) => {
                open.push(stream);
                Err(status.to_string())
            }
        }
    })
    .await;
    closed(world, "stranger_budget", before + 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_connections_come_to_nothing_is_kept_out_and_others_are_not() {
    let mut world = world(5).await;
    let mut open = connect_from(HERE, world.api).await;
    let unknown = world.keys.unknown.reveal();
    assert_eq!(ask(&mut open, unknown).await, Some(401));
    for n in 0..5 {
        assert_eq!(in_vain(HERE, &world).await, Some(401), "{n}");
    }
    kept_out(HERE, &world).await;
    let key = world.keys.valid.reveal();
    // It may be reset before it is known to be open.
    if let Ok(mut late) = try_connect_from(HERE, world.api).await {
        assert_eq!(ask(&mut late, key).await, None, "too late to show a key");
    }
    assert_eq!(ask(&mut open, unknown).await, Some(401), "it goes on");
    assert_eq!(in_vain(ELSEWHERE, &world).await, Some(401));
    good(&world).await;

    let off = |text: String| text.replace("[strangers]\n", "[strangers]\naddresses_max = 0\n");
    world.reload(off).await.unwrap();
    for _ in 0..20 {
        assert_eq!(in_vain(HERE, &world).await, Some(401));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_from_which_valid_keys_are_shown_is_let_in_whatever_else_comes() {
    let world = world(5).await;
    let key = world.keys.valid.reveal();
    let mut known = connect_from(HERE, world.api).await;
    assert_eq!(ask(&mut known, key).await, Some(200));
    drop(known);
    for n in 0..20 {
        assert_eq!(in_vain(HERE, &world).await, Some(401), "{n}");
    }
    let mut known = connect_from(HERE, world.api).await;
    assert_eq!(ask(&mut known, key).await, Some(200));
}

/// Sends this on a connection of its own, until that ends.
async fn abuse(from: &str, world: &World, bytes: &[u8]) {
    let mut stream = connect_from(from, world.api).await;
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_ended_for_what_came_counts_as_ten_whoever_else_is_there() {
    let world = world(20).await;
    let key = world.keys.valid.reveal();
    let no_chunks = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: edge\r\nx-api-key: {key}\r\n\
         content-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n"
    );
    for (from, bytes) in [(HERE, NO_HTTP2), (ELSEWHERE, no_chunks.as_bytes())] {
        let mut open = connect_from(from, world.api).await;
        assert_eq!(ask(&mut open, key).await, Some(200));
        abuse(from, &world, bytes).await;
        abuse(from, &world, bytes).await;
        kept_out(from, &world).await;
        assert_eq!(ask(&mut open, key).await, Some(200), "it goes on");
    }
    closed(&world, "protocol_errors", 2.0).await;
    good(&world).await;
}
