//! Loki push at the sink: protobuf and both JSON schemas arrive as sent, and faults get Loki's answer.

use prost::Message as _;
use serde_json::{Value, json};
use wire::loki::{EntryAdapter, LabelPairAdapter, PushRequest, StreamAdapter};

use super::sink_harness::*;

const PUSH: &str = "/loki/api/v1/push";

const V1: &str = r#"{"streams": [{"stream": {"job": "api", "host": "a\"b"}, "values": [
    ["1700000000000000001", "one"], ["1700000000000000002", "two", {"trace": "abc"}]
]}]}"#;

const V0: &str = r#"{"streams": [{"labels": "{job=\"api\"}", "entries": [
    {"ts": "2023-11-14T22:13:20.000000001Z", "line": "one"}
]}]}"#;

fn request() -> PushRequest {
    PushRequest {
        streams: vec![StreamAdapter {
            labels: r#"{job="api"}"#.to_owned(),
            entries: vec![EntryAdapter {
                timestamp: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000,
                    nanos: 2,
                }),
                line: "line".to_owned(),
                structured_metadata: vec![LabelPairAdapter {
                    name: "trace".to_owned(),
                    value: "abc".to_owned(),
                }],
                parsed: Vec::new(),
            }],
            hash: 0,
        }],
        format: String::new(),
    }
}

#[test]
fn protobuf_is_a_snappy_block_whatever_the_encoding_says() {
    let sink = start();
    let block = snappy_block(&request().encode_to_vec());
    for (encoding, body) in [
        (None, block.clone()),
        (Some("snappy"), block.clone()),
        (Some("gzip"), gzip(&block)),
        (Some("deflate"), raw_deflate(&block)),
    ] {
        let mut headers = vec![("Content-Type", PROTOBUF)];
        headers.extend(encoding.map(|encoding| ("Content-Encoding", encoding)));
        let answer = sink.post(PUSH, &headers, &body);
        assert_eq!((answer.status, answer.text()), (204, ""), "{encoding:?}");

        let entry = sink.newest("logs");
        assert_eq!(entry["protocol"], "loki");
        assert_eq!(
            entry["content_encoding"],
            encoding.map_or(Value::Null, Value::from)
        );
        assert_eq!(entry["item_count"], 1);
        assert_eq!(
            entry["body"],
            json!({"streams": [{"labels": "{job=\"api\"}", "entries": [
                {"timestamp": "1700000000000000002", "line": "line", "structured_metadata": {"trace": "abc"}}
            ]}]})
        );
    }
}

#[test]
fn the_path_tells_the_schema_of_json() {
    let sink = start();
    let json = [("Content-Type", "application/json; charset=utf-8")];
    assert_eq!(sink.post(PUSH, &json, V1.as_bytes()).status, 204);
    let entry = sink.newest("logs");
    assert_eq!(entry["item_count"], 2);
    assert_eq!(
        entry["body"],
        json!({"streams": [{"labels": r#"{host="a\"b", job="api"}"#, "entries": [
            {"timestamp": "1700000000000000001", "line": "one"},
            {"timestamp": "1700000000000000002", "line": "two", "structured_metadata": {"trace": "abc"}},
        ]}]})
    );

    assert_eq!(
        sink.post("/api/prom/push", &json, V0.as_bytes()).status,
        204
    );
    assert_eq!(
        sink.newest("logs")["body"],
        json!({"streams": [{"labels": "{job=\"api\"}", "entries": [
            {"timestamp": "1700000000000000001", "line": "one"},
        ]}]})
    );

    assert_eq!(sink.post(PUSH, &json, V0.as_bytes()).status, 400);
    assert_eq!(
        sink.post("/api/prom/push", &json, V1.as_bytes()).status,
        400
    );
    let gzipped = [("Content-Type", JSON), ("Content-Encoding", "gzip")];
    assert_eq!(sink.post(PUSH, &gzipped, &gzip(V1.as_bytes())).status, 204);
}

#[test]
fn bombs_and_damaged_pushes_get_the_answer_of_loki() {
    let sink = start();
    let bomb = bomb();
    let block = snappy_block(&request().encode_to_vec());
    for (status, content_type, encoding, body) in [
        (413, JSON, "gzip", gzip(&bomb)),
        (413, JSON, "deflate", raw_deflate(&bomb)),
        (413, PROTOBUF, "snappy", snappy_block(&bomb)),
        (413, PROTOBUF, "", bomb),
        (400, PROTOBUF, "deflate", zlib(&block)),
        (400, PROTOBUF, "zstd", zstd(&block)),
        (400, PROTOBUF, "", request().encode_to_vec()),
        (400, PROTOBUF, "", snappy_block(b"\x0a\x7f")),
        (400, JSON, "", b"{\"streams\": [".to_vec()),
        (422, JSON, "", b"{\"streams\": []}".to_vec()),
        (422, PROTOBUF, "", snappy_block(b"")),
    ] {
        let headers = [
            ("Content-Type", content_type),
            ("Content-Encoding", encoding),
        ];
        let answer = sink.post(PUSH, &headers, &body);
        assert_eq!(
            answer.status,
            status,
            "{content_type} {encoding:?} {:?}",
            answer.text()
        );
    }
    let answer = sink.post(
        PUSH,
        &[("Content-Type", JSON)],
        br#"{"streams":[{"stream":{},"values":[["1","a"],[2,"b"]]}]}"#,
    );
    assert!(
        answer.text().starts_with("streams[0].values[1]: want"),
        "{answer:?}"
    );
    assert_eq!(sink.post(PUSH, &[("Content-Type", "")], b"").status, 400);
    let answer = sink.post_bare(PUSH, &[("Content-Type", JSON)], V1.as_bytes());
    assert_eq!((answer.status, answer.text()), (401, "no org id\n"));
    assert!(sink.received("logs").is_empty());
}
