//! `loadtest million`: what a million keys cost an edge beside a hundred. Two edges in the same run, one on each number of keys, under
//! the same load in turns; then what loading, keeping and restoring so many takes.

mod findings;
mod lives;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::edge::Edge;
use tokio::time::Instant;

use crate::document::{self, Publication};
use crate::keys::{self, KeyPair};
use crate::process::cpu_time_of;
use crate::site::{Load, Setup, Site};
use findings::{Findings, Sample};

const FEW: u32 = 100;
/// One run of the generator sends with so many keys; each round has others.
const KEYS_PER_ROUND: usize = 50_000;
/// Opens connections and fills the caches that a proxy has anyway, before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Measures an edge with a million keys: CPU per request beside an edge with a hundred, in interleaved rounds with other keys in each;
/// loading, memory, the snapshot and a start from it. Exit status 1 when a promise is missed or a request is not accepted.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: Setup,
    /// How many keys.
    #[arg(long, default_value = "1000000", value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    keys: u32,
    /// How many tenants have them.
    #[arg(long, default_value = "10000")]
    tenants: NonZeroU32,
    /// Rounds; figures are medians over them.
    #[arg(long, default_value = "15")]
    rounds: NonZeroU32,
    /// How long one edge is measured in one round.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = crate::generator::seconds)]
    seconds: Duration,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest million`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let machine = document::machine();
    let site = Site::new(&args.setup)?;
    let many = keys_of(args.keys, args.tenants.get())?;
    let few = keys_of(FEW, FEW)?;
    let [many_url, few_url] = [site.database(), site.database()];
    let started = Instant::now();
    site.copy_keys(&many_url, &many)?;
    let copied = started.elapsed();
    site.copy_keys(&few_url, &few)?;
    eprintln!("{} keys are in the database", args.keys);

    let mut with_many = site.edge(&many_url, "");
    let first = lives::first(&mut with_many)?;
    let mut with_few = site.edge(&few_url, "");
    with_few.start();
    eprintln!("both edges are ready");

    let samples = rounds(args, &site, [&with_few, &with_many], [&few, &many])?;
    let fetches = with_many.metric("okmon_edge_key_fetches_total");
    drop(with_few);
    let change = lives::change(&site, &many_url, &many, &with_many)?;
    let reload = lives::reload(&site, &many_url)?;
    site.postgres.kill();
    let restored = lives::restored(&mut with_many, &many)?;

    let findings = Findings {
        machine,
        keys: args.keys,
        tenants: args.tenants.get(),
        rounds: args.rounds.get(),
        seconds: args.seconds.as_secs_f64(),
        copied,
        first,
        samples,
        fetches,
        change,
        reload,
        restored,
    };
    args.publication.publish("million", &findings, &findings)?;
    Ok(findings.goals().all_met())
}

/// So many keys, each tenant's following one another.
fn keys_of(count: u32, tenants: u32) -> anyhow::Result<Vec<KeyPair>> {
    let mut keys = keys::generate(count)?;
    for (n, pair) in (0_u64..).zip(&mut keys) {
        let tenant = n * u64::from(tenants) / u64::from(count);
        pair.tenant = format!("tenant-{tenant:06}");
    }
    Ok(keys)
}

/// Puts both edges under the same load in turns: for each round what a request cost with few keys, and with many.
fn rounds(
    args: &Args,
    site: &Site,
    edges: [&Edge; 2],
    keys: [&[KeyPair]; 2],
) -> anyhow::Result<Vec<[Sample; 2]>> {
    let mut samples = Vec::new();
    for round in 0..args.rounds.get() as usize {
        let files = [0, 1].map(|which| -> anyhow::Result<PathBuf> {
            let all = keys.get(which).context("no keys")?;
            // Spread over all of them; as many lines for both, so that the generator's own work is the same.
            let step = all.len().div_ceil(KEYS_PER_ROUND).max(1);
            let spread = all.iter().cycle().skip(round).step_by(step);
            let chosen: Vec<_> = spread.take(KEYS_PER_ROUND).cloned().collect();
            site.keys_file(&format!("keys-{which}.txt"), &chosen)
        });
        let [few, many] = files;
        let loads = [(0, few?), (1, many?)];
        let mut pair = [None, None];
        // Whoever goes first finds the machine as the other one left it.
        for turn in 0..2 {
            let Some((which, file)) = loads.get((turn + round) % 2) else {
                continue;
            };
            let edge = edges.get(*which).context("no edge")?;
            let sample = measure(args, site, edge, file)?;
            if let Some(place) = pair.get_mut(*which) {
                *place = Some(sample);
            }
        }
        if let [Some(few), Some(many)] = pair {
            samples.push([few, many]);
        }
        eprintln!("round {} of {} done", round + 1, args.rounds);
    }
    Ok(samples)
}

fn measure(
    args: &Args,
    site: &Site,
    edge: &Edge,
    keys: &std::path::Path,
) -> anyhow::Result<Sample> {
    let load = |duration| Load {
        target: edge.address(),
        protocol: "otlp-http",
        keys: keys.to_owned(),
        rate: None,
        connections: 64,
        duration,
    };
    site.run(&load(WARM_UP))?;
    let before = cpu_time_of(edge.id());
    let report = site.run(&load(args.seconds))?;
    let nanos = cpu_time_of(edge.id()).since(&before);
    ensure!(
        report.other.is_empty() && report.accepted > 0,
        "not accepted: {:?}",
        report.other
    );
    Ok(Sample {
        cpu_micros: Duration::from_nanos(nanos).as_secs_f64() * 1e6
            / u32::try_from(report.accepted).map_or(f64::MAX, f64::from),
        per_second: report.per_second,
        p99_micros: report.latency_micros.p99,
    })
}
