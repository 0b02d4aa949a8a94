//! `loadtest outage`: what senders notice of a database that is gone for ten minutes. One edge serves load before, during and after;
//! another one is restarted while the database is away; unknown keys are tried at both all the time. A third edge, the witness,
//! has a database of its own that stays: it serves the same load in the same runs, so that what the machine does to
//! latencies is told from what the outage does.

mod findings;
mod strangers;

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::control::id_of;
use testkit::edge::Edge;
use testkit::key_rows::{fresh_key, insert_key};
use testkit::postgres::Postgres;
use tokio::time::Instant;

use crate::document::{self, Publication};
use crate::keys::{self, KeyPair};
use crate::site::{Continuous, Load, Setup, Site, Window};
use findings::{CatchUp, Findings, Phase, Phases};
use strangers::{Answers, Strangers};

/// How often keys that nobody has are tried, in all phases alike: what a try costs must not look like the outage's cost.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// What has not happened by then will not happen.
const LOST_AFTER: Duration = Duration::from_mins(1);
/// How long transactions are counted for once the database is back.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(20);
const RESTARTS: usize = 6;

/// Kills PostgreSQL with SIGKILL, each of its processes, and starts it again after ten minutes, under load all the while: open loop,
/// OTLP/HTTP and gRPC, known keys. Exit status 1 when a promise is missed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: Setup,
    /// How long the database is gone.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = crate::generator::seconds)]
    seconds: Duration,
    /// How long before and after is measured.
    #[arg(long, value_name = "SECONDS", default_value = "240", value_parser = crate::generator::seconds)]
    around: Duration,
    /// Latencies are those of the median run of this length.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = crate::generator::seconds)]
    window: Duration,
    /// OTLP/HTTP requests a second.
    #[arg(long, value_name = "PER_SECOND", default_value = "500")]
    rate: NonZeroU32,
    /// gRPC calls a second.
    #[arg(long, value_name = "PER_SECOND", default_value = "100")]
    grpc_rate: NonZeroU32,
    /// Keys in use.
    #[arg(long, default_value = "1000")]
    keys: NonZeroU32,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest outage`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    ensure!(
        args.window <= args.seconds.min(args.around),
        "--window must not be longer than --seconds and --around"
    );
    let machine = document::machine();
    let site = Site::new(&args.setup)?;
    let url = site.database();
    let mut known = keys::generate(args.keys.get() + 1)?;
    site.copy_keys(&url, &known)?;
    // Nobody sends with it: it is there to be revoked.
    let spare = known.pop().context("no key")?;
    let mut edges = [site.edge(&url, ""), site.edge(&url, "")];
    edges.iter_mut().for_each(Edge::start);
    let [steady, restarted] = &mut edges;
    let staying = Postgres::start();
    let staying_url = site.database_of(&staying);
    site.copy_keys(&staying_url, &known)?;
    let mut witness = site.edge(&staying_url, "");
    witness.start();
    let file = site.keys_file("keys.txt", &known)?;
    let loads = [
        site.load(load(args, steady, "otlp-http", args.rate, &file)),
        site.load(load(args, steady, "otlp-grpc", args.grpc_rate, &file)),
        site.load(load(args, &witness, "otlp-http", args.rate, &file)),
        site.load(load(args, &witness, "otlp-grpc", args.grpc_rate, &file)),
    ];
    let mut strangers = Strangers::default();

    eprintln!("before, for {:?}", args.around);
    strangers.try_for(args.around, &[steady, restarted]);
    let before = strangers.take();
    // A run of the load that has just begun is the one that sees the end of the database.
    next_window(&loads[0])?;
    let killed = Instant::now();
    site.postgres.kill();
    eprintln!("the database is gone, for {:?}", args.seconds);
    strangers.try_for(args.seconds, &[steady, restarted]);
    let key = &known.first().context("no key")?.key;
    let restarts = restarts(restarted, key);
    strangers.try_once(&[steady, restarted]);
    let during = strangers.take();
    next_window(&loads[0])?;
    let asked = steady.metric("okmon_edge_key_fetches_total");
    site.postgres.start_again();
    let back = Instant::now();
    eprintln!("the database is back");

    let mut catch_up = changes_are_seen(&site, &url, &spare, &[steady, restarted])?;
    std::thread::sleep(CATCH_UP.saturating_sub(back.elapsed()));
    catch_up.queries = queries(&site, &url)?;
    catch_up.fetches = steady.metric("okmon_edge_key_fetches_total") - asked;
    strangers.try_for(args.around, &[steady, restarted]);
    let after = strangers.take();
    let mut windows = Vec::new();
    for load in loads.map(Continuous::stop) {
        windows.push(load?);
    }
    let phases = Phases { killed, back };
    let findings = Findings::new(
        machine,
        args.seconds,
        [args.rate.get(), args.grpc_rate.get()],
        &phases.sort(&windows),
        &restarts,
        [before, during, after],
        catch_up,
    );
    args.publication.publish("outage", &findings, &findings)?;
    Ok(findings.goals.all_met())
}

fn load(args: &Args, edge: &Edge, protocol: &'static str, rate: NonZeroU32, keys: &Path) -> Load {
    Load {
        target: edge.address(),
        protocol,
        keys: keys.to_owned(),
        rate: Some(rate.get()),
        connections: if protocol == "otlp-grpc" { 4 } else { 16 },
        duration: args.window,
    }
}

/// Waits until a run of the load has ended, and the next one is on its way.
fn next_window(load: &Continuous) -> anyhow::Result<()> {
    let complete = load.complete();
    let deadline = Instant::now() + LOST_AFTER * 10;
    while load.complete() == complete {
        ensure!(Instant::now() < deadline, "the load has stopped");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Restarts the edge again and again, killed and asked to stop in turn: how long each took until the first accepted request.
fn restarts(edge: &mut Edge, key: &str) -> Vec<Duration> {
    let restart = |n| {
        if n % 2 == 0 {
            edge.kill();
        } else {
            edge.stop();
        }
        edge.start_until_accepted(key)
    };
    (0..RESTARTS).map(restart).collect()
}

/// Revokes a key and makes one, by SQL as soon as there is a database to take it, and waits until both edges act on both.
fn changes_are_seen(
    site: &Site,
    url: &str,
    ended: &KeyPair,
    edges: &[&mut Edge; 2],
) -> anyhow::Result<CatchUp> {
    let made = fresh_key();
    let revoke = format!(
        "update api_keys set revoked_at = now() where key_id = '{}'",
        id_of(&ended.key)
    );
    site.postgres.sql(
        url,
        &format!("{revoke}; {}", insert_key(&ended.tenant, &made)),
    );
    let changed = Instant::now();
    let until = |edge: &Edge, key: &str, want: u16| -> anyhow::Result<()> {
        while edge.post(key) != Ok(want) {
            ensure!(
                changed.elapsed() < LOST_AFTER,
                "{:?} in place of {want} after {LOST_AFTER:?}",
                edge.post(key)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    for edge in edges {
        until(edge, &ended.key, 401)?;
        until(edge, made.reveal(), 200)?;
    }
    Ok(CatchUp {
        seen_after: changed.elapsed(),
        ..CatchUp::default()
    })
}

/// Transactions since the database was started, this tool's own among them: statistics begin anew after a crash.
fn queries(site: &Site, url: &str) -> anyhow::Result<u64> {
    let commits = "select xact_commit from pg_stat_database where datname = current_database()";
    site.postgres
        .sql(url, commits)
        .parse()
        .context("xact_commit")
}

/// The load's runs by phase, and in it by protocol, the witness's last; those that saw the database end or come back belong to the
/// outage.
pub(crate) type Sorted<'a> = [[Vec<&'a Window>; 4]; 3];

impl Phases {
    fn sort<'a>(&self, by_protocol: &'a [Vec<Window>]) -> Sorted<'a> {
        [Phase::Before, Phase::During, Phase::After].map(|phase| {
            [0, 1, 2, 3].map(|load| {
                let windows = by_protocol.get(load).into_iter().flatten();
                windows
                    .filter(|window| self.phase_of(window) == phase)
                    .collect()
            })
        })
    }
}
