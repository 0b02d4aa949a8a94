//! The sink's own API: what was received can be read back, limited and cleared.

use model::{Signal, TenantId};
use serde_json::{Value, json};

use super::sink_harness::*;
use super::sink_otlp;

const LOKI: &str = "/loki/api/v1/push";

fn push(sink: &Running, tenant: &str, line: &str) {
    let body = json!({"streams": [{"stream": {}, "values": [["1", line]]}]}).to_string();
    let headers = [("X-Scope-OrgID", tenant), ("Content-Type", JSON)];
    assert_eq!(sink.post_bare(LOKI, &headers, body.as_bytes()).status, 204);
}

fn lines(entries: &Value) -> Vec<&str> {
    let entries = entries.as_array().unwrap().iter();
    entries
        .map(|entry| {
            entry["body"]["streams"][0]["entries"][0]["line"]
                .as_str()
                .unwrap()
        })
        .collect()
}

#[test]
fn tenants_are_listed_with_counts_read_newest_first_and_cleared() {
    let sink = start();
    for line in ["one", "two", "three"] {
        push(&sink, "demo", line);
    }
    push(&sink, "other", "four");

    let list = sink.get("/api/tenants").json();
    assert_eq!(
        (&list[0]["id"], &list[1]["id"]),
        (&json!("demo"), &json!("other"))
    );
    assert_eq!(
        list[0]["signals"]["logs"],
        json!({"requests": 3, "items": 3, "kept_items": 3})
    );
    assert_eq!(
        list[0]["signals"]["traces"],
        json!({"requests": 0, "items": 0, "kept_items": 0})
    );

    let all = sink.get("/api/tenants/demo/logs").json();
    assert_eq!(lines(&all), ["three", "two", "one"]);
    let two = sink.get("/api/tenants/demo/logs?limit=2").json();
    assert_eq!(lines(&two), ["three", "two"]);

    assert_eq!(sink.delete("/api/tenants/demo").status, 204);
    assert_eq!(sink.get("/api/tenants/demo/logs").json(), json!([]));
    assert_eq!(sink.get("/api/tenants").json()[0]["id"], "other");
}

#[test]
fn every_header_is_shown_and_the_first_tenant_wins_over_http() {
    let sink = start();
    let headers = [
        ("Content-Type", JSON),
        ("X-Scope-OrgID", "second"),
        ("X-Odd", "a"),
        ("X-Odd", "b"),
    ];
    let body = serde_json::to_vec(&sink_otlp::traces()).unwrap();
    assert_eq!(sink.post("/v1/traces", &headers, &body).status, 200);

    let entry = sink.newest("traces");
    assert_eq!(entry["tenant"], "demo");
    assert_eq!(entry["tenant_header"], json!(["demo", "second"]));
    let headers = entry["headers"].as_array().unwrap();
    for header in [
        ["x-scope-orgid", "second"],
        ["x-odd", "a"],
        ["x-odd", "b"],
        ["content-type", JSON],
    ] {
        assert!(
            headers.contains(&json!(header)),
            "{header:?} is not in {headers:?}"
        );
    }
    let received_at = entry["received_at"].as_str().unwrap();
    assert!(
        received_at.starts_with("20") && received_at.ends_with('Z'),
        "{received_at}"
    );
}

#[test]
fn the_handle_shows_what_the_api_shows() {
    let sink = start();
    push(&sink, "demo", "one");
    let demo = TenantId::parse("demo").unwrap();
    let received = sink.sink.received(&demo, Signal::Logs, usize::MAX);
    assert_eq!(
        serde_json::to_value(&received).unwrap(),
        Value::from(sink.received("logs"))
    );
}

#[test]
fn what_does_not_exist_is_404_with_the_fix() {
    let sink = start();
    assert_eq!(sink.get("/api/tenants/nobody/logs").json(), json!([]));
    let answer = sink.get("/api/tenants/demo/spans");
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json()["error"],
        "no such signal: use traces, metrics, logs or profiles"
    );
    assert_eq!(sink.get("/api/tenants/a%7Cb/logs").status, 404);
    assert_eq!(sink.get("/api/tenants/demo/logs?limit=many").status, 400);
    assert_eq!(sink.get("/elsewhere").text(), "/elsewhere not found\n");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = start().get("/");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.text().contains(outside), "the page has {outside:?}");
    }
}

#[test]
fn the_sink_stops_although_a_connection_is_idle() {
    let sink = start();
    assert_eq!(sink.get("/api/tenants").status, 200);
    let stopped = sink.stop();
    assert!(stopped.is_ok(), "{stopped:?}");
}
