//! The command line. Each command has its own module; this one only picks.

mod attacks;
mod certificates;
mod changes;
mod compare;
mod document;
mod early;
mod generator;
mod http1;
mod idle;
mod keys;
mod million;
mod outage;
mod payload;
mod process;
mod replicas;
mod restarts;
mod seed;
mod senders;
mod site;
mod stand;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Generator and upstream share a core while a proxy is measured: what they save, the proxy can use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends telemetry, receives it, compares what proxies in between cost, and breaks what they lean on.
#[derive(Parser)]
#[command(name = "loadtest", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  loadtest upstream --listen 127.0.0.1:9700
  loadtest run --target 127.0.0.1:4318 --protocol otlp-http --key obs_… --size 32768 --duration 10
  loadtest run --target 127.0.0.1:4317 --protocol otlp-grpc --keys keys.txt --streams 10 --rate 5000 --json
  loadtest keys --count 10000 > keys.txt
  loadtest compare --quick
  loadtest changes --write docs/RELIABILITY.md
  loadtest early --calls 6000
  loadtest replicas --seconds 60
  loadtest outage --seconds 60
  loadtest million --write docs/RELIABILITY.md
  loadtest restarts --restarts 5 --reloads 5
  loadtest certificates --swaps 3
  loadtest attacks --only slow-heads --only rapid-reset --seconds 10";

#[derive(Subcommand)]
enum Command {
    /// Generates load and checks every answer.
    Run(generator::Args),
    /// Takes requests, reads them whole, answers at once, counts.
    Upstream(upstream::Args),
    /// Prints fresh keys, one `KEY TENANT` a line.
    Keys(keys::GenerateArgs),
    /// Measures the edge and its peers in interleaved rounds.
    Compare(compare::Args),
    /// Measures how long a change to a key takes until every edge acts on it.
    Changes(changes::Args),
    /// Sends to a backend that answers before it reads, and counts what senders get.
    Early(early::Args),
    /// Kills one replica of a backend after the other, and counts what senders get.
    Replicas(replicas::Args),
    /// Kills the database for ten minutes and watches what senders notice.
    Outage(outage::Args),
    /// Measures what a million keys cost.
    Million(million::Args),
    /// Restarts and reloads an edge under load, and asks the senders what they noticed.
    Restarts(restarts::Args),
    /// Exchanges an edge's certificate under load, and asks the senders what they noticed.
    Certificates(certificates::Args),
    /// Attacks an edge in every way there is, and measures what a good tenant notices.
    Attacks(attacks::Args),
    /// Measures what a connection costs that does nothing.
    Idle(idle::Args),
    /// Attacks an edge on this machine in one way.
    Attack(attacks::hostile::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => generator::command(&args),
        Command::Upstream(args) => upstream::command(&args),
        Command::Keys(args) => keys::command(&args),
        Command::Compare(args) => compare::command(&args),
        Command::Changes(args) => changes::command(&args),
        Command::Early(args) => early::command(&args),
        Command::Replicas(args) => replicas::command(&args),
        Command::Outage(args) => outage::command(&args),
        Command::Million(args) => million::command(&args),
        Command::Restarts(args) => restarts::command(&args),
        Command::Certificates(args) => certificates::command(&args),
        Command::Attacks(args) => attacks::command(&args),
        Command::Idle(args) => idle::command(&args),
        Command::Attack(args) => attacks::hostile::command(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
