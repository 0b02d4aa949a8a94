//! Items are counted while bodies pass, whatever those are written in, and a body that cannot be counted passes all the same.

use std::io::Write as _;

use crate::harness::{TENANT, World, eventually, post, post2};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A field with so many bytes of content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let low = u8::try_from(length & 0x7f).unwrap() | 0x80;
    let high = u8::try_from(length >> 7).unwrap();
    [&[number << 3 | 2, low, high], content].concat()
}

fn traces(spans: usize) -> Vec<u8> {
    field(1, &field(2, &[0x12, 0].repeat(spans)))
}

fn push_request(lines: usize) -> Vec<u8> {
    field(1, &[0x12, 0].repeat(lines))
}

fn write_request(samples: usize) -> Vec<u8> {
    field(1, &[0x12, 0].repeat(samples))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

fn grpc(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

/// Waits until a metric has this value: an answer can be here before its account is.
async fn becomes(world: &World, name: &str, labels: &str, expected: u32) {
    eventually(&format!("{name}{{{labels}}}"), async || {
        let value = world.metric(name, labels).await;
        let reached = (value - f64::from(expected)).abs() < 0.5;
        reached
            .then_some(())
            .ok_or(format!("{value}, not {expected}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_counted_whatever_it_is_written_in() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let spans = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{},{}]}]}]}"#;
    let lines = br#"{"streams":[{"stream":{},"values":[["1","a"],["2","b"]]}]}"#;
    let entries = br#"{"streams":[{"labels":"{}","entries":[{"ts":"x","line":"a"}]}]}"#;
    let zstd = zstd::encode_all(&*traces(4), 3).unwrap();
    let sent: [(&str, &str, &str, Vec<u8>); 10] = [
        ("/v1/traces", PROTOBUF, "", traces(1)),
        ("/v1/traces", PROTOBUF, "gzip", gzip(&traces(2))),
        ("/v1/traces", PROTOBUF, "zstd", zstd),
        ("/v1/traces", JSON, "", spans.to_vec()),
        ("/v1/traces", JSON, "gzip", gzip(spans)),
        (
            "/api/v1/push",
            PROTOBUF,
            "snappy",
            snappy(&write_request(7)),
        ),
        ("/loki/api/v1/push", PROTOBUF, "", snappy(&push_request(8))),
        ("/loki/api/v1/push", JSON, "", lines.to_vec()),
        ("/loki/api/v1/push", JSON, "gzip", gzip(lines)),
        ("/api/prom/push", JSON, "", entries.to_vec()),
    ];
    for (path, media, encoding, body) in &sent {
        let mut headers = vec![("content-type", *media), key];
        if !encoding.is_empty() {
            headers.push(("content-encoding", encoding));
        }
        for _ in 0..2 {
            assert_eq!(post(world.api, path, &headers, body).await.status, 200);
            assert_eq!(&world.upstream.take_seen().remove(0).body, body, "{path}");
        }
        let frames: Vec<_> = body.chunks(3).collect();
        assert_eq!(post2(world.api, path, &headers, &frames).await.status, 200);
        assert_eq!(&world.upstream.take_seen().remove(0).body, body, "{path}");
    }
    world.upstream.does(Script::Answer(Reply::grpc()));
    let headers = [
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
        key,
    ];
    for body in [grpc(0, &traces(5)), grpc(1, &gzip(&traces(6)))] {
        let answer = post2(world.api, METHOD, &headers, &[&body]).await;
        assert_eq!(answer.grpc_status(), Some("0"));
    }
    let items = "okmon_edge_items_total";
    let of = |protocol: &str, signal: &str| {
        format!("protocol=\"{protocol}\",signal=\"{signal}\",outcome=\"accepted\"")
    };
    becomes(
        &world,
        items,
        &of("otlp_http", "traces"),
        3 * (1 + 2 + 4 + 3 + 3),
    )
    .await;
    becomes(&world, items, &of("otlp_grpc", "traces"), 5 + 6).await;
    becomes(&world, items, &of("remote_write", "metrics"), 3 * 7).await;
    becomes(&world, items, &of("loki_push", "logs"), 3 * (8 + 2 + 2 + 1)).await;
    let tenant = format!("tenant=\"{TENANT}\",signal=\"logs\",outcome=\"accepted\"");
    becomes(&world, "okmon_edge_tenant_items_total", &tenant, 3 * 13).await;
    becomes(&world, "okmon_edge_uncounted_bodies_total", "", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_re_framed_is_counted_too() {
    let setup = crate::harness::Setup::PATIENT.speaking("http1");
    let world = World::start_with(Script::Answer(Reply::new(200)), setup).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let headers = [
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
        key,
    ];
    let body = grpc(1, &gzip(&traces(9)));
    let frames: Vec<_> = body.chunks(7).collect();
    let answer = post2(world.api, METHOD, &headers, &frames).await;
    assert_eq!(answer.grpc_status(), Some("0"));
    let labels = "protocol=\"otlp_grpc\",signal=\"traces\",outcome=\"accepted\"";
    becomes(&world, "okmon_edge_items_total", labels, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_counted_passes_and_says_why() {
    let world = World::start(Script::Answer(Reply::new(400))).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let why = "okmon_edge_uncounted_bodies_total";
    let bomb = gzip(&traces(8_000).repeat(300));
    for (encoding, body, reason) in [
        ("", b"\xff\xff\xff".to_vec(), "damaged"),
        ("gzip", b"no gzip".to_vec(), "damaged"),
        ("lz4", b"\x04\x22\x4d\x18".to_vec(), "encoding"),
        ("gzip", bomb, "ratio"),
    ] {
        let mut headers = vec![("content-type", PROTOBUF), key];
        if !encoding.is_empty() {
            headers.push(("content-encoding", encoding));
        }
        let labels = format!("reason=\"{reason}\"");
        let before = world.metric(why, &labels).await;
        let answer = post(world.api, "/v1/traces", &headers, &body).await;
        assert_eq!(answer.status, 400, "the upstream's judgement");
        let seen = world.upstream.take_seen().remove(0);
        assert!(seen.whole && seen.body == body, "{encoding}");
        eventually("it is counted as uncounted", async || {
            let now = world.metric(why, &labels).await;
            if now > before {
                Ok(())
            } else {
                Err(labels.clone())
            }
        })
        .await;
    }
    becomes(&world, "okmon_edge_items_total", "", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_inflates_to_much_is_counted_to_its_end() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    // Lines that differ, so that it does not count as a bomb.
    let mut body = Vec::new();
    for n in 0..2_000_u32 {
        let line = n.wrapping_mul(0x9e37_79b9).to_le_bytes().repeat(2_000);
        body.extend(field(1, &field(2, &line)));
    }
    let headers = [
        ("content-type", PROTOBUF),
        ("content-encoding", "snappy"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let block = snappy(&body);
    let answer = post(world.api, "/loki/api/v1/push", &headers, &block).await;
    assert_eq!(answer.status, 200);
    let seen = world.upstream.take_seen().remove(0);
    assert!(seen.whole && seen.body == block);
    let labels = "protocol=\"loki_push\",signal=\"logs\",outcome=\"accepted\"";
    becomes(&world, "okmon_edge_items_total", labels, 2_000).await;
    assert!(block.len() < body.len() / 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_can_be_switched_off_while_it_runs() {
    let mut world = World::start(Script::Answer(Reply::new(200))).await;
    let key = ("x-api-key", world.keys.valid.reveal().to_owned());
    let headers = [("content-type", PROTOBUF), ("x-api-key", key.1.as_str())];
    let labels = "protocol=\"otlp_http\",signal=\"traces\",outcome=\"accepted\"";
    post(world.api, "/v1/traces", &headers, &traces(5)).await;
    becomes(&world, "okmon_edge_items_total", labels, 5).await;
    world
        .reload(|text| format!("{text}[counting]\nmode = 'off'\n"))
        .await
        .unwrap();
    post(world.api, "/v1/traces", &headers, &traces(5)).await;
    post(world.api, "/v1/traces", &headers, b"\xff\xff\xff").await;
    let requests = "okmon_edge_requests_total";
    becomes(&world, requests, labels, 3).await;
    becomes(&world, "okmon_edge_items_total", labels, 5).await;
    becomes(&world, "okmon_edge_uncounted_bodies_total", "", 0).await;
}
