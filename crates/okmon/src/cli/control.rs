//! `okmon control`: the control plane as a process.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use control::ControlConfig;

/// Flags of `okmon control`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon control --config config/control/control.toml")]
pub struct ControlArgs {
    /// The configuration file; config/control/control.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the control plane until SIGTERM or SIGINT.
pub fn run(args: &ControlArgs) -> anyhow::Result<()> {
    let file = args.config.display().to_string();
    let text =
        std::fs::read_to_string(&args.config).with_context(|| format!("cannot read {file}"))?;
    let database_url = std::env::var("OKMON_DATABASE_URL").ok();
    let config = ControlConfig::parse(&file, &text, database_url.as_deref())?;
    let _logging = ops::log::init(&config.log);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = ops::signal::stop_token()?;
        control::run(config, stop).await
    })
}
