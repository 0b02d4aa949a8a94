//! `loadtest compare`: what the edge costs beside the proxies a user would pick instead. All candidates stand ready, each does the
//! same job for the same keys, and they are measured in turns, so that what the machine does meanwhile hits all alike.

mod candidate;
mod document;
mod edge;
mod measure;
mod peers;
mod workload;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use crate::document::Publication;
use crate::keys;
use candidate::{Recipe, Site, find_program};
use document::Findings;
use measure::Bench;
use workload::Workload;

/// Measures the edge and its peers, each held to one core, in interleaved rounds. Peers that are not installed are skipped and
/// named; `loadtest/install-peers.sh` installs them. Exit status 1 when the edge is missing, missed a goal or gave a wrong answer.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// The edge's binary.
    #[arg(long, value_name = "FILE", default_value = "target/release/okmon")]
    pub(crate) okmon: PathBuf,
    /// How the edge is started: `{okmon}` and `{config}` are filled in, words are split at spaces.
    #[arg(long, env = "LOADTEST_EDGE_COMMAND", value_name = "TEMPLATE", default_value = edge::COMMAND)]
    pub(crate) edge_command: String,
    /// Only these candidates.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Who>,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(workload::ALL.iter().map(|w| w.name)))]
    workloads: Vec<String>,
    /// Rounds; figures are medians over them.
    #[arg(long, default_value = "7")]
    rounds: NonZeroU32,
    /// How long one candidate is measured under one workload in one round.
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = crate::generator::seconds)]
    seconds: Duration,
    /// 2 rounds of 0.7 s, to see that all is well; too noisy to publish.
    #[arg(long)]
    quick: bool,
    /// Keys every candidate knows, each of a tenant of its own.
    #[arg(long, default_value = "10000")]
    keys: NonZeroU32,
    /// The core that the proxy under test is held to.
    #[arg(long, default_value = "0")]
    proxy_core: u32,
    /// The core that generator and upstream are held to.
    #[arg(long, default_value = "1")]
    load_core: u32,
    #[command(flatten)]
    publication: Publication,
}

/// Who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    Edge,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Vmauth,
}

impl Who {
    /// How to start it, or in the inner error why it is not there to be started.
    fn prepare(self, site: &Site, args: &Args) -> anyhow::Result<Result<Recipe, String>> {
        let (name, prepare): (_, fn(&Site, PathBuf) -> anyhow::Result<Recipe>) = match self {
            Self::Edge => return edge::prepare(site, args),
            Self::Nginx => ("nginx", peers::nginx),
            Self::Haproxy => ("haproxy", peers::haproxy),
            Self::Envoy => ("envoy", peers::envoy),
            Self::Caddy => ("caddy", peers::caddy),
            Self::Vmauth => ("vmauth", peers::vmauth),
        };
        match find_program(name) {
            Some(program) => prepare(site, program).map(Ok),
            None => Ok(Err(format!(
                "{name} is not installed; loadtest/install-peers.sh installs it"
            ))),
        }
    }
}

impl Args {
    fn asks_for(&self, who: Who) -> bool {
        self.only.is_empty() || self.only.contains(&who)
    }
}

/// Runs `loadtest compare`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let cores = std::thread::available_parallelism().context("number of cores")?;
    ensure!(
        cores.get() >= 2 && args.proxy_core != args.load_core,
        "the proxy and its load need a core each; this process may use {cores}"
    );
    let machine = crate::document::machine();
    let directory = tempfile::tempdir().context("temporary directory")?;
    let site = Site::new(directory.path(), keys::generate(args.keys.get())?)?;
    let (rounds, seconds) = if args.quick {
        (2, Duration::from_millis(700))
    } else {
        (args.rounds.get(), args.seconds)
    };

    let mut skipped = Vec::new();
    let recipes = recipes(args, &site, &mut skipped)?;
    let mut bench = Bench::new(&site, args.proxy_core, args.load_core, seconds)?;
    for recipe in recipes {
        if let Err(error) = bench.start(recipe) {
            skipped.push(format!("{error:#}"));
        }
    }
    for reason in &skipped {
        eprintln!("skipped: {reason}");
    }
    ensure!(
        bench.ready() > 0,
        "nothing to measure: run loadtest/install-peers.sh"
    );

    let workloads = chosen(args);
    for round in 0..rounds {
        for workload in &workloads {
            bench.round(workload, round)?;
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    let findings = Findings {
        machine,
        rounds,
        seconds: seconds.as_secs_f64(),
        keys: args.keys.get(),
        skipped,
        candidates: bench.finish()?,
    };
    publish(args, &findings, &workloads)?;
    Ok(findings.sound(&workloads, args.asks_for(Who::Edge)))
}

fn recipes(args: &Args, site: &Site, skipped: &mut Vec<String>) -> anyhow::Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for who in Who::value_variants() {
        if !args.asks_for(*who) {
            continue;
        }
        match who.prepare(site, args)? {
            Ok(recipe) => recipes.push(recipe),
            Err(reason) => skipped.push(reason),
        }
    }
    if recipes.is_empty() {
        bail!("nothing to measure: {}", skipped.join("; "));
    }
    Ok(recipes)
}

fn chosen(args: &Args) -> Vec<Workload> {
    workload::ALL
        .into_iter()
        .filter(|w| args.workloads.is_empty() || args.workloads.iter().any(|name| name == w.name))
        .collect()
}

fn publish(args: &Args, findings: &Findings, workloads: &[Workload]) -> anyhow::Result<()> {
    let tables = findings.tables(workloads);
    args.publication.publish("compare", findings, &tables)
}
