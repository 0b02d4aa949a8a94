//! The operator's commands: from arguments to the admin API, and from its answers to text or JSON. The API decides;
//! nothing is checked here that it checks, except what a mistyped argument would be.

mod api;
mod args;
pub mod audit;
pub mod control;
pub mod key;
pub mod operator;
mod output;
mod sheet;
pub mod tenant;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// What an operator does.
#[derive(Debug, Subcommand)]
pub enum OperatorsCommand {
    /// Make, show, change, suspend and delete tenants
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Make, show, rotate, import and revoke keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Make, list and revoke operators, who may use the admin API
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Show who changed what, and when
    Audit(audit::AuditArgs),
}

impl OperatorsCommand {
    /// Asks the API and prints its answer.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Tenant(command) => tenant::run(command),
            Self::Key(command) => key::run(command),
            Self::Operator(command) => operator::run(command),
            Self::Audit(args) => audit::run(args),
        }
    }
}

/// Where control is, and how to print its answer.
#[derive(Debug, Args)]
pub struct Remote {
    /// Where okmon control listens
    #[arg(
        long,
        env = "OKMON_CONTROL_URL",
        default_value = "http://127.0.0.1:9601",
        value_name = "URL"
    )]
    control_url: String,
    /// Print the API's own objects as JSON
    #[arg(long)]
    json: bool,
}

/// A command that was given wrongly, where only the command itself can tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The exit status of a command that failed: 2 where the arguments were wrong, else 1.
pub fn exit_status(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}
