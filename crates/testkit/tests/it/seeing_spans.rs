//! Spans of the edge itself, read back where a real Collector sent them to, and where another edge did.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Signal;
use serde_json::Value;
use testkit::control::id_of;
use testkit::edge::{Edge, Settings, agent};
use testkit::key_rows::fresh_key;
use testkit::{Dev, eventually, peers};

use crate::collector::Collector;
use crate::world::{World, answers_soon};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Posts a log record that is part of somebody's trace: status and request id.
fn ask(edge: &Edge, key: &str) -> (u16, String) {
    let request = agent()
        .post(format!("{}/v1/logs", edge.url()))
        .header("authorization", format!("Bearer {key}"))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    let answer = request.content_type("application/json").send("{}").unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap();
    (answer.status().as_u16(), id.to_owned())
}

/// The spans of the edge that reached the sink, by the ids of their requests, with their attributes as texts.
fn spans(dev: &Dev) -> BTreeMap<String, (Value, BTreeMap<String, String>)> {
    let mut found = BTreeMap::new();
    for received in dev.received(Signal::Traces) {
        for resource in received.body["resourceSpans"].as_array().unwrap() {
            let name = &resource["resource"]["attributes"];
            assert!(name.to_string().contains("okmon-edge"), "{name}");
            let scopes = resource["scopeSpans"].as_array().unwrap().iter();
            for span in scopes.flat_map(|scope| scope["spans"].as_array().unwrap()) {
                let attributes = span["attributes"].as_array().unwrap().iter();
                let attributes: BTreeMap<_, _> = attributes
                    .map(|attribute| {
                        let value = &attribute["value"];
                        let text = value["stringValue"].as_str().or(value["intValue"].as_str());
                        let text = text.map_or_else(|| value.to_string(), str::to_owned);
                        (attribute["key"].as_str().unwrap().to_owned(), text)
                    })
                    .collect();
                let id = attributes["okmon.request.id"].clone();
                found.insert(id, (span.clone(), attributes));
            }
        }
    }
    found
}

fn nanos(span: &Value, name: &str) -> u128 {
    let text = span[name].as_str().map(str::to_owned);
    text.unwrap_or_else(|| span[name].to_string())
        .parse()
        .unwrap()
}

#[test]
fn spans_reach_a_collector_and_tell_of_each_request_what_the_log_does() {
    let dev = Dev::start();
    let collector = Collector::start(
        "crates/testkit/peers/collector/sender.yaml",
        &[
            ("OKMON_OTLP_GRPC", &dev.ready.otlp_grpc),
            ("OKMON_OTLP_HTTP", &dev.ready.otlp_http),
            ("OKMON_KEY", &dev.ready.key),
        ],
    );
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(Settings {
        sections: format!("[spans]\nendpoint = \"{}\"\none_in = 1", collector.grpc),
        ..world.settings()
    });
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "made");
    let (status, accepted) = ask(&edge, &key);
    assert_eq!(status, 200);
    let unknown = fresh_key().reveal().to_owned();
    let (status, refused) = ask(&edge, &unknown);
    assert_eq!(status, 401);
    // What waits is sent at the end.
    edge.stop();
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let spans = eventually(SOON, "both spans", || {
        let spans = spans(&dev);
        let both = spans.contains_key(&accepted) && spans.contains_key(&refused);
        if both {
            Ok(spans)
        } else {
            Err(format!(
                "{spans:#?} {} {}",
                edge.output(),
                collector.process.stderr()
            ))
        }
    });

    let (span, attributes) = &spans[&accepted];
    let (key_id, unknown_id) = (id_of(&key), id_of(&unknown));
    let expected = [
        ("client.address", "127.0.0.1"),
        ("http.response.status_code", "200"),
        ("okmon.key.id", &key_id),
        ("okmon.listener", "all"),
        ("okmon.outcome", "accepted"),
        ("okmon.protocol", "otlp_http"),
        ("okmon.received_bytes", "2"),
        ("okmon.request.id", &accepted),
        ("okmon.signal", "logs"),
        ("okmon.tenant", "acme"),
        ("okmon.upstream", "next"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(*attributes, BTreeMap::from(expected));
    assert_eq!(span["name"], "otlp_http logs");
    assert_eq!(span["kind"], 2, "a server's");
    // The trace is the edge's own; the sender's is linked to.
    assert_ne!(span["traceId"], TRACE);
    let parent = span["parentSpanId"].as_str().unwrap_or_default();
    assert_eq!(parent, "");
    assert_eq!(span["links"][0]["traceId"], TRACE);
    assert_eq!(span["links"][0]["spanId"], PARENT);
    let (start, end) = (
        nanos(span, "startTimeUnixNano"),
        nanos(span, "endTimeUnixNano"),
    );
    assert!(
        before.as_nanos() <= start && start < end && end <= after.as_nanos(),
        "{span}"
    );

    let (span, attributes) = &spans[&refused];
    assert_eq!(attributes["okmon.cause"], "unknown_key");
    assert_eq!(attributes["okmon.key.id"], unknown_id);
    assert!(!attributes.contains_key("okmon.tenant"));
    // The sender's fault is no error of the server's.
    assert_eq!(
        span["status"]["code"].as_u64().unwrap_or_default(),
        0,
        "{span}"
    );
}

#[test]
fn spans_reach_an_edge_with_a_key_from_a_file_and_as_many_as_are_chosen() {
    const REQUESTS: usize = 400;
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    std::fs::write(
        &headers,
        format!("authorization: Bearer {}\n", dev.ready.key),
    )
    .unwrap();
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(Settings {
        sections: format!(
            "[spans]\nendpoint = \"{}\"\none_in = 10\nheaders_file = \"{}\"",
            dev.ready.otlp_grpc,
            headers.display()
        ),
        ..world.settings()
    });
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "made");
    for _ in 0..REQUESTS {
        assert_eq!(edge.post(&key), Ok(200));
    }
    edge.stop();
    let exported = eventually(SOON, "spans", || match spans(&dev).len() {
        0 => Err("none"),
        n => Ok(n),
    });
    // One in ten, by chance: 40, and hardly ever out of this.
    assert!((10..100).contains(&exported), "{exported}");
    for received in dev.received(Signal::Traces) {
        received.belongs_only_to(&dev.ready.tenant, &dev.ready.key);
    }
}

#[test]
fn spans_that_nobody_takes_hold_nothing_up_and_are_counted() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(Settings {
        sections: format!(
            "[spans]\nendpoint = \"http://127.0.0.1:{}\"\none_in = 1",
            peers::free_port()
        ),
        ..world.settings()
    });
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "made");
    eventually(SOON, "dropped spans", || {
        assert_eq!(edge.post(&key), Ok(200));
        let dropped = edge.metric("okmon_edge_spans_dropped_total");
        (dropped > 0.0).then_some(()).ok_or(dropped)
    });
    let finished = edge.stop();
    finished.succeeded();
    assert!(edge.output().contains("spans could not be exported"));
}
