//! Requests that two servers could read as two different ones are refused, and so are calls that break gRPC's framing.

use crate::harness::{BODY_MAX, Setup, World, collect2, http2, post, post2, raw, request2};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_http_is_refused_and_its_connection_closed() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = world.keys.valid.reveal();
    let good = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-type: application/x-protobuf\r\n"
    );
    for rest in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "content-length: 1, 1\r\n\r\na",
        "content-length: 1\r\ncontent-length: 1\r\n\r\na",
        "content-length: -1\r\n\r\n",
        "content-length: +1\r\n\r\na",
        "content-length: 0x1\r\n\r\na",
        "content-length: 1 1\r\n\r\na",
        "content-length: \r\n\r\n",
        "content-length: 99999999999999999999\r\n\r\n",
        "transfer-encoding: gzip\r\n\r\n",
        "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        "transfer_encoding: chunked\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "host: b\r\ncontent-length: 0\r\n\r\n",
        "x: a\r\n folded\r\ncontent-length: 0\r\n\r\n",
        "x : a\r\ncontent-length: 0\r\n\r\n",
        "x: a\ncontent-length: 0\r\n\r\n",
        "x: a\rb\r\ncontent-length: 0\r\n\r\n",
        "x: a\0b\r\ncontent-length: 0\r\n\r\n",
        ": a\r\ncontent-length: 0\r\n\r\n",
        "x\r\ncontent-length: 0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
        "transfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: a\n\r\n",
        "transfer-encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    ] {
        let answer = raw(world.api, format!("{good}{rest}").as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400 "), "{rest:?}: {text}");
        assert!(
            text.contains("connection: close") && text.contains("x-request-id: "),
            "{text}"
        );
    }
    let seen = world.upstream.take_seen();
    assert!(seen.iter().all(|seen| !seen.whole), "{seen:?}");

    for line in [
        "POST /v1/traces HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked",
        "POST /v1/traces HTTP/1.1\r\ncontent-length: 0",
        "POST /v1/traces HTTP/2.0\r\nhost: a",
        "POST /v1/traces HTTP/1.1 \r\nhost: a",
        "POST  /v1/traces HTTP/1.1\r\nhost: a",
        "POST\t/v1/traces HTTP/1.1\r\nhost: a",
        "POST /v1/traces\r\nhost: a",
        "POST /v1/tra ces HTTP/1.1\r\nhost: a",
    ] {
        let answer = raw(
            world.api,
            format!("{line}\r\nx-api-key: {key}\r\n\r\n").as_bytes(),
        )
        .await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.get(8..13) == Some(" 400 "), "{line:?}: {text}");
    }
    assert!(world.upstream.take_seen().is_empty());

    let large = format!("{good}x: {}\r\n\r\n", "a".repeat(40_000));
    assert!(
        raw(world.api, large.as_bytes())
            .await
            .starts_with(b"HTTP/1.1 431 ")
    );
    let none = "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\r\n\r\n";
    assert!(
        raw(world.api, none.as_bytes())
            .await
            .starts_with(b"HTTP/1.1 400 ")
    );
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", key),
    ];
    assert_eq!(
        post(world.api, "/v1/traces", &headers, b"x").await.status,
        200,
        "a fresh connection works"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_ambiguous_request_is_no_request() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = world.keys.valid.reveal();
    let good = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-type: application/x-protobuf\r\n"
    );
    for first in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 0\r\ncontent-length: 4\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    ] {
        let both = format!("{good}{first}{good}content-length: 0\r\n\r\n");
        let answer = raw(world.api, both.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{first:?}: {text}");
    }
    let seen = world.upstream.take_seen();
    assert!(seen.iter().all(|seen| !seen.whole), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_length_than_declared_never_ends_properly_upstream() {
    let world = World::start(Script::Answer(Reply::grpc())).await;
    for (path, media) in [
        (METHOD, "application/grpc"),
        ("/v1/traces", "application/x-protobuf"),
    ] {
        for length in ["3", "9"] {
            let headers = [
                ("content-type", media),
                ("content-length", length),
                ("x-api-key", world.keys.valid.reveal()),
            ];
            let mut client = http2(world.api).await.ready().await.unwrap();
            let request = request2(path, &headers);
            let (response, mut stream) = client.send_request(request, false).unwrap();
            stream.send_data([0; 5][..].into(), true).unwrap();
            if let Ok(answer) = collect2(response).await {
                assert_ne!(
                    answer.grpc_status(),
                    Some("0"),
                    "{path} {length}: {answer:?}"
                );
                assert!(
                    answer.status != 200 || path == METHOD,
                    "{path} {length}: {answer:?}"
                );
            }
            let seen = world.upstream.take_seen();
            assert!(
                seen.iter().all(|seen| !seen.whole),
                "{path} {length}: {seen:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_http_1_is_told_what_it_needs() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let headers = [
        ("content-type", "application/grpc"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let answer = post(world.api, METHOD, &headers, &[0; 5]).await;
    assert_eq!((answer.status, answer.grpc_status()), (200, Some("13")));
    assert!(answer.header("grpc-message").unwrap().contains("HTTP/2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_breaks_its_framing_never_ends_properly_upstream() {
    // Only a re-framed call is looked into; towards gRPC the frames pass and the upstream judges.
    let world = World::start_with(
        Script::Answer(Reply::new(200)),
        Setup::PATIENT.speaking("http1"),
    )
    .await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let too_long = u32::try_from(BODY_MAX + 1).unwrap().to_be_bytes();
    let too_long = [&[0][..], &too_long].concat();
    let cases: [(&[&[u8]], &str); 8] = [
        (&[&[0, 0, 0]], "13"),
        (&[&[0, 0, 0, 0, 5], b"hel"], "13"),
        (&[&[2, 0, 0, 0, 1], b"x"], "13"),
        (&[&[0, 0, 0, 0, 1], b"xy"], "12"),
        (&[&[0, 0, 0, 0, 1], b"x", &[0, 0, 0, 0, 0]], "12"),
        (&[&[1, 0, 0, 0, 1], b"x"], "13"),
        (&[&[0, 0, 0, 0, 0], &[0, 0, 0, 0, 0]], "12"),
        (&[&too_long], "8"),
    ];
    for (frames, code) in cases {
        let headers = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            key,
        ];
        let answer = post2(world.api, METHOD, &headers, frames).await;
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, Some(code)),
            "{frames:?}: {answer:?}"
        );
        assert!(
            answer.header("grpc-status-details-bin").is_none(),
            "nothing here gets better by itself"
        );
    }
    let headers = [("content-type", "application/grpc+json"), key];
    assert_eq!(
        post2(world.api, METHOD, &headers, &[&[0; 5]])
            .await
            .grpc_status(),
        Some("12")
    );
}
