//! An upstream's answer is the sender's, unchanged; where there is none, the sender keeps its data.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Answer, Setup, World, collect2, connect, head, http2, post, post2, raw, read_answer, request2,
};
use crate::streaming::{METHOD, bytes, grpc_headers, headers};
use crate::upstream::{Reply, Script};

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_any_size_arrive_as_they_were_given() {
    let world = World::start(Script::Hang).await;
    for length in [0, 1, 70_000, 8 << 20] {
        // A partial success is such an answer: its bytes are nobody's business but the sender's.
        let reply = Reply::new(200)
            .header("content-type", "application/x-protobuf")
            .body(bytes(length));
        world.upstream.does(Script::Answer(reply));
        let answers = [
            post(world.api, "/v1/traces", &headers(&world), b"x").await,
            post2(world.api, "/v1/traces", &headers(&world), &[b"x"]).await,
        ];
        for answer in answers {
            assert_eq!((answer.status, answer.body.len()), (200, length));
            assert_eq!(
                answer.header("content-type"),
                Some("application/x-protobuf")
            );
            assert!(answer.body == bytes(length), "{length} bytes");
        }
        let reply = Reply::grpc().body(bytes(length));
        world.upstream.does(Script::Answer(reply));
        let answer = post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await;
        assert!(answer.body == bytes(length), "{length} bytes over gRPC");
        assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_however_it_is_delimited() {
    let world = World::start(Script::Hang).await;
    let [(_, media), (_, key)] = headers(&world);
    let request = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {media}\r\nx-api-key: {key}\r\n\r\n"
    );
    for whole in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nyes\r\n0\r\nlink: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nyes",
        "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes",
    ] {
        world.upstream.does(Script::Raw(whole));
        let answer = raw(world.api, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.starts_with("HTTP/1.1 200 ") && text.contains("yes"),
            "{whole:?}: {text}"
        );
        assert!(!text.contains("link"), "{text}");
    }
    for broken in [
        "",
        "HTTP/1.1 200",
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: three\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nyes",
    ] {
        world.upstream.does(Script::Raw(broken));
        let answer = raw(world.api, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 503 "), "{broken:?}: {text}");
    }
    for short in [
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyesX",
    ] {
        world.upstream.does(Script::Raw(short));
        let answer = raw(world.api, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.ends_with("\r\n0\r\n\r\n"), "{short:?}: {text}");
        assert!(!text.contains("content-length: 3"), "{short:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_up_between_requests_costs_none() {
    let world = World::start(Script::Hang).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    world.upstream.does(Script::Raw(answer));
    let mut stream = connect(world.api).await;
    for n in 0..50 {
        let head = head("/v1/traces", &headers(&world), 1);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200, "{n}");
        world.seen_soon().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_supplied_where_the_sender_would_choose_one_too_long() {
    let world = World::start(Script::Answer(Reply::new(429))).await;
    for (path, delay) in [
        ("/v1/logs", Some("2")),
        ("/loki/api/v1/push", None),
        ("/api/v1/push", None),
    ] {
        let answer = post(world.api, path, &headers(&world), b"x").await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, delay),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_upstream_that_denies_us_is_not_the_senders_fault() {
    let world = World::start(Script::Hang).await;
    for code in ["7", "16"] {
        let status = [("grpc-status", code), ("grpc-message", "who is okmon?")];
        let late = Reply {
            trailers: status.to_vec(),
            ..Reply::grpc()
        };
        let first = Reply::new(200).header("content-type", "application/grpc");
        let first = first
            .header("grpc-status", code)
            .header("grpc-message", "who is okmon?");
        for reply in [late, first] {
            world.upstream.does(Script::Answer(reply));
            let answer = post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await;
            assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
            assert!(!format!("{answer:?}").contains("who is"), "{answer:?}");
        }
    }
    // What stands in between answers in HTTP.
    for (status, code) in [
        (502, "14"),
        (429, "8"),
        (413, "8"),
        (404, "12"),
        (500, "13"),
        (403, "14"),
    ] {
        world
            .upstream
            .does(Script::Answer(Reply::new(status).body("<html>")));
        let answer = post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await;
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, Some(code)),
            "{status}"
        );
        assert!(answer.trailers_only, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_frames_and_trailers_pass_unchanged() {
    let reply = Reply {
        trailers: vec![
            ("grpc-status", "8"),
            ("grpc-message", "slow%20down"),
            ("grpc-status-details-bin", "CAgSCXNsb3cgZG93bg"),
        ],
        ..Reply::grpc()
    };
    let world = World::start(Script::Answer(reply.clone())).await;
    let message = bytes(100_000);
    let frames: Vec<_> = message.chunks(999).collect();
    let extra = [("grpc-encoding", "gzip"), ("grpc-timeout", "5S")];
    let headers = [&grpc_headers(&world)[..], &extra].concat();
    let answer = post2(world.api, METHOD, &headers, &frames).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &[0; 5][..]));
    for (name, value) in reply.trailers {
        assert_eq!(answer.trailers.get(name).unwrap(), value);
    }
    let seen = world.upstream.take_seen().remove(0);
    assert!(seen.whole && seen.body == message);
    assert_eq!(
        (seen.all("grpc-encoding"), seen.all("grpc-timeout")),
        (vec!["gzip"], vec!["5S"])
    );

    let refused = Reply::new(200)
        .header("content-type", "application/grpc")
        .header("grpc-status", "8");
    world.upstream.does(Script::Answer(refused));
    let answer = post2(world.api, METHOD, &headers, &frames).await;
    assert!(
        answer.trailers_only && answer.grpc_status() == Some("8"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_says_arrives_unchanged() {
    let world = World::start(Script::Hang).await;
    let written = "x-prometheus-remote-write-samples-written";
    for status in [
        200, 202, 204, 260, 400, 413, 422, 429, 500, 501, 502, 503, 529,
    ] {
        let body = if status == 204 {
            ""
        } else {
            "the backend's own words"
        };
        let reply = Reply::new(status)
            .header("retry-after", "37")
            .header(written, "12")
            .header("content-type", "text/plain")
            .header("server", "secret/1.0")
            .header("via", "secret")
            .header("server-timing", "artificial_delay;dur=1")
            .header("connection", "x-internal")
            .header("x-internal", "1")
            .body(body);
        world.upstream.does(Script::Answer(reply));
        let answer = post(world.api, "/api/v1/push", &headers(&world), b"x").await;
        assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()));
        assert_eq!(
            (answer.header("retry-after"), answer.header(written)),
            (Some("37"), Some("12"))
        );
        for hidden in ["server", "via", "server-timing", "x-internal"] {
            assert_eq!(answer.header(hidden), None, "{hidden}");
        }
    }
    for status in [401, 403] {
        world.upstream.does(Script::Answer(Reply::new(status)));
        let answer = post(world.api, "/api/v1/push", &headers(&world), b"x").await;
        assert_eq!(
            answer.status, 503,
            "our own credential failed, not the customer's"
        );
    }
    assert!(world.metric("okmon_edge_upstream_denied_total", "").await >= 2.0);
}

/// What a sender is told when there is no answer to pass on.
fn temporary(answer: &Answer, http: u16) {
    if let Some(code) = answer.grpc_status() {
        assert_eq!(code, "14", "{answer:?}");
        assert!(
            answer.header("google.rpc.retryinfo-bin").is_some(),
            "{answer:?}"
        );
    } else {
        assert_eq!(answer.status, http, "{answer:?}");
        let wait: u64 = answer
            .header("retry-after")
            .expect("a hint")
            .parse()
            .unwrap();
        assert!((1..=4).contains(&wait));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_makes_the_sender_keep_its_data() {
    let world = World::start_with(Script::Die, Setup::IMPATIENT).await;
    for (script, status) in [
        (Script::Die, 503),
        (Script::Hang, 504),
        (Script::Stall, 504),
    ] {
        world.upstream.does(script);
        temporary(
            &post(world.api, "/v1/traces", &headers(&world), b"x").await,
            status,
        );
        temporary(
            &post2(world.api, "/v1/traces", &headers(&world), &[b"x"]).await,
            status,
        );
        temporary(
            &post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await,
            status,
        );
    }
    world.upstream.does(Script::Answer(Reply::new(200)));
    assert_eq!(
        post(world.api, "/v1/traces", &headers(&world), b"x")
            .await
            .status,
        200,
        "the next request works"
    );

    // A port that nobody listens on.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::start_against(nobody, Setup::PATIENT).await;
    temporary(
        &post(world.api, "/v1/traces", &headers(&world), b"x").await,
        503,
    );
    temporary(
        &post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await,
        503,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_pass_for_a_whole_one() {
    let world = World::start_with(Script::DieMidAnswer, Setup::IMPATIENT).await;
    let mut stream = connect(world.api).await;
    stream
        .write_all(head("/v1/traces", &headers(&world), 1).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(
        read_answer(&mut stream).await.is_none(),
        "HTTP/1.1: the connection breaks before the end"
    );
    let mut send = http2(world.api).await.ready().await.unwrap();
    let (response, mut stream) = send
        .send_request(request2("/v1/traces", &headers(&world)), false)
        .unwrap();
    stream.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert!(
        collect2(response).await.is_err(),
        "HTTP/2: the stream is reset"
    );
    let answer = post2(world.api, METHOD, &grpc_headers(&world), &[&[0; 5]]).await;
    assert_eq!(
        answer.trailers.get("grpc-status").unwrap(),
        "14",
        "gRPC: the trailers say so"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_is_the_answer() {
    let world = Arc::new(World::start(Script::Hang).await);
    let body = bytes(1 << 20);
    for script in [
        Script::AnswerEarly(Reply::new(200)),
        Script::AnswerAndClose(
            Reply::new(413)
                .header("connection", "close")
                .body("too much"),
        ),
    ] {
        let status = if matches!(script, Script::AnswerEarly(_)) {
            200
        } else {
            413
        };
        world.upstream.does(script);
        let senders = (0..100).map(|n| {
            let (world, body) = (Arc::clone(&world), body.clone());
            tokio::spawn(async move {
                if n % 2 == 0 {
                    post(world.api, "/v1/traces", &headers(&world), &body[..32 << 10])
                        .await
                        .status
                } else {
                    let frames: Vec<_> = body.chunks(16_384).collect();
                    post2(world.api, "/v1/traces", &headers(&world), &frames)
                        .await
                        .status
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            assert_eq!(sender.await.unwrap(), status);
        }
    }
    for reply in [
        Reply::grpc(),
        Reply::new(200)
            .header("content-type", "application/grpc")
            .header("grpc-status", "8"),
    ] {
        let code = if reply.trailers.is_empty() { "8" } else { "0" };
        world.upstream.does(Script::AnswerEarly(reply));
        let senders = (0..100).map(|_| {
            let (world, body) = (Arc::clone(&world), body.clone());
            tokio::spawn(async move {
                let frames: Vec<_> = body.chunks(16_384).collect();
                post2(world.api, METHOD, &grpc_headers(&world), &frames).await
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            assert_eq!(sender.await.unwrap().grpc_status(), Some(code));
        }
    }
}
