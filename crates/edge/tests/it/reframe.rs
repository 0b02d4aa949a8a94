//! OTLP/gRPC to a backend that only speaks HTTP: re-framed without decoding, the answer mapped back.

use bytes::Bytes;
use wire::rpc::Status;

use crate::harness::{Answer, Setup, TENANT, World, post2};
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
