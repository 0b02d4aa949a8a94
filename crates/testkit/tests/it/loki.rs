//! Loki push: JSON of both schemas by python-logging-loki, protobuf by winston-loki.

use std::time::Duration;

use model::Signal;
use testkit::{Dev, Finished, Process, Received, peers};

const RUN_MAX: Duration = Duration::from_mins(1);

fn python(dev: &Dev, path: &str, user: &str, key: &str, version: &str) -> Finished {
    let mut command = peers::python("loki_send.py");
    let url = format!("{}{path}", dev.ready.api);
    command.args([&url, user, key, version]);
    Process::spawn("loki_send.py", command).wait(RUN_MAX)
}

fn javascript(dev: &Dev, key: &str) -> Finished {
    let mut command = peers::node("loki_send.js");
    command.args([&dev.ready.api, key]);
    Process::spawn("loki_send.js", command).wait(RUN_MAX)
}

/// Labels and lines, oldest first, of what both programs send.
fn lines_under(app: &str, received: &[Received]) {
    let mut lines = Vec::new();
    for request in received.iter().rev() {
        assert_eq!(request.protocol, "loki");
        for stream in request.body["streams"].as_array().unwrap() {
            let labels = stream["labels"].as_str().unwrap();
            assert!(labels.contains(&format!("app=\"{app}\"")), "{labels}");
            assert!(labels.contains("error"), "{labels}");
            for entry in stream["entries"].as_array().unwrap() {
                let nanoseconds = entry["timestamp"].as_str().unwrap();
                assert_eq!(nanoseconds.len(), 19, "a time of today: {nanoseconds}");
                lines.push(entry["line"].as_str().unwrap().to_owned());
            }
        }
    }
    let want = [0, 1].map(|n| format!("order {n} failed: Zahlung ungültig"));
    assert_eq!(lines, want);
}

#[test]
fn lines_pushed_as_json_arrive_under_the_tenant_of_the_key() {
    let dev = Dev::start();
    let Dev { ready, .. } = &dev;
    python(&dev, "/loki/api/v1/push", &ready.tenant, &ready.key, "1").succeeded();
    let received = dev.wait_for(Signal::Logs, 2);
    lines_under("okmon-python", &received);
    for request in &received {
        assert_eq!(request.content_type.as_deref(), Some("application/json"));
    }
}

#[test]
fn lines_pushed_as_legacy_json_arrive_and_any_user_name_will_do() {
    let dev = Dev::start();
    python(&dev, "/api/prom/push", "", &dev.ready.key, "0").succeeded();
    lines_under("okmon-python", &dev.wait_for(Signal::Logs, 2));
}

#[test]
fn lines_pushed_as_protobuf_with_snappy_arrive_in_one_batch() {
    let dev = Dev::start();
    javascript(&dev, &dev.ready.key).succeeded();
    let received = dev.wait_for(Signal::Logs, 2);
    lines_under("okmon-js", &received);
    let [request] = &received[..] else {
        panic!("want one request: {received:#?}");
    };
    assert_eq!(
        request.content_type.as_deref(),
        Some("application/x-protobuf")
    );
}

#[test]
fn with_an_unknown_key_the_loki_clients_report_failure_and_nothing_arrives() {
    let dev = Dev::start();
    let key = Dev::unknown_key();
    let finished = python(&dev, "/loki/api/v1/push", "demo", &key, "1");
    assert!(finished.failed().stderr.contains("401"), "{finished:#?}");
    let finished = javascript(&dev, &key);
    assert!(finished.failed().stderr.contains("401"), "{finished:#?}");
    dev.sink_is_empty();
}
