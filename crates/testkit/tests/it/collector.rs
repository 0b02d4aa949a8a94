//! The OpenTelemetry Collector as a sender in front of the edge, and as the upstream behind it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use model::Signal;
use testkit::sent::{Expected, contents};
use testkit::{Dev, Process, Received, eventually, okmon, peers};

const START_MAX: Duration = Duration::from_secs(30);
const RUN_MAX: Duration = Duration::from_mins(1);
const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

/// A running collector that takes OTLP/gRPC and OTLP/HTTP.
pub(crate) struct Collector {
    pub(crate) grpc: String,
    http: String,
    pub(crate) process: Process,
}

impl Collector {
    pub(crate) fn start(config: &str, environment: &[(&str, &str)]) -> Self {
        let (grpc, http) = (peers::free_port(), peers::free_port());
        let mut command = peers::collector(config);
        command
            .env("OTELCOL_GRPC", format!("127.0.0.1:{grpc}"))
            .env("OTELCOL_HTTP", format!("127.0.0.1:{http}"))
            .env("OTELCOL_METRICS_LEVEL", "none")
            .envs(environment.iter().copied());
        let mut process = Process::spawn("okmon-collector", command);
        process.wait_until(START_MAX, "be ready", |process| {
            process
                .stderr()
                .contains("Everything is ready")
                .then_some(())
        });
        Self {
            grpc: format!("http://127.0.0.1:{grpc}"),
            http: format!("http://127.0.0.1:{http}"),
            process,
        }
    }

    /// The collector of `config/otel-collector/`, with the sink of `dev` for all three backends.
    fn before_the_sink(dev: &Dev) -> Self {
        let otlp = format!("{}/otlp", dev.ready.sink);
        Self::start(
            "config/otel-collector/config.yaml",
            &[
                ("MIMIR_OTLP", &otlp),
                ("LOKI_OTLP", &otlp),
                ("TEMPO_OTLP", &dev.ready.sink),
            ],
        )
    }
}

fn send(mut sender: Command, protocol: &str, endpoint: &str, headers: &str) {
    sender
        .arg(protocol)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_HEADERS", headers);
    Process::spawn("otel_send", sender)
        .wait(RUN_MAX)
        .succeeded();
}

#[test]
fn what_a_collector_in_front_sends_over_grpc_and_http_arrives_under_the_tenant_of_the_key() {
    let dev = Dev::start();
    let collector = Collector::start(
        "crates/testkit/peers/collector/sender.yaml",
        &[
            ("OKMON_OTLP_GRPC", &dev.ready.otlp_grpc),
            ("OKMON_OTLP_HTTP", &dev.ready.otlp_http),
            ("OKMON_KEY", &dev.ready.key),
        ],
    );
    send(peers::python("otel_send.py"), "grpc", &collector.grpc, "");
    for (signal, sent) in SIGNALS.into_iter().zip([3, 2, 2]) {
        let received = dev.wait_for(signal, 2 * sent);
        let (grpc, http): (Vec<_>, Vec<_>) = received
            .into_iter()
            .partition(|request| request.protocol == "otlp_grpc");
        let expected = Expected {
            service: "okmon-python",
            protocol: "otlp_grpc",
            content_type: "application/grpc",
            content_encoding: Some("gzip"),
        };
        expected.check(&grpc, signal);
        let expected = Expected {
            protocol: "otlp_http",
            content_type: "application/x-protobuf",
            ..expected
        };
        expected.check(&http, signal);
    }
}

#[test]
fn with_an_unknown_key_the_collector_in_front_drops_the_data_and_nothing_arrives() {
    let dev = Dev::start();
    let mut collector = Collector::start(
        "crates/testkit/peers/collector/sender.yaml",
        &[
            ("OKMON_OTLP_GRPC", &dev.ready.otlp_grpc),
            ("OKMON_OTLP_HTTP", &dev.ready.otlp_http),
            ("OKMON_KEY", &Dev::unknown_key()),
        ],
    );
    send(peers::node("otel_send.js"), "proto", &collector.http, "");
    let what = "drop three signals at both exporters";
    collector.process.wait_until(RUN_MAX, what, |process| {
        let stderr = process.stderr();
        let dropped = stderr
            .lines()
            .filter(|line| line.contains("Dropping data"))
            .count();
        assert!(!stderr.contains("Will retry"), "{stderr}");
        (dropped == 6).then_some(())
    });
    assert!(collector.process.stderr().contains("Unauthenticated"));
    dev.sink_is_empty();
}

