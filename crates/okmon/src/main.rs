//! `okmon`: from arguments to a command. What the commands do is in the modules of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use okmon::{edge, migrate};

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
    /// Run the data plane: take telemetry, authenticate, forward
    Edge(edge::EdgeArgs),
    /// Check a configuration file and print every problem at once
    Check(edge::CheckArgs),
    /// Bring the database's schema up to date
    Migrate(migrate::MigrateArgs),
}

fn main() -> ExitCode {
    let done = match &Cli::parse().command {
        Command::Edge(args) => edge::run(args),
        Command::Check(args) => edge::check(args),
        Command::Migrate(args) => migrate::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("okmon: {error:#}");
            ExitCode::FAILURE
        }
    }
}
