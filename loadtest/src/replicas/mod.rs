//! `loadtest replicas`: what senders notice of backends that die. Three replicas stand behind one edge; one after the other is killed
//! without a word and comes back, under load all the while. Requests that an edge can send once more shall all be accepted; those that
//! are too large for it may be refused, but only in a way that makes their sender try again.

mod findings;
mod replica;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use crate::document::{self, Publication};
use crate::generator::{Report, seconds};
use crate::keys::{self, KeyPair};
use crate::process::pinned;
use crate::seed;
use crate::site;
use crate::stand::{Edge, Place, loopback};
use findings::{Findings, Row};
use replica::{Kills, Replica};

const REPLICAS: usize = 3;
const KEYS: u32 = 100;

/// One way to send.
#[derive(Clone, Copy, Debug)]
struct Way {
    title: &'static str,
    protocol: &'static str,
    signal: &'static str,
    size_bytes: u32,
    /// Whether the edge has room to keep its body.
    is_repeatable: bool,
    /// Of a thousand requests.
    share: u32,
    connections: u32,
    streams: u32,
}

const SMALL: Way = Way {
    title: "HTTP/1.1, 32 KiB",
    protocol: "otlp-http",
    signal: "traces",
    size_bytes: 32 << 10,
    is_repeatable: true,
    share: 300,
    connections: 32,
    streams: 1,
};
const SMALL_GRPC: Way = Way {
    title: "gRPC, 32 KiB",
    protocol: "otlp-grpc",
    connections: 4,
    streams: 16,
    ..SMALL
};
/// Twice what an edge keeps of a body by default.
const LARGE_BYTES: u32 = 512 << 10;

const WAYS: [Way; 5] = [
    SMALL,
    SMALL_GRPC,
    Way {
        title: "gRPC, 32 KiB, re-framed to HTTP/1.1",
        signal: "metrics",
        ..SMALL_GRPC
    },
    Way {
        title: "HTTP/1.1, 512 KiB",
        size_bytes: LARGE_BYTES,
        is_repeatable: false,
        share: 50,
        ..SMALL
    },
    Way {
        title: "gRPC, 512 KiB",
        size_bytes: LARGE_BYTES,
        is_repeatable: false,
        share: 50,
        ..SMALL_GRPC
    },
];

/// Kills one replica of three with SIGKILL every ten seconds and starts it again after five, under load all the while: open loop, by
/// HTTP/1.1 and gRPC. Exit status 1 when a promise is missed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// How long to send for.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    seconds: Duration,
    /// How often a replica is killed, each in its turn.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    every: Duration,
    /// How long it stays away; shorter than --every.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    away: Duration,
    /// Requests a second, of all kinds together; a tenth has bodies that are too large to be sent once more.
    #[arg(long, value_name = "PER_SECOND", default_value = "1000", value_parser = clap::value_parser!(u32).range(20..))]
    rate: u32,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest replicas`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let okmon = args.place.okmon.display();
    ensure!(
        args.place.okmon.is_file(),
        "--okmon {okmon} does not exist; cargo build --release -p okmon makes it"
    );
    ensure!(
        args.away < args.every,
        "--away must be shorter than --every: one replica is killed at a time"
    );
    let machine = document::machine();
    let directory = tempfile::tempdir().context("temporary directory")?;
    let mut replicas = Vec::new();
    for n in 0..REPLICAS {
        let log = directory.path().join(format!("replica-{n}.log"));
        replicas.push(Replica::start(args.place.load_core, log)?);
    }
    let pairs = keys::generate(KEYS)?;
    let edge = edge(&args.place, directory.path(), &replicas, &pairs)?;
    let mut text = Vec::new();
    keys::write(&pairs, &mut text)?;
    let keys = directory.path().join("keys.txt");
    std::fs::write(&keys, text).with_context(|| keys.display().to_string())?;

    let before = edge.counters()?;
    let started = Instant::now();
    let mut loads = Vec::new();
    for way in WAYS {
        loads.push((way, load(args, way, edge.address, &keys)?));
    }
    let kills = Kills {
        every: args.every,
        away: args.away,
    };
    let killed = kills.until(started + args.seconds, &mut replicas)?;
    let mut rows = Vec::new();
    for (way, load) in loads {
        let ended = load.join();
        let report = ended.map_err(|_| anyhow::anyhow!("the load ended by a panic"))??;
        rows.push(Row::new(&way, report));
    }
    let counters = risen(&before, &edge.counters()?);
    let findings = Findings::new(machine, kills, killed, rows, counters)?;
    args.publication.publish("replicas", &findings, &findings)?;
    Ok(findings.goals.all_met())
}

/// An edge that is ready, before `replicas`.
fn edge(
    place: &Place,
    directory: &Path,
    replicas: &[Replica],
    pairs: &[KeyPair],
) -> anyhow::Result<Edge> {
    let database = directory.join("edge.sqlite");
    let url = format!("sqlite://{}", database.display());
    let script = directory.join("edge.sql");
    seed::sqlite(&place.okmon, &url, &database, &script, pairs)?;
    let urls: Vec<_> = replicas
        .iter()
        .map(|replica| format!("\"http://{}\"", replica.address))
        .collect();
    let (address, ops) = (loopback(), loopback());
    let config = include_str!("edge.toml")
        .replace("{{address}}", &address.to_string())
        .replace("{{ops}}", &ops.to_string())
        .replace("{{database}}", &url)
        .replace("{{replicas}}", &urls.join(", "));
    let file = directory.join("edge.toml");
    std::fs::write(&file, config).with_context(|| file.display().to_string())?;
    let command = pinned(place.edge_core, &place.okmon);
    Edge::begin(command, &file, address, ops).context("edge")
}

/// Sends as `way` says for as long as asked, in a process of its own.
fn load(
    args: &Args,
    way: Way,
    target: SocketAddr,
    keys: &Path,
) -> anyhow::Result<JoinHandle<anyhow::Result<Report>>> {
    let rate = NonZeroU32::new(args.rate * way.share / 1000).unwrap_or(NonZeroU32::MIN);
    let mut command = site::generator(args.place.load_core)?;
    command
        .args(["--target", &target.to_string(), "--keys"])
        .arg(keys)
        .args(["--protocol", way.protocol, "--signal", way.signal])
        .args(["--size", &way.size_bytes.to_string()])
        .args(["--connections", &way.connections.to_string()])
        .args(["--streams", &way.streams.to_string()])
        .args(["--rate", &rate.to_string()])
        .args(["--duration", &args.seconds.as_secs_f64().to_string()]);
    Ok(std::thread::spawn(move || site::generate(command)))
}

/// By how much each counter has risen, over all its labels.
fn risen(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (series, value) in after {
        let name = series.split('{').next().unwrap_or_default().to_owned();
        let earlier = before.get(series).copied().unwrap_or_default();
        *sums.entry(name).or_default() += value - earlier;
    }
    sums
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (every, away) = (self.every.as_secs_f64(), self.away.as_secs_f64());
        write!(f, "one killed every {every} s, back after {away} s")
    }
}
