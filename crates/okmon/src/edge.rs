//! `okmon edge` and `okmon check`: the data plane as a process, and its configuration looked at without one.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use edge::Config;

/// Flags of `okmon edge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon edge --config config/edge/edge.toml")]
pub struct EdgeArgs {
    /// The configuration file; config/edge/edge.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Flags of `okmon check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon check --config config/edge/edge.toml --connect")]
pub struct CheckArgs {
    /// The configuration file to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also try the database and every upstream
    #[arg(long)]
    connect: bool,
}

fn read(file: &PathBuf) -> anyhow::Result<Config> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    Ok(Config::parse(&name, &text)?)
}

/// A runtime for everything but requests: accepting, keys, the ops port.
fn background() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Runs the edge until SIGTERM or SIGINT.
pub fn run(args: &EdgeArgs) -> anyhow::Result<()> {
    let config = read(&args.config)?;
    let _logging = ops::log::init(&config.log);
    background()?.block_on(async {
        let stop = ops::signal::stop_token()?;
        let mut running = edge::start(config).await?;
        tokio::select! {
            () = stop.cancelled() => {
                running.stop().await;
                Ok(())
            }
            () = running.failed() => anyhow::bail!("a part of the edge ended by itself; see the log"),
        }
    })
}

/// Checks a configuration; prints every problem, or that there is none.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let config = read(&args.config)?;
    if args.connect {
        let problems = background()?.block_on(edge::try_connections(&config));
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    }
    println!("{}: no problems", args.config.display());
    Ok(())
}
