//! Bodies pass as they come, no faster than they are read, and one that breaks off is never hidden from the upstream.

use std::cell::Cell;
use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::harness::{
    Setup, World, collect2, connect, eventually, head, http2, post, post2, raw, read_answer,
    request2,
};
use crate::upstream::{Reply, Script};

pub(crate) const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const MEDIA: (&str, &str) = ("content-type", "application/x-protobuf");

pub(crate) fn headers(world: &World) -> [(&str, &str); 2] {
    [MEDIA, ("x-api-key", world.keys.valid.reveal())]
}

pub(crate) fn grpc_headers(world: &World) -> [(&str, &str); 3] {
    [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-api-key", world.keys.valid.reveal()),
    ]
}

/// Bytes of which every stretch of some length is another one's; quickly made.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let block: Vec<_> = (0..10_007_u32)
        .flat_map(|n| (n * n).to_be_bytes())
        .collect();
    let mut bytes = block.repeat(length / block.len() + 1);
    bytes.truncate(length);
    bytes
}

/// How much of a body the edge waits for before it asks the upstream.
pub(crate) const GATHERED: usize = 16 << 10;

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

        let mut stream = connect(world.api).await;
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
async fn grpc_frames_cut_anywhere_arrive_as_they_were_sent() {
    let world = World::start(Script::Answer(Reply::grpc())).await;
    for (length, frame) in [(0, 1), (1, 2), (300, 3), (100_000, 999), (8 << 20, 12_345)] {
        let prefix = u32::try_from(length).unwrap().to_be_bytes();
        let message = [&[0][..], &prefix, &bytes(length)].concat();
        let frames: Vec<_> = message.chunks(frame).collect();
        let answer = post2(world.api, METHOD, &grpc_headers(&world), &frames).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{length}: {answer:?}");
        let seen = world.upstream.take_seen().remove(0);
        assert!(seen.whole && seen.body == message, "{length} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_given_up() {
    let world = World::start_with(Script::Answer(Reply::new(200)), Setup::IMPATIENT).await;
    let mut stream = connect(world.api).await;
    let begun = head("/v1/traces", &headers(&world), 2 * GATHERED);
    stream.write_all(begun.as_bytes()).await.unwrap();
    stream.write_all(&[7; GATHERED]).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 408);
    assert!(!world.seen_soon().await.whole);
    let mut stream = connect(world.api).await;
    let small = head("/v1/traces", &headers(&world), 10) + "half";
    stream.write_all(small.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 408);
    assert!(world.upstream.take_seen().is_empty(), "not asked for it");

    let mut send = http2(world.api).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2(METHOD, &grpc_headers(&world)), false)
        .unwrap();
    let begun = [&[0, 0, 0, 200, 0][..], &[1; GATHERED]].concat();
    stream.send_data(begun.into(), false).unwrap();
    assert_eq!(collect2(response).await.unwrap().grpc_status(), Some("14"));
    assert!(!world.seen_soon().await.whole);
    let cause = "cause=\"body_timeout\"";
    let counted = world.metric("okmon_edge_refusals_total", cause).await;
    assert!(
        (counted - 3.0).abs() < 0.5,
        "{counted} were said to be the client's doing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_takes_nothing_of_the_upstreams_meanwhile() {
    let mut world = World::start_with(Script::Answer(Reply::new(200)), Setup::PATIENT).await;
    let url = format!("url = 'http://{}'", world.upstream.address);
    world
        .reload(|text| text.replace(&url, &format!("{url}\nrequests_max = 1")))
        .await
        .unwrap();
    let (small, large) = (bytes(1000), bytes(2 * GATHERED));
    let mut slow = Vec::new();
    for (body, here) in [(&small, 999), (&large, GATHERED - 1)] {
        let mut stream = connect(world.api).await;
        let head = head("/v1/traces", &headers(&world), body.len());
        let (begin, rest) = body.split_at(here);
        let (first, second) = begin.split_at(here / 2);
        let first = [head.as_bytes(), first].concat();
        stream.write_all(&first).await.unwrap();
        slow.push((stream, second, rest, body));
    }
    world.in_flight(2).await;
    for (stream, second, ..) in &mut slow {
        stream.write_all(second).await.unwrap();
    }
    for _ in 0..10 {
        let answer = post(world.api, "/v1/traces", &headers(&world), b"quick").await;
        assert_eq!(answer.status, 200, "its one place is free");
        assert_eq!(world.upstream.take_seen().remove(0).body, b"quick");
    }
    for (mut stream, _, rest, body) in slow {
        stream.write_all(rest).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
        let seen = world.upstream.take_seen().remove(0);
        assert!(seen.whole && seen.body == *body, "{} bytes", body.len());
    }
}

/// Waits until so many requests have begun to arrive upstream.
async fn arriving(world: &World, wanted: usize) {
    eventually("requests at the upstream", async || {
        let heads = world.upstream.heads();
        (heads >= wanted)
            .then_some(())
            .ok_or_else(|| heads.to_string())
    })
    .await;
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
    let mut stream = connect(world.api).await;
    let begun = head("/v1/traces", &headers(&world), 2 * GATHERED);
    stream.write_all(begun.as_bytes()).await.unwrap();
    stream.write_all(&[7; GATHERED]).await.unwrap();
    arriving(&world, 1).await;
    drop(stream);
    abandoned(&world, 1.0).await;
    assert!(!world.seen_soon().await.whole);

    let mut send = http2(world.api).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2(METHOD, &grpc_headers(&world)), false)
        .unwrap();
    let begun = [&[0, 0, 0, 200, 0][..], &[1; GATHERED]].concat();
    stream.send_data(begun.into(), false).unwrap();
    arriving(&world, 2).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    abandoned(&world, 2.0).await;
    assert!(!world.seen_soon().await.whole);

    // While it waits for the answer.
    world.upstream.does(Script::Hang);
    let mut stream = connect(world.api).await;
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
async fn a_slow_upstream_slows_a_client_over_http_1() {
    const BODY: usize = 16 << 20;
    let world = World::start_with(Script::Stall, Setup::IMPATIENT).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(world.api).await.unwrap();
    let head = head("/v1/traces", &headers(&world), BODY);
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let (chunk, written) = (bytes(64 << 10), Cell::new(0));
    let sending = async {
        while let Ok(n) = writing.write(&chunk).await {
            written.set(written.get() + n);
        }
        std::future::pending::<()>().await;
    };
    // The edge answers once the upstream has had its time. Until then buffers fill: its own and the kernel's.
    let mut answer = [0; 12];
    tokio::select! {
        () = sending => {}
        read = reading.read_exact(&mut answer) => drop(read.unwrap()),
    }
    assert_eq!(&answer, b"HTTP/1.1 504");
    let written = written.get();
    assert!(
        written < BODY / 2,
        "{written} bytes were taken though nobody read them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_slows_a_client_over_http_2_to_the_windows_there_are() {
    /// The edge's default for a stream, what `h2` servers begin with, and one frame under way.
    const WINDOWS: usize = (64 << 10) + 65_535 + (64 << 10);
    let world = World::start_with(Script::Stall, Setup::IMPATIENT).await;
    let mut client = http2(world.api).await.ready().await.unwrap();
    let request = request2(METHOD, &grpc_headers(&world));
    let (response, mut stream) = client.send_request(request, false).unwrap();
    let taken = Cell::new(0);
    let sending = async {
        loop {
            stream.reserve_capacity(64 << 10);
            let Some(Ok(n)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return std::future::pending().await;
            };
            stream.send_data(bytes(n).into(), false).unwrap();
            taken.set(taken.get() + n);
        }
    };
    let answer = tokio::select! {
        answer = collect2(response) => answer.unwrap(),
        () = sending => unreachable!("it never ends"),
    };
    assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
    let taken = taken.get();
    assert!(
        (64 << 10..=WINDOWS).contains(&taken),
        "{taken} bytes were taken though nobody read them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on_only_with_a_good_key() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let expect = ("expect", "100-continue");
    let mut stream = connect(world.api).await;
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

    let mut stream = connect(world.api).await;
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
    let mut stream = connect(world.api).await;
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
    let answer = raw(world.api, old.as_bytes()).await;
    assert!(
        answer.starts_with(b"HTTP/1.0 200 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
