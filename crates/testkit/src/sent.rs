//! What the OpenTelemetry senders in `peers/` send, and how it looks when it has arrived whole: three spans, a counter
//! with two data points, two log records.

use std::collections::BTreeMap;

use model::Signal;
use serde_json::Value;

use crate::{Dev, Received};

/// How the requests of a sender are to arrive.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The resource's `service.name`.
    pub service: &'a str,
    /// `otlp_grpc` or `otlp_http`.
    pub protocol: &'a str,
    /// `Content-Type`.
    pub content_type: &'a str,
    /// `gzip`, or nothing.
    pub content_encoding: Option<&'a str>,
}

impl Expected<'_> {
    /// Waits for all three signals and compares what arrived with what was sent.
    ///
    /// # Panics
    /// When they do not arrive, or differ.
    #[track_caller]
    pub fn arrive_at(&self, dev: &Dev) {
        self.check(&dev.wait_for(Signal::Traces, 3), Signal::Traces);
        self.check(&dev.wait_for(Signal::Metrics, 2), Signal::Metrics);
        self.check(&dev.wait_for(Signal::Logs, 2), Signal::Logs);
    }

    /// Compares `received` with what was sent of `signal`. Several requests, and copies of them, are fine.
    ///
    /// # Panics
    /// When they differ.
    #[track_caller]
    pub fn check(&self, received: &[Received], signal: Signal) {
        for request in received {
            assert_eq!(request.protocol, self.protocol);
            assert_eq!(request.content_type.as_deref(), Some(self.content_type));
            let encoding = request.content_encoding.as_deref();
            assert_eq!(
                encoding.filter(|it| *it != "identity"),
                self.content_encoding
            );
        }
        contents(received, self.service, signal);
    }
}

/// Compares the bodies of `received` with what `service` sends of `signal`, however they came.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn contents(received: &[Received], service: &str, signal: Signal) {
    for request in received {
        let resource = find(&request.body, "resource");
        let services: Vec<_> = resource
            .iter()
            .map(|resource| attributes(resource).remove("service.name"))
            .collect();
        assert_eq!(services, [Some(service.to_owned())], "{:#}", request.body);
    }
    let bodies = received.iter().map(|request| &request.body);
    match signal {
        Signal::Traces => assert_eq!(spans(bodies), want_spans()),
        Signal::Metrics => assert_eq!(points(bodies), want_points()),
        Signal::Logs => assert_eq!(lines(bodies), want_lines()),
        Signal::Profiles => panic!("no sender sends profiles"),
    }
}

/// Name, then number and town of each span.
fn spans<'a>(bodies: impl Iterator<Item = &'a Value>) -> BTreeMap<String, (String, String)> {
    let spans = bodies.flat_map(|body| find(body, "spans"));
    let spans = spans.filter_map(Value::as_array).flatten();
    spans
        .map(|span| {
            let mut attributes = attributes(span);
            let mut take = |name| attributes.remove(name).unwrap_or_default();
            (text(&span["name"]), (take("n"), take("town")))
        })
        .collect()
}

fn want_spans() -> BTreeMap<String, (String, String)> {
    (0..3)
        .map(|n| (format!("checkout {n}"), (n.to_string(), "Köln".to_owned())))
        .collect()
}

/// Metric and shop, then the value of each data point.
fn points<'a>(bodies: impl Iterator<Item = &'a Value>) -> BTreeMap<(String, String), String> {
    let metrics = bodies.flat_map(|body| find(body, "metrics"));
    let metrics = metrics.filter_map(Value::as_array).flatten();
    let points = metrics.flat_map(|metric| {
        let points = find(metric, "dataPoints");
        let points = points.into_iter().filter_map(Value::as_array).flatten();
        points.map(|point| {
            let shop = attributes(point).remove("shop").unwrap_or_default();
            let value = if point["asInt"].is_null() {
                &point["asDouble"]
            } else {
                &point["asInt"]
            };
            ((text(&metric["name"]), shop), text(value))
        })
    });
    points.collect()
}

fn want_points() -> BTreeMap<(String, String), String> {
    [("north", "5"), ("south", "7")]
        .map(|(shop, value)| (("orders".to_owned(), shop.to_owned()), value.to_owned()))
        .into()
}

/// Severity and body of each log record, sorted, without copies.
fn lines<'a>(bodies: impl Iterator<Item = &'a Value>) -> Vec<(String, String)> {
    let records = bodies.flat_map(|body| find(body, "logRecords"));
    let records = records.filter_map(Value::as_array).flatten();
    let mut lines: Vec<_> = records
        .map(|record| (text(&record["severityText"]), any_value(&record["body"])))
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn want_lines() -> Vec<(String, String)> {
    (0..2)
        .map(|n| {
            (
                "ERROR".to_owned(),
                format!("order {n} failed: Zahlung ungültig"),
            )
        })
        .collect()
}

/// Every value under `name`, at any depth.
fn find<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| find(item, name)).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(field, value)| {
                if field == name {
                    vec![value]
                } else {
                    find(value, name)
                }
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The attributes of a resource, span or data point, as text.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let attributes = of["attributes"].as_array().into_iter().flatten();
    attributes
        .map(|attribute| (text(&attribute["key"]), any_value(&attribute["value"])))
        .collect()
}

/// The content of an OTLP `AnyValue`, as text.
fn any_value(value: &Value) -> String {
    let content = value.as_object().and_then(|fields| fields.values().next());
    content.map_or_else(String::new, text)
}

/// Texts without their quotes; whole numbers without a fraction, because senders differ in `5` and `5.0`.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string().trim_end_matches(".0").to_owned(),
    }
}
