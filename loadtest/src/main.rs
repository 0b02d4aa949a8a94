//! The command line. Each command has its own module; this one only picks.

mod compare;
mod generator;
mod http1;
mod keys;
mod payload;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Generator and upstream share a core while a proxy is measured: what they save, the proxy can use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends telemetry, receives it, and compares what proxies in between cost.
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
  loadtest compare --quick";

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
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => generator::command(&args),
        Command::Upstream(args) => upstream::command(&args),
        Command::Keys(args) => keys::command(&args),
        Command::Compare(args) => compare::command(&args),
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
