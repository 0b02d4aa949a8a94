//! OTLP/gRPC to a backend that only speaks HTTP: re-framed without decoding, the answer mapped back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use wire::rpc::{RetryInfo, Status};

use crate::harness::{Answer, Setup, TENANT, World, post2};
use crate::streaming::bytes;
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

async fn call(world: &World, extra: &[(&str, &str)], frames: &[&[u8]]) -> Answer {
    let key = ("x-api-key", world.keys.valid.reveal());
    let headers = [
        &[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            key,
        ][..],
        extra,
    ]
    .concat();
    post2(world.api, METHOD, &headers, frames).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_is_posted_as_it_came() {
    for speaks in ["http1", "http2"] {
        let world = World::start_with(
            Script::Answer(Reply::new(200)),
            Setup::PATIENT.speaking(speaks),
        )
        .await;
        // Cut at odd places: frames of HTTP/2 have nothing to do with messages.
        let frames: [&[u8]; 5] = [&[0, 0], &[0, 0], &[5], b"he", b"llo"];
        let answer = call(&world, &[("user-agent", "sdk/1")], &frames).await;
        assert_eq!(
            (answer.grpc_status(), &answer.body[..]),
            (Some("0"), &[0; 5][..]),
            "{answer:?}"
        );
        let seen = world.upstream.take_seen().remove(0);
        assert_eq!(
            (seen.path.as_str(), seen.body.as_slice(), seen.whole),
            ("/v1/metrics", &b"hello"[..], true)
        );
        assert_eq!(seen.all("content-length"), ["5"]);
        assert_eq!(seen.all("content-type"), ["application/x-protobuf"]);
        assert_eq!(seen.all("user-agent"), ["sdk/1"]);
        assert_eq!(seen.all("x-scope-orgid"), [TENANT]);
        assert!(seen.all("content-encoding").is_empty() && seen.all("te").is_empty());

        for encoding in ["gzip", "zstd"] {
            call(
                &world,
                &[("grpc-encoding", encoding)],
                &[&[1, 0, 0, 0, 1, 9]],
            )
            .await;
            assert_eq!(
                world.upstream.take_seen()[0].all("content-encoding"),
                [encoding]
            );
            call(
                &world,
                &[("grpc-encoding", encoding)],
                &[&[0, 0, 0, 0, 1, 9]],
            )
            .await;
            assert!(
                world.upstream.take_seen()[0]
                    .all("content-encoding")
                    .is_empty(),
                "flag 0 is plain"
            );
        }
        let answer = call(&world, &[("grpc-encoding", "br")], &[&[1, 0, 0, 0, 1, 9]]).await;
        assert_eq!(
            (answer.grpc_status(), answer.header("grpc-accept-encoding")),
            (Some("12"), Some("identity,gzip,zstd"))
        );
        let answer = call(&world, &[], &[&[0; 5]]).await;
        assert_eq!((answer.grpc_status(), answer.body.len()), (Some("0"), 5));
        assert!(
            world.upstream.take_seen().is_empty(),
            "an empty message is not asked about"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn success_keeps_partial_success_and_nothing_else() {
    let world = World::start_with(Script::Hang, Setup::PATIENT.speaking("http1")).await;
    let partial = Bytes::from_static(b"\x0a\x04\x08\x03\x12\x00");
    let protobuf = Reply::new(200)
        .header("content-type", "application/x-protobuf")
        .body(partial.clone());
    for (reply, message) in [
        (protobuf.clone(), &partial[..]),
        (
            Reply {
                status: 202,
                ..protobuf
            },
            &[],
        ),
        (Reply::new(204), &[]),
        (
            Reply::new(260)
                .header("content-type", "text/plain")
                .body("blocked"),
            &[],
        ),
        (
            Reply::new(200)
                .header("content-type", "application/json")
                .body("{}"),
            &[],
        ),
    ] {
        world.upstream.does(Script::Answer(reply));
        let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
        let length = u8::try_from(message.len()).unwrap();
        assert_eq!((answer.status, answer.grpc_status()), (200, Some("0")));
        assert_eq!(answer.body, [&[0, 0, 0, 0, length], message].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_keeps_its_words_and_gets_the_code_that_senders_act_on() {
    let world = World::start_with(Script::Hang, Setup::PATIENT.speaking("http1")).await;
    let told = Status::new(0, "per-user rate limit").to_protobuf();
    for (status, code, retry) in [
        (400, "3", false),
        (422, "3", false),
        (413, "8", false),
        (404, "12", false),
        (415, "12", false),
        (429, "8", true),
        (500, "13", false),
        (502, "14", true),
        (503, "14", true),
        (504, "14", true),
        (529, "14", true),
    ] {
        let reply = Reply::new(status)
            .header("content-type", "application/octet-stream")
            .body(told.clone());
        world.upstream.does(Script::Answer(reply));
        let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
        assert_eq!(
            (answer.status, answer.grpc_status(), answer.trailers_only),
            (200, Some(code), true),
            "{status}"
        );
        assert_eq!(answer.header("grpc-message"), Some("per-user rate limit"));
        assert_eq!(
            answer.header("grpc-status-details-bin").is_some(),
            retry,
            "{status}"
        );
    }
    for status in [401, 403] {
        world
            .upstream
            .does(Script::Answer(Reply::new(status).body("no org id")));
        let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
        assert_eq!(
            answer.grpc_status(),
            Some("14"),
            "our own credential failed, not the customer's"
        );
        assert!(!answer.header("grpc-message").unwrap().contains("org id"));
    }
    world.upstream.does(Script::Answer(
        Reply::new(400)
            .header("content-type", "text/plain")
            .body("line one"),
    ));
    let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
    assert_eq!(answer.header("grpc-message"), Some("line one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_own_deadline_ends_the_call() {
    let world = World::start_with(Script::Hang, Setup::IMPATIENT.speaking("http1")).await;
    let answer = call(&world, &[("grpc-timeout", "100m")], &[&[0, 0, 0, 0, 1, 9]]).await;
    assert_eq!(answer.grpc_status(), Some("4"));
    let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
    assert_eq!(
        answer.grpc_status(),
        Some("14"),
        "without one, the upstream's time limit does"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delay_a_backend_asks_for_is_passed_on_in_both_places() {
    let world = World::start_with(Script::Hang, Setup::PATIENT.speaking("http1")).await;
    for (told, seconds) in [
        (Some("3"), 3),
        (Some("96"), 96),
        (Some("Fri, 31 Dec 1999 23:59:59 GMT"), 2),
        (Some("soon"), 2),
        (None, 2),
    ] {
        for status in [429, 503] {
            let mut reply = Reply::new(status);
            if let Some(told) = told {
                reply = reply.header("retry-after", told);
            }
            world.upstream.does(Script::Answer(reply));
            let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
            let info = RetryInfo::after(Duration::from_secs(seconds));
            let bare = answer.header("google.rpc.retryinfo-bin");
            assert_eq!(bare, Some(info.to_metadata().as_str()), "{told:?}");
            let details = answer.header("grpc-status-details-bin").unwrap();
            let details = STANDARD_NO_PAD.decode(details).unwrap();
            let status = Status::from_protobuf(&details).unwrap();
            assert_eq!(status.retry_info(), Some(info), "{told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snappy_passes_where_the_backend_reads_it() {
    for (kind, expected) in [
        ("collector", Some("0")),
        ("mimir", Some("12")),
        ("loki", Some("12")),
    ] {
        let setup = Setup {
            kind,
            ..Setup::PATIENT.speaking("http1")
        };
        let world = World::start_with(Script::Answer(Reply::new(200)), setup).await;
        let snappy = [("grpc-encoding", "snappy")];
        let answer = call(&world, &snappy, &[&[1, 0, 0, 0, 1, 9]]).await;
        assert_eq!(answer.grpc_status(), expected, "{kind}: {answer:?}");
        let seen = world.upstream.take_seen();
        if expected == Some("0") {
            assert_eq!(seen[0].all("content-encoding"), ["x-snappy-framed"]);
        } else {
            let accepted = answer.header("grpc-accept-encoding");
            assert_eq!(accepted, Some("identity,gzip,zstd"));
            assert!(seen.is_empty(), "{kind}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_makes_the_sender_keep_its_data() {
    for speaks in ["http1", "http2"] {
        let setup = Setup::IMPATIENT.speaking(speaks);
        let world = World::start_with(Script::Die, setup).await;
        for script in [
            Script::Die,
            Script::Hang,
            Script::Stall,
            Script::DieMidAnswer,
        ] {
            world.upstream.does(script);
            let answer = call(&world, &[], &[&[0, 0, 0, 0, 1, 9]]).await;
            assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
            assert!(answer.trailers_only, "{answer:?}");
            assert!(
                answer.header("google.rpc.retryinfo-bin").is_some(),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_arrives_as_it_was_sent() {
    for speaks in ["http1", "http2"] {
        let setup = Setup::PATIENT.speaking(speaks);
        let world = World::start_with(Script::Answer(Reply::new(200)), setup).await;
        let message = bytes(8 << 20);
        let prefix = u32::try_from(message.len()).unwrap().to_be_bytes();
        let call_bytes = [&[0][..], &prefix, &message].concat();
        let frames: Vec<_> = call_bytes.chunks(9_999).collect();
        assert_eq!(call(&world, &[], &frames).await.grpc_status(), Some("0"));
        let seen = world.upstream.take_seen().remove(0);
        assert!(seen.whole && seen.body == message);
    }
}
