//! Remote write by Prometheus, and by vmagent, with every form of credential.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use model::Signal;
use testkit::{Dev, Process, Received, eventually, peers};

use crate::documents::readme_block;

const START_MAX: Duration = Duration::from_secs(30);

/// Scrapes itself once a second; only its own build and what the scrape says go out.
fn config(port: u16, remote_write: &str) -> String {
    format!(
        "global:
  scrape_interval: 1s
  external_labels: {{ cluster: north }}
scrape_configs:
  - job_name: self
    static_configs:
      - targets: ['127.0.0.1:{port}']
    metric_relabel_configs:
      - source_labels: [__name__]
        regex: prometheus_build_info|vm_app_version
        action: keep
{remote_write}"
    )
}

fn prometheus(folder: &Path, remote_write: &str) -> Process {
    let port = peers::free_port();
    let file = folder.join("prometheus.yml");
    fs::write(&file, config(port, remote_write)).unwrap();
    let mut command = peers::program("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Process::spawn("prometheus", command)
}

fn remote_write(dev: &Dev, credential: &str) -> String {
    format!(
        "remote_write:
  - url: {}/api/v1/push
    {credential}
    queue_config: {{ batch_send_deadline: 1s }}
",
        dev.ready.api
    )
}

/// Every sample with its labels has arrived: the program's own metric, and `up` of its scrape with the value 1.
fn samples_arrived(dev: &Dev, metric: &str, sender: &mut Process) -> Vec<Received> {
    let (tenant, key) = (&dev.ready.tenant, &dev.ready.key);
    let what = format!("samples of {metric} and up");
    let received = eventually(START_MAX, &what, || {
        let received = dev.received(Signal::Metrics);
        let found = [metric, "up"].map(|name| has_series(&received, name));
        if found == [true, true] {
            Ok(received)
        } else {
            let state = format!(
                "found {found:?}, {} requests; {}",
                received.len(),
                sender.stderr()
            );
            Err(state)
        }
    });
    for request in &received {
        request.belongs_only_to(tenant, key);
        assert_eq!(request.protocol, "remote_write");
        assert_eq!(request.content_encoding.as_deref(), Some("snappy"));
    }
    received
}

/// A series of that name and this scrape, with the value 1.
fn has_series(received: &[Received], name: &str) -> bool {
    let labels = [("__name__", name), ("job", "self"), ("cluster", "north")];
    has_sample(received, &labels, 1.0)
}

/// A sample of that value at a time of today, in a series with at least these labels.
fn has_sample(received: &[Received], labels: &[(&str, &str)], value: f64) -> bool {
    let series = received
        .iter()
        .filter_map(|request| request.body["timeseries"].as_array())
        .flatten();
    let mut matching = series.filter(|series| {
        labels
            .iter()
            .all(|(label, value)| series["labels"][label] == *value)
    });
    matching.any(|series| {
        let samples = series["samples"].as_array();
        samples.into_iter().flatten().any(|sample| {
            sample["value"].as_f64() == Some(value)
                && sample["timestamp"]
                    .as_i64()
                    .is_some_and(|ms| ms > 1_700_000_000_000)
        })
    })
}

fn arrives_with(credential: impl FnOnce(&Dev) -> String) {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let credential = credential(&dev);
    let mut prometheus = prometheus(folder.path(), &remote_write(&dev, &credential));
    let received = samples_arrived(&dev, "prometheus_build_info", &mut prometheus);
    let version = received[0].header("x-prometheus-remote-write-version");
    assert_eq!(version, Some("0.1.0"));
}

#[test]
fn what_prometheus_writes_with_a_bearer_token_arrives_under_the_tenant_of_the_key() {
    arrives_with(|dev| format!("authorization: {{ credentials: {} }}", dev.ready.key));
}

#[test]
fn what_prometheus_writes_with_basic_auth_arrives_under_the_tenant_of_the_key() {
    arrives_with(|dev| {
        let (tenant, key) = (&dev.ready.tenant, &dev.ready.key);
        format!("basic_auth: {{ username: {tenant}, password: {key} }}")
    });
}

#[test]
fn the_prometheus_settings_of_the_readme_work_as_they_stand() {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let settings = readme_block("yaml", "remote_write", &dev);
    let mut prometheus = prometheus(folder.path(), &settings);
    samples_arrived(&dev, "prometheus_build_info", &mut prometheus);
}

#[test]
fn with_an_unknown_key_prometheus_drops_the_samples_and_nothing_arrives() {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let credential = format!("authorization: {{ credentials: {} }}", Dev::unknown_key());
    let mut prometheus = prometheus(folder.path(), &remote_write(&dev, &credential));
    prometheus.wait_until(START_MAX, "report a final 401", |prometheus| {
        let stderr = prometheus.stderr();
        (stderr.contains("non-recoverable error") && stderr.contains("401")).then_some(())
    });
    dev.sink_is_empty();
}

/// Starts vmagent with `credential` as its flag.
fn vmagent(folder: &Path, dev: &Dev, credential: &str) -> Process {
    let port = peers::free_port();
    let file = folder.join("vmagent.yml");
    fs::write(&file, config(port, "")).unwrap();
    let mut command = peers::program("vmagent");
    command
        .arg(format!("-promscrape.config={}", file.display()))
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .arg(format!("-remoteWrite.url={}/api/v1/write", dev.ready.api))
        .arg(format!(
            "-remoteWrite.tmpDataPath={}",
            folder.join("queue").display()
        ))
        .arg(credential);
    Process::spawn("vmagent", command)
}

#[test]
fn what_vmagent_writes_with_a_bearer_token_arrives_under_the_tenant_of_the_key() {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let credential = format!("-remoteWrite.bearerToken={}", dev.ready.key);
    let mut vmagent = vmagent(folder.path(), &dev, &credential);
    samples_arrived(&dev, "vm_app_version", &mut vmagent);
}

/// A current Prometheus that writes two series as `message`, with the key in a header of its own.
fn current_prometheus_writes(message: &str, version: &str) {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    let key = &dev.ready.key;
    let mut config = remote_write(&dev, &format!("headers: {{ X-API-Key: {key} }}"));
    writeln!(config, "    protobuf_message: {message}").unwrap();
    fs::write(&file, config).unwrap();
    let command = peers::prometheus(&file, &folder.path().join("data"));
    let prometheus = Process::spawn("okmon-prometheus", command);

    let received = eventually(START_MAX, "orders of both shops", || {
        let received = dev.received(Signal::Metrics);
        let sent = [("north", 5.0), ("south", 7.0)];
        let arrived = sent.iter().all(|(shop, value)| {
            let labels = [("__name__", "orders"), ("shop", *shop)];
            has_sample(&received, &labels, *value)
        });
        if arrived && received.len() > 1 {
            Ok(received)
        } else {
            Err(format!("{received:?}; {}", prometheus.stderr()))
        }
    });
    for request in &received {
        request.belongs_only_to(&dev.ready.tenant, key);
        let seen = request.header("x-prometheus-remote-write-version");
        assert_eq!(seen, Some(version));
    }
    // An answer whose counts of what was written are lost is an error to a sender of version 2.
    let stderr = prometheus.stderr();
    assert!(!stderr.contains("level=ERROR"), "{stderr}");
}

#[test]
fn what_a_current_prometheus_writes_in_version_1_with_a_header_of_its_own_arrives() {
    current_prometheus_writes("prometheus.WriteRequest", "0.1.0");
}

#[test]
fn what_a_current_prometheus_writes_in_version_2_arrives_and_its_answer_tells_how_much() {
    current_prometheus_writes("io.prometheus.write.v2.Request", "2.0.0");
}

#[test]
fn what_vmagent_writes_with_a_header_of_its_own_arrives_under_the_tenant_of_the_key() {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    let credential = format!("-remoteWrite.headers=X-API-Key: {}", dev.ready.key);
    let mut vmagent = vmagent(folder.path(), &dev, &credential);
    samples_arrived(&dev, "vm_app_version", &mut vmagent);
}
