//! `loadtest restarts`: restarts and reloads while three programs send that know nothing of them. The sockets belong to a service
//! manager, which this command plays: connections that come while no edge runs wait for the next one.

mod manager;
mod senders;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::Instant;

use self::manager::{Manager, Restart, Variant};
use self::senders::{SENDERS, Sender, Senders};
use crate::document::{self, Goal, Goals, Lapse, Machine, Publication, listed};
use crate::payload::{Protocol, Signal};
use crate::senders::{Tally, Target};
use crate::stand::{Place, Stand};
use crate::upstream;

/// How long senders send by themselves before the first event, and after the last one.
const AROUND: Duration = Duration::from_secs(3);
/// From one event's end to the next: every sender has sent on every connection meanwhile.
const BETWEEN: Duration = Duration::from_millis(500);
const BODY_BYTES: usize = 1024;

/// Restarts and reloads an edge that serves. Exit status 1 when any sender saw any failure.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// How many times the edge is stopped, and started when it has ended.
    #[arg(long, default_value = "100")]
    restarts: u32,
    /// How many times it is given another configuration: routes and a limit alternate.
    #[arg(long, default_value = "100")]
    reloads: u32,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest restarts`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let machine = document::machine();
    let stand = Stand::new(&args.place)?;
    let second = stand.another_upstream(&args.place)?;
    let upstreams = [stand.upstream(), second.address];
    let mut manager = Manager::new(&args.place, &stand, upstreams)?;
    manager.start()?;
    let body = stand.directory().join("body");
    let bodies = Protocol::OtlpHttp.bodies(Signal::Traces, BODY_BYTES, 1);
    std::fs::write(&body, bodies.first().context("no body")?)?;
    let target = Target {
        http: format!("http://{}", manager.all),
        grpc: format!("http://{}", manager.grpc),
        ca_file: None,
        key: stand.good.key.clone(),
        body,
        core: args.place.load_core,
    };

    let mut restarts = Vec::new();
    let restarting = phase(&target, args.restarts, || {
        restarts.push(manager.restart()?);
        Ok(())
    });
    let restarting = restarting.context("restarts")?;
    let (mut reloads, mut variant) = (Vec::new(), Variant::A);
    let reloading = phase(&target, args.reloads, || {
        variant = variant.other();
        reloads.push(manager.reload(variant)?);
        Ok(())
    });
    let reloading = reloading.context("reloads")?;
    let last_in_order = manager.stop()?.success();

    let findings = Findings {
        machine,
        restarts: Restarts::of(&restarts),
        reloads: Lapse::of(&reloads),
        reloads_asked: args.reloads,
        last_in_order,
        restarting,
        reloading,
        complaints: manager.complaints(),
        upstreams: [upstream::ask(upstreams[0])?, upstream::ask(upstreams[1])?],
    };
    args.publication.publish("restarts", &findings, &findings)?;
    Ok(findings.goals().all_met())
}

/// Has `event` happen `times` times while all senders send.
fn phase(
    target: &Target,
    times: u32,
    mut event: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Phase> {
    let started = Instant::now();
    let senders = Senders::start(target);
    std::thread::sleep(AROUND);
    for n in 1..=times {
        event()?;
        std::thread::sleep(BETWEEN);
        if n % 10 == 0 {
            eprintln!("{n} of {times}");
        }
    }
    std::thread::sleep(AROUND);
    let tallies = senders.stop()?;
    Ok(Phase {
        seconds: started.elapsed().as_secs_f64(),
        tallies,
    })
}

/// What senders say of one part of the run.
#[derive(Debug, Serialize)]
struct Phase {
    seconds: f64,
    tallies: BTreeMap<Sender, Tally>,
}

impl Phase {
    fn failures(&self, sender: Sender) -> u64 {
        self.tallies.get(&sender).map_or(0, Tally::failures)
    }

    /// Requests a second, of all senders.
    #[expect(clippy::cast_precision_loss, reason = "requests stay far below 2^52")]
    fn rate(&self) -> f64 {
        let succeeded: u64 = self.tallies.values().map(|tally| tally.succeeded).sum();
        succeeded as f64 / self.seconds
    }
}

#[derive(Debug, Serialize)]
struct Restarts {
    in_order: usize,
    stop: Lapse,
    start: Lapse,
}

impl Restarts {
    fn of(restarts: &[Restart]) -> Self {
        let lapses = |of: fn(&Restart) -> Duration| -> Vec<_> { restarts.iter().map(of).collect() };
        Self {
            in_order: restarts.iter().filter(|restart| restart.in_order).count(),
            stop: Lapse::of(&lapses(|restart| restart.stop)),
            start: Lapse::of(&lapses(|restart| restart.start)),
        }
    }
}

#[derive(Debug, Serialize)]
struct Findings {
    machine: Machine,
    restarts: Restarts,
    reloads: Lapse,
    reloads_asked: u32,
    last_in_order: bool,
    restarting: Phase,
    reloading: Phase,
    /// Warnings and errors that the edges logged.
    complaints: Vec<String>,
    /// What each configuration's upstream saw.
    upstreams: [upstream::Report; 2],
}

impl Findings {
    fn goals(&self) -> Goals {
        let mut goals: Vec<_> = SENDERS
            .iter()
            .map(|sender| {
                let failures = self.restarting.failures(*sender) + self.reloading.failures(*sender);
                let name = sender.to_string();
                let name = name.split(':').next().unwrap_or_default();
                Goal::none(&format!("failed request, as seen by {name}"), failures)
            })
            .collect();
        let stopped = self.restarts.stop.count + 1;
        let in_order = self.restarts.in_order + usize::from(self.last_in_order);
        goals.push(Goal::new(
            "Every edge that is told to stop ends with status 0",
            format!("{in_order} of {stopped}"),
            in_order == stopped,
        ));
        goals.push(Goal::new(
            "Every configuration is taken over",
            format!("{} of {}", self.reloads.count, self.reloads_asked),
            u64::try_from(self.reloads.count) == Ok(self.reloads_asked.into()),
        ));
        let unseen = self.upstreams.iter().filter(|seen| seen.requests == 0);
        goals.push(Goal::new(
            "Both configurations' upstreams are used",
            self.upstreams
                .each_ref()
                .map(|seen| seen.requests.to_string())
                .join(" and ")
                + " requests",
            unseen.count() == 0 || self.reloads_asked == 0,
        ));
        let mixed = self.upstreams.iter();
        let mixed = mixed
            .map(|seen| seen.no_tenant + seen.several_tenants)
            .sum();
        goals.push(Goal::none(
            "request upstream without exactly one tenant",
            mixed,
        ));
        let complaints = u64::try_from(self.complaints.len()).unwrap_or(u64::MAX);
        goals.push(Goal::none(
            "warning or error in the edges' logs",
            complaints,
        ));
        Goals(goals)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:\n`{}`\n", self.machine, self.machine.command)?;
        self.goals().fmt(f)?;
        let (restarting, reloading) = (&self.restarting, &self.reloading);
        writeln!(
            f,
            "| sender | during {} restarts | failed | during {} reloads | failed |\n| --- | --- | --- | --- | --- |",
            self.restarts.stop.count, self.reloads.count
        )?;
        for sender in SENDERS {
            write!(f, "| {sender} |")?;
            for phase in [restarting, reloading] {
                let Some(tally) = phase.tallies.get(&sender) else {
                    continue;
                };
                let failed = listed(&tally.failed);
                write!(f, " {} | {failed} |", tally.succeeded)?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "| requests/s in all | {:.0} | | {:.0} | |\n",
            restarting.rate(),
            reloading.rate()
        )?;
        writeln!(f, "| | median, most |\n| --- | --- |")?;
        writeln!(
            f,
            "| From SIGTERM to the end of the process | {} |",
            self.restarts.stop
        )?;
        writeln!(
            f,
            "| From the start of the next one until it is ready | {} |",
            self.restarts.start
        )?;
        writeln!(
            f,
            "| From SIGHUP until the new configuration is in force | {} |",
            self.reloads
        )?;
        let tallies = [restarting, reloading].map(|phase| phase.tallies.values());
        let said = tallies.into_iter().flatten().flat_map(|tally| &tally.said);
        for line in self.complaints.iter().take(5).chain(said) {
            writeln!(f, "\nLogged: `{line}`")?;
        }
        Ok(())
    }
}
