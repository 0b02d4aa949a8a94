//! curl: by hand as the API is documented, and by the README's own lines.

use std::fs;
use std::process::Command;
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

/// Every shell block of the README that has a curl in it is run as it stands, except that the default ports become those
/// of this test. The key is in `OKMON_KEY`, as the README tells to set it.
#[test]
fn the_curl_lines_of_the_readme_work_as_they_stand() {
    let readme = fs::read_to_string(peers::root().join("README.md")).expect("README.md");
    let blocks: Vec<_> = readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block))
        .filter(|block| block.contains("curl "))
        .collect();
    assert!(
        !blocks.is_empty(),
        "README.md has no ```sh block with a curl in it"
    );
    for block in blocks {
        let dev = Dev::start();
        let finished = shell(&on_ports_of(&dev, block), &dev);
        finished.succeeded();
        let arrived = [
            ("/v1/traces", Signal::Traces),
            ("/v1/metrics", Signal::Metrics),
            ("/v1/logs", Signal::Logs),
            ("/loki/api/v1/push", Signal::Logs),
        ];
        for (path, signal) in arrived.into_iter().filter(|(path, _)| block.contains(path)) {
            assert!(!dev.wait_for(signal, 1).is_empty(), "{path}: {finished:#?}");
        }
    }
}

/// `block` with the ports of `dev`.
fn on_ports_of(dev: &Dev, block: &str) -> String {
    let ready = &dev.ready;
    let ports = [
        (":4317", &ready.otlp_grpc),
        (":4318", &ready.otlp_http),
        (":8080", &ready.api),
        (":9602", &ready.sink),
    ];
    ports
        .into_iter()
        .fold(block.to_owned(), |block, (port, url)| {
            let actual = url.rsplit_once(':').map_or("", |(_, port)| port);
            block.replace(port, &format!(":{actual}"))
        })
}

/// Runs `script`; curl itself is told to fail on a refusal.
fn shell(script: &str, dev: &Dev) -> Finished {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".curlrc"), "fail-with-body\n").unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-euc", script])
        .env("HOME", home.path())
        .env("OKMON_KEY", &dev.ready.key);
    Process::spawn("a block of README.md", command).wait(RUN_MAX)
}
