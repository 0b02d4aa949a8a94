//! `okmon`: from arguments to a command. What the commands do is in the modules of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use okmon::cli::{self, OperatorsCommand, control};
use okmon::{dev, edge, migrate, probe};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The multi-tenant observability platform.
#[derive(Debug, Parser)]
#[command(name = "okmon", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, with a sink that shows what arrives
    Dev(dev::DevArgs),
    /// Run the data plane: take telemetry, authenticate, forward
    Edge(edge::EdgeArgs),
    /// Run the control plane: the admin API for tenants and keys
    Control(control::ControlArgs),
    /// Check a configuration file and print every problem at once
    Check(edge::CheckArgs),
    /// Ask a process whether it is ready, for health checks: exit status 0 when it is
    Probe(probe::ProbeArgs),
    /// Bring the database's schema up to date
    Migrate(Box<migrate::MigrateArgs>),
    #[command(flatten)]
    Operators(OperatorsCommand),
}

fn main() -> ExitCode {
    let done = match &Cli::parse().command {
        Command::Dev(args) => dev::run(args),
        Command::Edge(args) => edge::run(args),
        Command::Check(args) => edge::check(args),
        Command::Probe(args) => probe::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Control(args) => control::run(args),
        Command::Operators(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("okmon: {error:#}");
            cli::exit_status(&error)
        }
    }
}
