//! `okmon migrate`: the one command that changes the database's schema.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
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
    /// Print the versions as JSON: {"found":N,"reached":N}
    #[arg(long)]
    json: bool,
}

/// Applies what the database lacks, and prints the version of the schema before and after.
pub fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (found, reached) = runtime.block_on(migrate(&args.database_url))?;
    let text = match (args.json, found) {
        (true, _) => json!({"found": found, "reached": reached}).to_string(),
        (false, 0) => format!("schema version {reached}: made in an empty database"),
        (false, found) if found == reached => format!("schema version {reached}: up to date"),
        (false, found) => format!("schema version {reached}: brought up from {found}"),
    };
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

async fn migrate(database_url: &DatabaseUrl) -> anyhow::Result<(i64, i64)> {
    let store = Store::connect(database_url, 1)
        .await
        .with_context(|| format!("cannot use {database_url}"))?;
    let found = store.schema_version().await?;
    store.migrate().await.context("cannot migrate")?;
    Ok((found, store.schema_version().await?))
}
