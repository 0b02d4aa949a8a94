//! `loadtest idle`: what a connection costs the edge that does nothing. Senders keep theirs for minutes, so that most of an edge's
//! connections are idle at any moment.

use std::fmt;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::time::Instant;

use crate::attacks::hostile::{Attack, CROWDS};
use crate::document::{self, Machine, Publication, mebibytes};
use crate::process::{cpu_time_of, memory_bytes_of, pinned, with_many_files};
use crate::stand::{Edge, Place, Stand};

/// What has not happened by then will not happen.
const LOST_AFTER: Duration = Duration::from_mins(2);
/// Connections that are opened and closed before memory is looked at.
const FEW: u16 = 50;

/// Opens ten thousand connections of each kind, one after the other, and reads what the edge's memory says to it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Connections of each kind. The hard limit of open files must be higher; `ulimit -Hn` shows it.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Until what was needed to open them is given back, and for how long they are watched doing nothing.
    #[arg(long, value_name = "SECONDS", default_value = "8", value_parser = crate::generator::seconds)]
    settle: Duration,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest idle`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let machine = document::machine();
    let stand = Stand::new(&args.place)?;
    let mut rows = Vec::new();
    for kind in CROWDS {
        let row = row(args, &stand, kind).context(kind.name)?;
        rows.push(row);
    }
    let findings = Findings {
        machine,
        connections: args.connections,
        rows,
    };
    args.publication.publish("idle", &findings, &findings)?;
    Ok(true)
}

/// Each kind has an edge of its own: what an allocator has kept from before would serve the next kind for nothing.
fn row(args: &Args, stand: &Stand, kind: &'static Attack) -> anyhow::Result<Row> {
    let place = &args.place;
    let command = pinned(place.edge_core, &place.okmon);
    let edge = if kind.is_over_tls {
        stand.edge_over_tls(kind.name, command)?
    } else {
        stand.edge(kind.name, command)?
    };
    let id = edge.group.id();
    // The first connections make what all share.
    drop(Crowd::gather(args, stand, &edge, kind, FEW)?);
    await_connections(&edge, 0)?;
    std::thread::sleep(args.settle);
    let (before_bytes, _) = memory_bytes_of(id);
    let crowd = Crowd::gather(args, stand, &edge, kind, args.connections)?;
    std::thread::sleep(args.settle);
    let (with_bytes, _) = memory_bytes_of(id);
    let (cpu, since) = (cpu_time_of(id), Instant::now());
    std::thread::sleep(args.settle);
    let used = Duration::from_nanos(cpu_time_of(id).since(&cpu));
    let cpu_share = used.as_secs_f64() / since.elapsed().as_secs_f64();
    ensure!(
        connections(&edge)? >= f64::from(args.connections),
        "the edge has closed some while they were watched"
    );
    drop(crowd);
    Ok(Row {
        kind: kind.about,
        before_bytes,
        with_bytes,
        bytes_each: with_bytes.saturating_sub(before_bytes) / u64::from(args.connections),
        cpu_share,
    })
}

/// The process that holds the connections; dropping it closes them.
struct Crowd(Child);

impl Crowd {
    fn gather(
        args: &Args,
        stand: &Stand,
        edge: &Edge,
        kind: &Attack,
        count: u16,
    ) -> anyhow::Result<Self> {
        let before = accepted(edge)?;
        let command = pinned(args.place.load_core, std::env::current_exe()?);
        let mut command = with_many_files(&command)?;
        command
            .args(["attack", kind.name, "--target", &edge.address.to_string()])
            .args(["--key", &stand.good.key, "--seconds", "3600"])
            .args(["--connections", &count.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let crowd = Self(
            command
                .spawn()
                .context("prlimit (Debian package util-linux)")?,
        );
        await_connections(edge, count)?;
        await_accepted(edge, before + f64::from(count))?;
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // One that is gone already need not be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connections(edge: &Edge) -> anyhow::Result<f64> {
    let metrics = edge.metrics()?;
    let open = metrics.get("okmon_edge_connections");
    open.copied().context("no okmon_edge_connections")
}

fn await_connections(edge: &Edge, count: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + LOST_AFTER;
    loop {
        let open = connections(edge)?;
        // Whole numbers below 65,536 are exact.
        if (count > 0 && open >= f64::from(count)) || (count == 0 && open <= 0.0) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{open} connections in place of {count} after {LOST_AFTER:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Requests that were accepted so far.
fn accepted(edge: &Edge) -> anyhow::Result<f64> {
    let counters = edge.counters()?;
    let accepted = counters.iter().filter(|(name, _)| {
        name.starts_with("okmon_edge_requests_total") && name.contains("outcome=\"accepted\"")
    });
    Ok(accepted.map(|(_, value)| value).sum())
}

/// Waits until so many requests were: a connection is open before its handshake is over.
fn await_accepted(edge: &Edge, expected: f64) -> anyhow::Result<()> {
    let deadline = Instant::now() + LOST_AFTER;
    loop {
        let found = accepted(edge)?;
        if found >= expected {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{found} requests accepted in place of {expected} after {LOST_AFTER:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[derive(Debug, Serialize)]
struct Findings {
    machine: Machine,
    connections: u16,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    before_bytes: u64,
    with_bytes: u64,
    bytes_each: u64,
    /// Of a core, from 0 to 1.
    cpu_share: f64,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} connections of each kind:\n`{}`\n",
            self.machine, self.connections, self.machine.command
        )?;
        writeln!(
            f,
            "| idle connection | bytes each | memory before, MiB | with all of them, MiB | CPU while they do nothing, % of a core |\n\
             | --- | --- | --- | --- | --- |"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {:.1} | {:.1} | {:.2} |",
                row.kind,
                row.bytes_each,
                mebibytes(row.before_bytes),
                mebibytes(row.with_bytes),
                row.cpu_share * 100.0
            )?;
        }
        Ok(())
    }
}
