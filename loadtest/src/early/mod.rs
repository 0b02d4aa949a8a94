//! `loadtest early`: what senders notice when the backend answers before it has read the body, as one does that refuses early. A
//! proxy that then fails to go on writing, and says so, invents an error: the batch was taken.

use std::fmt;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use testkit::edge::{Edge, Settings};

use crate::document::{self, Goal, Goals, Machine, Publication};
use crate::generator;
use crate::keys;
use crate::process::pinned;
use crate::site::{Setup, Site};
use crate::upstream;

const KEYS: u32 = 100;
/// One run of the generator; runs follow one another until enough calls were made.
const RUN: Duration = Duration::from_secs(5);

/// One way to send.
#[derive(Clone, Copy, Debug)]
struct Way {
    title: &'static str,
    protocol: &'static str,
    /// Whether the upstream is spoken to in gRPC.
    grpc_upstream: bool,
    size_bytes: u32,
    connections: u32,
    streams: u32,
}

const WAYS: [Way; 4] = [
    Way {
        title: "gRPC over h2c, 32 KiB",
        protocol: "otlp-grpc",
        grpc_upstream: true,
        size_bytes: 32 << 10,
        connections: 16,
        streams: 10,
    },
    Way {
        title: "gRPC over h2c, 32 KiB, re-framed to HTTP/1.1",
        protocol: "otlp-grpc",
        grpc_upstream: false,
        size_bytes: 32 << 10,
        connections: 16,
        streams: 10,
    },
    Way {
        title: "HTTP/1.1, 32 KiB",
        protocol: "otlp-http",
        grpc_upstream: true,
        size_bytes: 32 << 10,
        connections: 64,
        streams: 1,
    },
    Way {
        title: "HTTP/1.1, 1 MiB",
        protocol: "otlp-http",
        grpc_upstream: true,
        size_bytes: 1 << 20,
        connections: 64,
        streams: 1,
    },
];

/// Counts what senders get from an upstream that answers before it reads. Exit status 1 when any call is not accepted.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: Setup,
    /// Calls of 32 KiB, at least; a sixth as many of 1 MiB.
    #[arg(long, default_value = "60000")]
    calls: NonZeroU64,
    #[command(flatten)]
    publication: Publication,
}

/// What came of one way to send.
#[derive(Debug, Serialize)]
struct Row {
    title: &'static str,
    accepted: u64,
    other: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Findings {
    machine: Machine,
    rows: Vec<Row>,
    /// Requests that the upstream saw, of all ways.
    upstream: upstream::Report,
}

/// Runs `loadtest early`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let machine = document::machine();
    let site = Site::with_upstream(&args.setup, &["--early"])?;
    let pairs = keys::generate(KEYS)?;
    let url = site.database();
    site.copy_keys(&url, &pairs)?;
    let keys = site.keys_file("keys.txt", &pairs)?;
    let mut rows = Vec::new();
    for way in WAYS {
        let mut edge = Edge::new(Settings {
            grpc_upstream: way.grpc_upstream,
            ..site.edge_settings(&url, "")
        });
        edge.start();
        let row = send(args, way, &edge, &keys)?;
        eprintln!("{}: {} accepted", way.title, row.accepted);
        rows.push(row);
    }
    let findings = Findings {
        machine,
        rows,
        upstream: upstream::ask(site.upstream)?,
    };
    args.publication.publish("early", &findings, &findings)?;
    Ok(findings.goals().all_met())
}

fn send(args: &Args, way: Way, edge: &Edge, keys: &Path) -> anyhow::Result<Row> {
    let enough = match way.size_bytes {
        ..=0xf_ffff => args.calls.get(),
        _ => args.calls.get() / 6,
    };
    let mut reports: Vec<generator::Report> = Vec::new();
    while crate::site::sum(&reports).0 < enough {
        let mut command = pinned(args.setup.load_core(), std::env::current_exe()?);
        command
            .args(["run", "--json", "--target", &edge.address()])
            .args(["--protocol", way.protocol, "--keys"])
            .arg(keys)
            .args(["--size", &way.size_bytes.to_string()])
            .args(["--connections", &way.connections.to_string()])
            .args(["--streams", &way.streams.to_string()])
            .args(["--duration", &RUN.as_secs().to_string()])
            .stdin(Stdio::null());
        let output = command
            .output()
            .context("taskset (Debian package util-linux)")?;
        let report: generator::Report = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
        anyhow::ensure!(report.accepted > 0, "{}: {:?}", way.title, report.other);
        reports.push(report);
    }
    let (accepted, other) = crate::site::sum(&reports);
    Ok(Row {
        title: way.title,
        accepted,
        other,
    })
}

impl Findings {
    fn goals(&self) -> Goals {
        let refused = self.rows.iter().flat_map(|row| row.other.values()).sum();
        Goals(vec![
            Goal::none("call answered with anything but success", refused),
            Goal::none(
                "request upstream without exactly one tenant",
                self.upstream.no_tenant + self.upstream.several_tenants,
            ),
        ])
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:\n`{}`\n", self.machine, self.machine.command)?;
        self.goals().fmt(f)?;
        writeln!(
            f,
            "| sent as | accepted | anything else |\n| --- | --- | --- |"
        )?;
        for row in &self.rows {
            let other: Vec<_> = row
                .other
                .iter()
                .map(|(what, count)| format!("{count} x {what}"))
                .collect();
            let other = if other.is_empty() {
                "none".to_owned()
            } else {
                other.join("; ")
            };
            writeln!(f, "| {} | {} | {other} |", row.title, row.accepted)?;
        }
        Ok(())
    }
}
