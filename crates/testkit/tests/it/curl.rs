//! curl: by hand, as the API is documented.

use std::time::Duration;

use model::Signal;
use testkit::{Dev, Finished, Process, peers};

const RUN_MAX: Duration = Duration::from_mins(1);

const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{
  "traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"by hand","kind":2,
  "startTimeUnixNano":"1763800000000000000","endTimeUnixNano":"1763800001000000000"}]}]}]}"#;

/// Runs curl; its output is the status, the answer's headers and its body.
fn curl(arguments: &[&str]) -> Finished {
    let mut command = peers::program("curl");
    command
        .args(["--silent", "--show-error", "--include"])
        .args(arguments);
    Process::spawn("curl", command).wait(RUN_MAX)
}

/// Posts a span with these further arguments.
fn span_arrives(dev: &Dev, arguments: &[&str]) {
    let url = format!("{}/v1/traces", dev.ready.otlp_http);
    let json = "Content-Type: application/json";
    let mut all = vec!["-H", json, "--data-binary", SPAN, &url];
    all.extend(arguments);
    let finished = curl(&all);
    let status = finished
        .succeeded()
        .stdout
        .lines()
        .next()
        .unwrap_or_default();
    assert!(status.contains(" 200"), "{finished:#?}");
    let head = finished.stdout.to_lowercase();
    assert!(head.contains("\nx-request-id: "), "{finished:#?}");
    let received = dev.wait_for(Signal::Traces, 1);
    let name = &received[0].body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"];
    assert_eq!(name, "by hand");
}

#[test]
fn a_span_posted_by_hand_arrives_with_every_form_of_credential() {
    let dev = Dev::start();
    let (tenant, key) = (&dev.ready.tenant, &dev.ready.key);
    span_arrives(&dev, &["-H", &format!("Authorization: Bearer {key}")]);
    span_arrives(&dev, &["-H", &format!("authorization: bearer {key}")]);
    span_arrives(&dev, &["-H", &format!("x-api-key: {key}")]);
    span_arrives(&dev, &["--user", &format!("{tenant}:{key}")]);
    span_arrives(&dev, &["--user", &format!(":{key}")]);
    assert_eq!(dev.received(Signal::Traces).len(), 5);
}

#[test]
fn a_span_posted_by_hand_arrives_over_http_1_and_http_2() {
    let dev = Dev::start();
    let key = format!("X-API-Key: {}", dev.ready.key);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        span_arrives(&dev, &[version, "-H", &key]);
    }
    span_arrives(&dev, &["-H", &key, "-H", "Transfer-Encoding: chunked"]);
    assert_eq!(dev.received(Signal::Traces).len(), 3);
}

#[test]
fn with_an_unknown_key_curl_gets_a_401_that_says_why_in_json_and_nothing_arrives() {
    let dev = Dev::start();
    let url = format!("{}/v1/traces", dev.ready.otlp_http);
    let key = format!("X-API-Key: {}", Dev::unknown_key());
    let json = "Content-Type: application/json";
    let finished = curl(&["-H", json, "-H", &key, "--data-binary", SPAN, &url]);
    let answer = &finished.succeeded().stdout;
    assert!(answer.contains(" 401 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(
        status["message"]
            .as_str()
            .is_some_and(|text| text.contains("key")),
        "{status}"
    );
    dev.sink_is_empty();
}
