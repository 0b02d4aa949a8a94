//! `okmon migrate`: the one command that changes the database's schema.

use anyhow::Context as _;
use clap::Args;
use store::{DatabaseUrl, Store};

/// Flags of `okmon migrate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon migrate --database-url postgres://okmon@localhost/okmon")]
pub struct MigrateArgs {
    /// The database to migrate
    #[arg(
        long,
        env = "OKMON_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    database_url: DatabaseUrl,
}

/// Applies what the database lacks.
pub fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Store::connect(&args.database_url, 1).await?;
        store.migrate().await.context("cannot migrate")
    })
}
