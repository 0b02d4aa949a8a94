//! A body over the limit is refused: from the head where that tells its length, else once it has grown too long, and then the
//! upstream never sees a proper end.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Answer, BODY_MAX, World, collect2, connect, head, http2, post, post2, read_answer, request2,
};
use crate::routes::{Expected, Form, PROTOBUF, REMOTE_WRITE, Retry, Route, check, routes};
use crate::upstream::{Reply, Script};

fn expected(route: &Route) -> Expected {
    Expected {
        // vmagent would repeat a 413 for ever.
        status: if route.headers == REMOTE_WRITE {
            400
        } else {
            413
        },
        code: "8",
        retry: Retry::Never,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_length_over_the_limit_is_refused_from_the_head() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let length = (BODY_MAX + 1).to_string();
    for route in routes() {
        let headers = [route.headers, &[key]].concat();
        let mut answers = Vec::new();
        if route.form != Form::Grpc {
            let mut stream = connect(world.api).await;
            let head = head(route.path, &headers, BODY_MAX + 1);
            stream.write_all(head.as_bytes()).await.unwrap();
            answers.push(read_answer(&mut stream).await.unwrap());
        }
        let declared = [&headers[..], &[("content-length", &length)]].concat();
        answers.push(post2_head(&world, route.path, &declared).await);
        for answer in answers {
            let text = check(&route, &answer, &expected(&route));
            assert!(text.contains("16 MiB"), "the limit is named: {text}");
        }
    }
    assert!(world.upstream.take_seen().is_empty());
}

/// Sends a head over HTTP/2 and nothing after it.
async fn post2_head(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut client = http2(world.api).await.ready().await.unwrap();
    let request = request2(path, headers);
    let (response, _stream) = client.send_request(request, false).unwrap();
    collect2(response).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_grows_over_the_limit_is_refused_and_never_ends_upstream() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let body = Bytes::from(vec![7; BODY_MAX + 1]);
    for route in routes() {
        if !["/v1/traces", "/api/v1/push", "/loki/api/v1/push"].contains(&route.path)
            && !route.path.contains("Trace")
        {
            continue;
        }
        let headers = [route.headers, &[key]].concat();
        let frames: Vec<&[u8]> = body.chunks(16 * 1024).collect();
        let answer = post2(world.api, route.path, &headers, &frames).await;
        check(&route, &answer, &expected(&route));
        assert!(!world.seen_soon().await.whole, "{}", route.path);
        if route.form != Form::Grpc {
            let answer = post_chunked(&world, route.path, &headers, &body).await;
            check(&route, &answer, &expected(&route));
            assert!(!world.seen_soon().await.whole, "{}", route.path);
        }
    }
}

/// Sends `body` in chunks and no length.
async fn post_chunked(world: &World, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = connect(world.api).await;
    let head = head(path, headers, 0).replace("content-length: 0", "transfer-encoding: chunked");
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in body.chunks(64 * 1024) {
        let size = format!("{:x}\r\n", chunk.len());
        let chunk = [size.as_bytes(), chunk, b"\r\n"].concat();
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n").await;
    read_answer(&mut stream).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_just_the_limit_passes() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    let headers = [PROTOBUF[0], ("x-api-key", world.keys.valid.reveal())];
    let body = vec![7; BODY_MAX];
    let frames: Vec<&[u8]> = body.chunks(16 * 1024).collect();
    let answers = [
        post(world.api, "/v1/traces", &headers, &body).await,
        post2(world.api, "/v1/traces", &headers, &frames).await,
        post_chunked(&world, "/v1/traces", &headers, &body).await,
    ];
    let seen = world.upstream.take_seen();
    for (answer, seen) in answers.iter().zip(&seen) {
        assert_eq!(answer.status, 200);
        assert!(seen.whole && seen.body.len() == BODY_MAX);
    }
    assert_eq!(seen.len(), answers.len());
}
