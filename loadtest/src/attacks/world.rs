//! Whom the attacks are for: an edge that serves a good tenant, and a second one, the witness, that nobody needs. Both on one core, the
//! witness only in the time that the first leaves. Generators, upstream and attacker are on the other core, the attacker again
//! only in the time that the others leave.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::time::Instant;

use super::Args;
use super::hostile::{self, Attack};
use crate::generator;
use crate::process::{
    cpu_time_of, forget_peak, memory_bytes_of, pinned, pinned_idle, with_many_files,
};
use crate::site;
use crate::stand::{Edge, Stand};

/// Connections of the good tenant in HTTP/1.1 and gRPC, and after how many requests each is opened anew. At 500 requests/s that is five
/// new connections a second, and one.
const HTTP_CONNECTIONS: &str = "50";
const HTTP_RENEW_AFTER: &str = "100";
const GRPC_CONNECTIONS: &str = "8";
const GRPC_RENEW_AFTER: &str = "500";

pub(super) struct World {
    args: Args,
    edge: Edge,
    witness: Edge,
    stand: Stand,
}

/// Who is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// The edge that serves the good tenant.
    Edge,
    /// The one that serves nobody.
    Witness,
}

/// What came of some time of load, with or without an attack.
#[derive(Debug, Serialize)]
pub(super) struct Phase {
    pub(super) http: Vec<generator::Report>,
    pub(super) grpc: Vec<generator::Report>,
    pub(super) attackers: Vec<hostile::Report>,
    pub(super) memory_peak_bytes: u64,
    /// Of the edge's core, from 0 to 1.
    pub(super) cpu_share: f64,
    /// How much the edge's counters rose.
    pub(super) rose: BTreeMap<String, f64>,
}

impl World {
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        let stand = Stand::new(&args.place)?;
        let core = args.place.edge_core;
        Ok(Self {
            edge: stand.edge("edge", pinned(core, &args.place.okmon))?,
            witness: stand.edge("witness", pinned_idle(core, &args.place.okmon))?,
            stand,
            args: args.clone(),
        })
    }

    /// Load in `windows` runs one after the other, and meanwhile attacks.
    pub(super) fn phase(
        &self,
        windows: u32,
        victim: Victim,
        attacks: &[&'static Attack],
    ) -> anyhow::Result<Phase> {
        let pid = self.edge.group.id();
        forget_peak(pid)?;
        let before = self.edge.counters()?;
        let (cpu_before, started) = (cpu_time_of(pid), Instant::now());
        let begun = attacks
            .iter()
            .map(|attack| self.attack(attack, victim, windows));
        let begun = begun.collect::<Result<Vec<_>, _>>()?;
        let http = || self.load(windows, "otlp-http", &self.args.rate.to_string());
        let grpc = || self.load(windows, "otlp-grpc", &self.args.grpc_rate.to_string());
        let (http, grpc) = std::thread::scope(|scope| {
            let grpc = scope.spawn(grpc);
            (http(), grpc.join())
        });
        let grpc = grpc.map_err(|_| anyhow::anyhow!("the load ended by a panic"))?;
        let attackers = begun.into_iter().map(report).collect::<Result<_, _>>()?;
        let used = Duration::from_nanos(cpu_time_of(pid).since(&cpu_before));
        let rose = self.edge.counters()?.into_iter().map(|(name, count)| {
            let rose = count - before.get(&name).copied().unwrap_or_default();
            (name, rose)
        });
        Ok(Phase {
            http: http?,
            grpc: grpc?,
            attackers,
            memory_peak_bytes: memory_bytes_of(pid).1,
            cpu_share: used.as_secs_f64() / started.elapsed().as_secs_f64(),
            rose: rose.filter(|(_, rose)| *rose > 0.0).collect(),
        })
    }

    fn attack(&self, attack: &Attack, victim: Victim, windows: u32) -> anyhow::Result<Child> {
        let edge = match victim {
            Victim::Edge => &self.edge,
            Victim::Witness => &self.witness,
        };
        let program = std::env::current_exe()?;
        let command = if self.args.quick {
            // On a busy machine the class `idle` may not come to anything.
            pinned(self.args.place.load_core, program)
        } else {
            pinned_idle(self.args.place.load_core, program)
        };
        let seconds = (self.args.window * windows).as_secs_f64();
        with_many_files(&command)?
            .args(["attack", attack.name, "--json"])
            .args(["--target", &edge.address.to_string()])
            .args(["--key", &self.stand.other.key])
            .args(["--seconds", &seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("prlimit (Debian package util-linux)")
    }

    fn load(
        &self,
        windows: u32,
        protocol: &str,
        rate: &str,
    ) -> anyhow::Result<Vec<generator::Report>> {
        let (size, connections, renew_after, streams) = if protocol == "otlp-http" {
            ("32768", HTTP_CONNECTIONS, HTTP_RENEW_AFTER, "1")
        } else {
            ("4096", GRPC_CONNECTIONS, GRPC_RENEW_AFTER, "8")
        };
        let run = |_| {
            let mut command = site::generator(self.args.place.load_core)?;
            command
                .args(["--target", &self.edge.address.to_string()])
                .args(["--protocol", protocol, "--key", &self.stand.good.key])
                .args(["--size", size, "--connections", connections])
                .args(["--streams", streams, "--renew-after", renew_after])
                .args(["--rate", rate, "--duration"])
                .arg(self.args.window.as_secs_f64().to_string());
            site::generate(command)
        };
        (0..windows).map(run).collect()
    }

    /// The edge still stands, and is the one that was started.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.edge.group.epitaph() {
            Some(epitaph) => anyhow::bail!("the edge ended: {epitaph}"),
            None => Ok(()),
        }
    }
}

fn report(attacker: Child) -> anyhow::Result<hostile::Report> {
    let output = attacker.wait_with_output().context("loadtest attack")?;
    ensure!(
        output.status.success(),
        "loadtest attack: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("what loadtest attack found")
}
