//! `loadtest attack`: one attack on one edge, as fast as one core goes. The attacks are in a table; each is what one connection does
//! until it ends, and the runner keeps so many going. What a good tenant notices of it is for `loadtest attacks` to measure.

mod bombs;
mod crowds;
mod floods;
mod frames;
mod guesses;
mod headers;
mod http1;
mod over_tls;
mod posts;
mod resets;
mod session;
mod slow;
mod table;
mod tally;
mod wire;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::Instant;

use self::tally::Tally;
use self::wire::Wire;

pub(crate) use self::table::{ATTACKS, Attack, CROWDS};
pub(crate) use self::tally::Report;

/// Connections that are being opened at a time: more would only wait in the edge's backlog.
const CONNECTING_MAX: usize = 64;
/// How much longer an attack goes on that did not come to anything because the machine is busy.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
/// Before the next try after a refused connection.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// What one connection does until it ends.
type Connection = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// Attacks an edge on this machine, from addresses in 127.64.0.0/10.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// What to do; `loadtest attack --help` does not list them, `loadtest attacks --list` does.
    #[arg(value_parser = named)]
    attack: &'static Attack,
    /// Whom to attack: a loopback address; plain text, but for the attacks over TLS.
    #[arg(long, value_name = "IP:PORT")]
    target: SocketAddr,
    /// The key of the attacker's own tenant, for the attacks of somebody who has one.
    #[arg(long, default_value = "")]
    key: String,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::generator::seconds)]
    seconds: Duration,
    /// Connections at a time, where not as many as the attack usually has.
    #[arg(long)]
    connections: Option<u16>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// An attack by its name.
pub(crate) fn named(name: &str) -> Result<&'static Attack, String> {
    let mut all = ATTACKS.iter().chain(CROWDS);
    let found = all.find(|attack| attack.name == name);
    found.ok_or_else(|| "no such attack; loadtest attacks --list has them all".to_owned())
}

/// Runs `loadtest attack`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    ensure!(
        args.target.ip().is_loopback(),
        "--target {}: only edges on this machine are attacked; a loopback address such as 127.0.0.1:4318",
        args.target
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    let attacker = Rc::new(Attacker {
        attack: args.attack,
        target: args.target,
        key: args.key.clone(),
        tally: Tally::default(),
        next_number: Cell::new(0),
        next_turn: Cell::new(Instant::now()),
        connecting: Arc::new(Semaphore::new(CONNECTING_MAX)),
    });
    let started = Instant::now();
    let local = LocalSet::new();
    for _ in 0..args.connections.unwrap_or(args.attack.connections) {
        local.spawn_local(connections(Rc::clone(&attacker)));
    }
    local.block_on(&runtime, async {
        tokio::time::sleep(args.seconds).await;
        let begun = async {
            while !attacker.has_begun() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Whether it has in the end is in the report.
        let _ = tokio::time::timeout(BEGIN_WITHIN, begun).await;
    });
    let report = attacker.tally.report(started.elapsed());
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(true)
}

/// What all connections of an attack share; they run on one thread.
struct Attacker {
    attack: &'static Attack,
    target: SocketAddr,
    key: String,
    tally: Tally,
    next_number: Cell<u64>,
    next_turn: Cell<Instant>,
    connecting: Arc<Semaphore>,
}

impl Attacker {
    fn next_number(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }

    /// Whether anything was sent, or, where nothing is to be sent, connections were opened again.
    fn has_begun(&self) -> bool {
        let report = self.tally.report(Duration::ZERO);
        report.bytes > 0 || report.connections > u64::from(self.attack.connections)
    }

    /// Waits until the attack's rate has room for one more, where it has a rate.
    async fn turn(&self) {
        if let Some(rate) = self.attack.per_second {
            let turn = self.next_turn.get().max(Instant::now());
            self.next_turn.set(turn + Duration::from_secs(1) / rate);
            tokio::time::sleep_until(turn).await;
        }
    }
}

/// Keeps one connection going, opened anew whenever it ends.
async fn connections(attacker: Rc<Attacker>) {
    let attack = attacker.attack;
    loop {
        let permit = Arc::clone(&attacker.connecting).acquire_owned().await;
        match Wire::connect(&attacker).await {
            Ok(mut wire) => {
                wire.arriving = permit.ok().filter(|_| attack.is_answered_first);
                if let Err(error) = (attack.connection)(wire).await {
                    attacker.tally.ended("", &error);
                }
                if attack.pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(attack.pause).await;
                }
            }
            Err(error) => {
                drop(permit);
                attacker.tally.ended("connect", &error);
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
    }
}
