//! `loadtest changes`: how long it takes from a change to a key until every edge acts on it. Two edges under load, changes by the admin
//! API and by statements in an open `psql`; then the same with notifications that nobody sends.

mod change;
mod findings;

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::control::Control;
use testkit::edge::Edge;
use testkit::psql::Psql;

use crate::document::{self, Publication};
use crate::keys;
use crate::site::{Continuous, Load, Setup, Site};
use change::{Bench, Kind, Taken};
use findings::{Findings, Phase};

/// What a change must reach when notifications arrive, and when they do not.
const NOTIFIED_MAX: Duration = Duration::from_secs(2);
const POLLED_MAX: Duration = Duration::from_secs(15);
/// Keys that the load sends with.
const STEADY_KEYS: u32 = 100;
/// How long one run of the load's generator takes.
const WINDOW: Duration = Duration::from_secs(5);

/// Changes keys and tenants, by the admin API and by hand, and measures until both of two edges under load act on each: with
/// PostgreSQL's notifications, and with triggers that notify nobody. Exit status 1 when a promise is missed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: Setup,
    /// Changes with notifications.
    #[arg(long, default_value = "500")]
    count: NonZeroU32,
    /// Changes without.
    #[arg(long, default_value = "60")]
    silent: NonZeroU32,
    /// Requests a second at each edge meanwhile.
    #[arg(long, value_name = "PER_SECOND", default_value = "500")]
    rate: NonZeroU32,
    #[command(flatten)]
    publication: Publication,
}

/// Makes the triggers write changes as ever, and tell nobody.
const SILENCE: &str = r"do $$
declare it record;
begin
    for it in select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = current_schema() and p.prosrc like '%pg_notify%'
    loop
        execute regexp_replace(pg_get_functiondef(it.oid), 'perform pg_notify\([^;]*\);', '', 'g');
    end loop;
end $$";

const NOTIFYING: &str = "select count(*) from pg_proc where prosrc like '%pg_notify%'
    and pronamespace = current_schema()::regnamespace";

/// Runs `loadtest changes`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let machine = document::machine();
    let site = Site::new(&args.setup)?;
    let url = site.database();
    let (notified, silent) = (args.count.get(), args.silent.get());
    let mut subjects = keys::generate(notified + silent)?;
    for (n, pair) in subjects.iter_mut().enumerate() {
        // One that is suspended takes its keys along, so each has a tenant of its own.
        pair.tenant = format!("subject-{n:05}");
    }
    let steady = keys::generate(STEADY_KEYS)?;
    site.copy_keys(&url, &steady)?;
    site.copy_keys(&url, &subjects)?;
    let control = Control::start(&args.setup.okmon, &url, "warn");
    let mut edges = [site.edge(&url, ""), site.edge(&url, "")];
    edges.iter_mut().for_each(Edge::start);
    let keys_file = site.keys_file("steady.txt", &steady)?;
    let loads = edges.each_ref().map(|edge| {
        site.load(Load {
            target: edge.address(),
            protocol: "otlp-http",
            keys: keys_file.clone(),
            rate: Some(args.rate.get()),
            connections: 16,
            duration: WINDOW,
        })
    });

    let mut bench = Bench::new(&edges, &control, Psql::open(&site.postgres, &url), subjects);
    let with = measure(&mut bench, notified, NOTIFIED_MAX)?;
    site.postgres.sql(&url, SILENCE);
    ensure!(
        site.postgres.sql(&url, NOTIFYING) == "0",
        "a trigger still notifies"
    );
    let without = measure(&mut bench, silent, POLLED_MAX)?;

    let mut reports = Vec::new();
    for load in loads.map(Continuous::stop) {
        reports.extend(load?.into_iter().map(|window| window.report));
    }
    let findings = Findings::new(machine, args.rate.get(), [with, without], &reports);
    args.publication.publish("changes", &findings, &findings)?;
    Ok(findings.goals.all_met())
}

/// Makes `count` changes, the kinds in turn.
fn measure(bench: &mut Bench<'_>, count: u32, allowed: Duration) -> anyhow::Result<Phase> {
    let mut taken: Vec<Taken> = Vec::new();
    for (n, kind) in (0..count).zip(Kind::IN_TURN.into_iter().cycle()) {
        let change = bench.change(kind);
        taken.push(change.with_context(|| format!("change {n}, {}", kind.name()))?);
        if (n + 1) % 100 == 0 {
            eprintln!("{} of {count} changes", n + 1);
        }
    }
    Ok(Phase { allowed, taken })
}
