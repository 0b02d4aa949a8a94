//! Senders that mean no good over HTTP/2: frames written by hand, since no client library would send them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{World, collect2, connect, eventually, http2, post2, request2};
use crate::hostile::{closed, good, start};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
/// `:method POST`, `:scheme http`, `:path /`: indexed fields of HPACK's static table (RFC 7541 appendix A).
const REQUEST: &[u8] = &[0x83, 0x86, 0x84];

/// The bytes of the n-th time.
type Flood = fn(u32) -> Vec<u8>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A request whose head has a field with a value of so many bytes, `index` saying how HPACK shall keep it.
fn large_head(index: u8, size: usize) -> Vec<u8> {
    let mut block = REQUEST.to_vec();
    block.extend([index, 1, b'a', 0x7f]);
    // An integer that goes on after a prefix of seven bits (RFC 7541 section 5.1).
    let mut rest = size - 0x7f;
    while rest >= 0x80 {
        block.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend(vec![b'x'; size]);
    block
}

/// A connection whose settings are exchanged.
async fn open(world: &World) -> TcpStream {
    let mut stream = connect(world.api).await;
    stream
        .write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
        .await
        .unwrap();
    stream
}

/// Sends `next` until the edge ends the connection, and reads what it says meanwhile.
async fn until_ended(stream: TcpStream, mut next: impl FnMut(u32) -> Vec<u8>) {
    let (mut read, mut write) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut said = vec![0; 65536];
        while read.read(&mut said).await.is_ok_and(|n| n > 0) {}
    });
    for n in 0..100_000 {
        if write.write_all(&next(n)).await.is_err() {
            break;
        }
    }
    reading.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_their_connection_and_no_other() {
    let world = start("control_frames_max = 50\nresets_max = 50").await;
    let mut kept = http2(world.api).await.ready().await.unwrap();
    let floods: [(&str, Flood); 7] = [
        ("pings", |_| frame(6, 0, 0, &[0; 8])),
        ("settings", |_| frame(4, 0, 0, &[])),
        ("priorities", |_| frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("window_updates", |_| frame(8, 0, 0, &[0, 0, 0, 1])),
        ("unknown_frames", |_| frame(0x77, 0, 0, b"x")),
        ("resets", |n| {
            let stream = 2 * n + 1;
            let begun = frame(1, END_HEADERS, stream, REQUEST);
            [begun, frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        }),
        ("empty_data", |n| match n {
            0 => frame(1, END_HEADERS, 1, REQUEST),
            _ => frame(0, 0, 1, &[]),
        }),
    ];
    for (reason, flood) in floods {
        until_ended(open(&world).await, flood).await;
        closed(&world, reason, 1.0).await;
        good(&world).await;
    }
    let key = world.keys.valid.reveal();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key),
    ];
    let (response, _) = kept
        .send_request(request2("/v1/traces", &headers), true)
        .unwrap();
    assert_eq!(collect2(response).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_cut_into_crumbs_are_floods_too() {
    let world = start("control_frames_max = 50").await;
    let crumbs: [Flood; 2] = [
        |_| frame(0, 0, 1, b"x"),
        |_| frame(0, PADDED, 1, &[99; 100]),
    ];
    for (times, crumb) in (1..).zip(crumbs) {
        let mut stream = open(&world).await;
        let begun = frame(1, END_HEADERS, 1, REQUEST);
        stream.write_all(&begun).await.unwrap();
        // More than the limit, and fewer than h2 has an objection to.
        stream.write_all(&crumb(0).repeat(80)).await.unwrap();
        closed(&world, "empty_data", f64::from(times)).await;
    }
    good(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_again_and_again_end_their_connection() {
    let world = start("head_max = '4KiB'").await;
    // Over our limit, and over that of h2, which is twice as high.
    for (times, size) in [(1.0, 5_000), (2.0, 12_000)] {
        let block = large_head(0, size);
        until_ended(open(&world).await, |n| {
            frame(1, END_HEADERS | END_STREAM, 2 * n + 1, &block)
        })
        .await;
        closed(&world, "large_heads", times).await;
        let refused = world
            .metric("okmon_edge_refusals_total", "\"too_large\"")
            .await;
        assert!(refused >= times * 10.0, "{refused} after {size}");
    }
    good(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_h2_ends_a_connection_for_is_counted() {
    let world = start("").await;
    let floods: [(&str, Flood); 4] = [
        ("continuations", |n| match n {
            0 => frame(1, 0, 1, REQUEST),
            _ => frame(9, 0, 1, &[0, 1, b'a', 1, b'b']),
        }),
        // A field that is kept once and meant a hundred times.
        ("large_heads", |_| {
            let mut block = large_head(0x40, 4_000);
            block.extend([0xbe; 100]);
            frame(1, END_HEADERS | END_STREAM, 1, &block)
        }),
        ("protocol_errors", |_| frame(0, 0, 0, b"of no stream")),
        // An index that HPACK's tables do not have.
        ("protocol_errors", |_| {
            frame(1, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0x7f])
        }),
    ];
    for (at, (reason, flood)) in floods.into_iter().enumerate() {
        until_ended(open(&world).await, flood).await;
        closed(&world, reason, if at == 3 { 2.0 } else { 1.0 }).await;
    }
    good(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_us_reset_streams_is_sent_away() {
    let world = start("provoked_resets_max = 20").await;
    // A window that becomes too large is an error of its stream (RFC 9113 section 6.9.1).
    until_ended(open(&world).await, |n| {
        let stream = 2 * n + 1;
        let begun = frame(1, END_HEADERS, stream, REQUEST);
        [begun, frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
    })
    .await;
    good(&world).await;
    closed(&world, "provoked_resets", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_end_are_not_waited_for() {
    let world = start("head_timeout = '300ms'").await;
    let mut stream = open(&world).await;
    stream.write_all(&frame(1, 0, 1, REQUEST)).await.unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    closed(&world, "head_timeout", 1.0).await;
    let mut half = connect(world.api).await;
    half.write_all(&PREFACE[..10]).await.unwrap();
    let _ = half.read_to_end(&mut said).await;
    closed(&world, "head_timeout", 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_requests_end_in_order() {
    for (setting, reason) in [
        ("stranger_timeout = '300ms'", "stranger_timeout"),
        ("age_max = '300ms'", "age_max"),
    ] {
        let world = start(setting).await;
        let stream = connect(world.api).await;
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), connection).await;
        ended.expect("it stays").expect("GOAWAY without an error");
        closed(&world, reason, 1.0).await;
        drop(send);
        good(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_make_room_and_who_has_begun_a_good_request_stays() {
    let world = start("strangers_max = 1").await;
    let mut known = http2(world.api).await.ready().await.unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let (response, mut body) = known
        .send_request(request2("/v1/traces", &headers), false)
        .unwrap();
    body.send_data(vec![7; 10].into(), false).unwrap();
    world.in_flight(1).await;
    let mut stranger = open(&world).await;
    let newcomer = connect(world.api).await;
    // What was said before the end does not matter.
    let _ = stranger.read_to_end(&mut Vec::new()).await;
    closed(&world, "strangers_max", 1.0).await;
    good(&world).await;
    body.send_data(vec![7; 10].into(), true).unwrap();
    assert_eq!(collect2(response).await.unwrap().status, 200);
    drop(newcomer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_outlives_the_age_of_its_connection() {
    let world = start("age_max = '200ms'\nage_grace = '1m'").await;
    let mut send = http2(world.api).await.ready().await.unwrap();
    let key = world.keys.valid.reveal();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key),
    ];
    let (response, mut body) = send
        .send_request(request2("/v1/traces", &headers), false)
        .unwrap();
    closed(&world, "age_max", 1.0).await;
    body.send_data(vec![7; 10].into(), true).unwrap();
    assert_eq!(collect2(response).await.unwrap().status, 200);
    eventually("no further request", async || {
        match send.clone().ready().await {
            Ok(_) => Err("still open".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_bounded_in_size_and_number() {
    let world = start("headers_max = 10\nhead_max = '4KiB'").await;
    let key = world.keys.valid.reveal();
    let basic = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key),
    ];
    let few = [&basic[..], &[("x-a", "b"); 8]].concat();
    assert_eq!(
        post2(world.api, "/v1/traces", &few, &[b"x"]).await.status,
        200
    );
    let many = [&few[..], &[("x-a", "b")]].concat();
    assert_eq!(
        post2(world.api, "/v1/traces", &many, &[b"x"]).await.status,
        431
    );
    for size in [5_000, 20_000] {
        let large = "a".repeat(size);
        let large = [&basic[..], &[("x-a", large.as_str())]].concat();
        let answer = post2(world.api, "/v1/traces", &large, &[b"x"]).await;
        assert_eq!(answer.status, 431, "{size}");
    }
    let refused = world
        .metric("okmon_edge_refusals_total", "\"too_large\"")
        .await;
    assert!(refused >= 2.0, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_body_is_invited_than_64_kib() {
    let world = start("").await;
    let mut stream = open(&world).await;
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).await.unwrap();
    assert_eq!(settings[3], 4, "SETTINGS come first");
    let length = usize::from(settings[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    let window = payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
    let window = window.map_or(65_535, |setting| {
        u32::from_be_bytes(setting[2..].try_into().unwrap())
    });
    assert!(window <= 64 * 1024, "{window}");
    // The stream needs no body to be refused.
    let block = [REQUEST, &[]].concat();
    stream
        .write_all(&frame(1, END_HEADERS | END_STREAM, 1, &block))
        .await
        .unwrap();
    good(&world).await;
}
