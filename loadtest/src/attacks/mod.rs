//! `loadtest attacks`: what a good tenant notices of somebody who means harm. Each attack goes on for a minute from one core, while the
//! good tenant sends at a steady rate; before and after it is quiet. And before each attack the same one is directed at
//! another edge, the witness: what the good tenant notices then is the machine's doing, not the edge's.

mod findings;
pub(crate) mod hostile;
mod world;

use std::io::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::document::{self, Publication};
use crate::stand::Place;
use findings::{Findings, Quick, Row};
use hostile::{ATTACKS, Attack};
use world::{Phase, Victim, World};

/// How often an attack is measured at most, where the p99 alone is too high.
const TRIES: usize = 3;
/// Attacks at a time with --quick.
const TOGETHER: usize = 10;

/// Attacks an edge in every way there is, one after the other, and measures what a good tenant notices: OTLP/HTTP with bodies of
/// 32 KiB and gRPC with 4 KiB, open loop. Exit status 1 when a promise is missed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Only this attack; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = hostile::named)]
    only: Vec<&'static Attack>,
    /// Print the names of all attacks, and what they are.
    #[arg(long)]
    list: bool,
    /// Ten attacks at a time, for one --window, and only whether the good tenant's requests were accepted: a machine that is
    /// busy with other things can tell no more.
    #[arg(long, conflicts_with_all = ["seconds", "around", "write"])]
    quick: bool,
    /// How long each attack goes on.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::generator::seconds)]
    seconds: Duration,
    /// How long it is quiet between attacks, and how long the witness is attacked.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = crate::generator::seconds)]
    around: Duration,
    /// Latencies are those of the median run of this length.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = crate::generator::seconds)]
    window: Duration,
    /// OTLP/HTTP requests a second.
    #[arg(long, value_name = "PER_SECOND", default_value = "500")]
    rate: NonZeroU32,
    /// gRPC calls a second.
    #[arg(long, value_name = "PER_SECOND", default_value = "500")]
    grpc_rate: NonZeroU32,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest attacks`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    if args.list {
        return list();
    }
    let machine = document::machine();
    let mut world = World::new(args)?;
    let (during, around) = (windows(args.seconds, args), windows(args.around, args));
    let chosen: Vec<_> = if args.only.is_empty() {
        ATTACKS.iter().collect()
    } else {
        args.only.clone()
    };
    if args.quick {
        return quick(args, &mut world, &chosen);
    }
    // The first seconds of a process are not like the others.
    world.phase(1, Victim::Edge, &[])?;
    let mut quiet = world.phase(around, Victim::Edge, &[])?;
    let mut rows = Vec::new();
    for attack in chosen {
        let mut tries = Vec::new();
        while tries.len() < TRIES && tries.iter().all(Row::is_slow_alone) {
            let control = world.phase(around, Victim::Witness, &[attack])?;
            let attacked = world.phase(during, Victim::Edge, &[attack])?;
            world.check()?;
            let after = world.phase(around, Victim::Edge, &[])?;
            let row = Row::new(attack, [&quiet, &after], &control, &attacked);
            eprintln!("{row}");
            tries.push(row);
            quiet = after;
        }
        findings::choose(&mut tries);
        rows.append(&mut tries);
    }
    let findings = Findings::new(machine, args, rows);
    args.publication.publish("attacks", &findings, &findings)?;
    Ok(findings.goals.all_met())
}

/// Whether the good tenant gets through, and what the attackers managed.
fn quick(args: &Args, world: &mut World, chosen: &[&'static Attack]) -> anyhow::Result<bool> {
    let mut found = Quick::default();
    for attacks in chosen.chunks(TOGETHER) {
        let phase = world.phase(1, Victim::Edge, attacks)?;
        world.check()?;
        found.add(attacks, phase);
    }
    args.publication.publish("attacks", &found, &found)?;
    Ok(found.is_met())
}

fn list() -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    for attack in ATTACKS {
        writeln!(out, "{:22} {}", attack.name, attack.about)?;
    }
    Ok(true)
}

/// How many runs of the load fit into `time`, at least one.
fn windows(time: Duration, args: &Args) -> u32 {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    (millis(time) / millis(args.window).max(1)).max(1)
}
