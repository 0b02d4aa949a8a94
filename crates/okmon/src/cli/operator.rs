//! `okmon operator`: works on the database itself, because the first operator has no token to ask with.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use store::{Actor, DatabaseUrl, OperatorScopes, Store};
use time::format_description::well_known::Rfc3339;

use super::output;

/// What to do with operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make an operator and a token, which is shown this once
    #[command(
        after_help = "Example:\n  okmon operator create olga --scopes read --database-url sqlite://okmon.db"
    )]
    Create(CreateArgs),
}

/// Flags of `okmon operator create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What people call the operator; the audit log shows it
    name: String,
    /// What the operator may do: admin (change everything) or read
    #[arg(long, default_value = "admin")]
    scopes: OperatorScopes,
    /// The database that control uses
    #[arg(
        long,
        env = "OKMON_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    database_url: DatabaseUrl,
    /// Print the operator and the token as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `okmon operator …`.
pub fn run(OperatorCommand::Create(args): &OperatorCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (operator, token) = runtime.block_on(async {
        let store = Store::connect(&args.database_url, 1)
            .await
            .with_context(|| format!("cannot use {}", args.database_url))?;
        store.schema_check().await?;
        let actor = Actor::command("okmon operator create");
        control::operator_create(&store, &args.name, args.scopes, &actor).await
    })?;
    if args.json {
        let object = json!({
            "id": operator.id,
            "name": operator.name,
            "scopes": operator.scopes.to_string().split(',').collect::<Vec<_>>(),
            "created_at": operator.created_at.format(&Rfc3339)?,
            "token": token.reveal(),
        });
        output::line(&object.to_string())?;
    } else {
        output::line(token.reveal())?;
        output::remark(
            "The token is shown this once: keep it now, or set OKMON_OPERATOR_TOKEN to it.",
        );
    }
    Ok(())
}
