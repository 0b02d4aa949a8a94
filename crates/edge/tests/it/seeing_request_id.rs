//! Every answer has an id of its own, by which its line in the log is found: also those to what was hardly a request.

use std::collections::HashSet;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Answer, Setup, World, connect, head, post, post2, read_answer, read_pipelined,
};
use crate::upstream::{Reply, Script};

const GRPC: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Notes the id of an answer with this status.
fn note(ids: &mut Vec<String>, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let all = answer.headers.get_all("x-request-id").iter();
    let all: Vec<_> = all.map(|id| id.to_str().unwrap().to_owned()).collect();
    assert_eq!(all.len(), 1, "{answer:?}");
    assert_eq!(all[0].len(), 26, "{answer:?}");
    ids.extend(all);
}

fn are_unique(ids: &[String]) {
    let unique: HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_http_1_has_an_id_of_its_own() {
    // What a backend says its id is, is not ours.
    let reply = Reply::new(200).header("x-request-id", "backend");
    let world = World::start_with(Script::Answer(reply), Setup::IMPATIENT).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let media = ("content-type", "application/x-protobuf");
    let mut ids = Vec::new();
    let long = "x".repeat(40_000);
    for (headers, status, path) in [
        (vec![media, key], 200, "/v1/logs"),
        (vec![media], 401, "/v1/logs"),
        (vec![media, key, ("x-scope-orgid", "x")], 403, "/v1/logs"),
        (vec![media, key], 404, "/nothing"),
        (vec![("content-type", "text/html"), key], 415, "/v1/logs"),
        (vec![media, key, ("x-long", &long)], 431, "/v1/logs"),
        (
            vec![media, key, ("transfer-encoding", "chunked")],
            400,
            "/v1/logs",
        ),
        // The sender's own id stays its own.
        (
            vec![media, key, ("x-request-id", "sender")],
            200,
            "/v1/logs",
        ),
    ] {
        note(
            &mut ids,
            &post(world.api, path, &headers, b"x").await,
            status,
        );
    }
    let too_large = [media, key, ("content-length", "99999999")];
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /v1/logs HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 405),
        (head("/v1/logs", &too_large[..2], 99_999_999), 413),
        // Promises more than it sends.
        (head("/v1/logs", &[media, key], 2) + "x", 408),
    ] {
        let mut stream = connect(world.api).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        note(&mut ids, &read_answer(&mut stream).await.unwrap(), status);
    }
    let mut stream = connect(world.api).await;
    let request = head("/v1/logs", &[media, key], 0);
    stream
        .write_all(request.repeat(3).as_bytes())
        .await
        .unwrap();
    let mut buffer = BytesMut::new();
    for _ in 0..3 {
        let answer = read_pipelined(&mut stream, &mut buffer).await.unwrap();
        note(&mut ids, &answer, 200);
    }
    are_unique(&ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_http_2_has_an_id_of_its_own() {
    let reply = Reply::new(200).header("x-request-id", "backend");
    let world = World::start_with(Script::Answer(reply), Setup::IMPATIENT).await;
    let key = ("x-api-key", world.keys.valid.reveal());
    let media = ("content-type", "application/x-protobuf");
    let grpc = ("content-type", "application/grpc");
    let mut ids = Vec::new();
    // Not 431: the HTTP/2 library gives that by itself, before there is a request.
    for (headers, status, path) in [
        (vec![media, key], 200, "/v1/logs"),
        (vec![media], 401, "/v1/logs"),
        (vec![media, key], 404, "/nothing"),
        (vec![("content-type", "text/html"), key], 415, "/v1/logs"),
        (vec![grpc, key], 200, GRPC),
        (vec![grpc], 200, GRPC),
    ] {
        let answer = post2(world.api, path, &headers, &[&[0; 5]]).await;
        note(&mut ids, &answer, status);
    }
    are_unique(&ids);
}