#[test]
fn the_collector_behind_keeps_tenants_apart_in_batches_and_backends() {
    let dev = Dev::start();
    let collector = Collector::before_the_sink(&dev);
    let tenants = [
        (
            "north-1",
            "okmon-python",
            peers::python("otel_send.py"),
            "grpc",
            &collector.grpc,
        ),
        (
            "south-2",
            "okmon-js",
            peers::node("otel_send.js"),
            "proto",
            &collector.http,
        ),
    ];
    let wanted = tenants
        .each_ref()
        .map(|(tenant, service, ..)| (*tenant, *service));
    // At the same time, so that one batch could hold both.
    std::thread::scope(|scope| {
        for (tenant, _, sender, protocol, endpoint) in tenants {
            let headers = format!("X-Scope-OrgID={tenant}");
            scope.spawn(move || send(sender, protocol, endpoint, &headers));
        }
    });
    for (tenant, service) in wanted {
        for (signal, sent) in SIGNALS.into_iter().zip([3, 2, 2]) {
            let received = wait_for_tenant(&dev, tenant, signal, sent);
            for request in &received {
                assert_eq!(request.tenant_header, [tenant]);
                let protocol = if signal == Signal::Traces {
                    "otlp_grpc"
                } else {
                    "otlp_http"
                };
                assert_eq!(
                    request.protocol, protocol,
                    "what the backend of {signal} speaks"
                );
            }
            contents(&received, service, signal);
        }
    }
}

/// An edge of its own, with the keys of `dev` and the collector as the upstream of every OTLP route.
fn edge_before(collector: &Collector, database_url: &str, folder: &Path) -> (Process, String) {
    let (port, ops) = (peers::free_port(), peers::free_port());
    let signals = |upstream: &str| {
        let lines = SIGNALS.map(|signal| format!("{signal} = \"{upstream}\"\n"));
        lines.concat()
    };
    let config = format!(
        "[listeners.all]
address = \"127.0.0.1:{port}\"
[ops]
address = \"127.0.0.1:{ops}\"
[database]
url = \"{database_url}\"
[keys]
snapshot_file = \"\"
[upstreams.collector_grpc]
url = \"{}\"
speaks = \"grpc\"
[upstreams.collector_http]
url = \"{}\"
[routes.otlp_grpc]
{}[routes.otlp_http]
{}",
        collector.grpc,
        collector.http,
        signals("collector_grpc"),
        signals("collector_http"),
    );
    let file = folder.join("edge.toml");
    fs::write(&file, config).unwrap();
    let mut command = okmon();
    command.args(["edge", "--config"]).arg(&file);
    let mut edge = Process::spawn("okmon edge", command);
    let ready = format!("http://127.0.0.1:{ops}/readyz");
    edge.wait_until(START_MAX, "be ready", |_| ureq::get(&ready).call().ok());
    (edge, format!("http://127.0.0.1:{port}"))
}

#[test]
fn through_the_edge_and_the_collector_each_tenant_gets_all_of_its_own_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite://{}", folder.path().join("keys.db").display());
    let dev = Dev::start_with(&["--database-url", &database_url]);
    let other_key = dev.create_tenant("other");
    let collector = Collector::before_the_sink(&dev);
    let (_edge, endpoint) = edge_before(&collector, &database_url, folder.path());
    let tenants = [
        (&dev.ready.tenant[..], &dev.ready.key, "okmon-python"),
        ("other", &other_key, "okmon-js"),
    ];
    let header = |key: &str| format!("Authorization=Bearer%20{key}");
    let (python, js) = (peers::python("otel_send.py"), peers::node("otel_send.js"));
    std::thread::scope(|scope| {
        scope.spawn(|| send(python, "grpc", &endpoint, &header(&dev.ready.key)));
        scope.spawn(|| send(js, "http", &endpoint, &header(&other_key)));
    });
    for (tenant, key, service) in tenants {
        for (signal, sent) in SIGNALS.into_iter().zip([3, 2, 2]) {
            let received = wait_for_tenant(&dev, tenant, signal, sent);
            contents(&received, service, signal);
            for request in &received {
                request.belongs_only_to(tenant, key);
            }
        }
    }
}

fn wait_for_tenant(dev: &Dev, tenant: &str, signal: Signal, sent: usize) -> Vec<Received> {
    eventually(START_MAX, &format!("{signal} of {tenant}"), || {
        let received = dev.received_by(tenant, signal);
        let items: usize = received.iter().map(|request| request.item_count).sum();
        if items >= sent {
            Ok(received)
        } else {
            Err(format!("{items} items"))
        }
    })
}
