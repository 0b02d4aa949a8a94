//! `okmon operator`. Making one works on the database itself, because the first operator has no token to ask with.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use store::{Actor, DatabaseUrl, OperatorScopes, Store};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::api::Api;
use super::{Remote, args, output};

const COLUMNS: &[&str] = &["id", "name", "scopes", "status", "created_at", "expires_at"];

/// What to do with operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make an operator and a token, which is shown this once
    #[command(
        after_help = "Example:\n  okmon operator create olga --scopes read --expires-in 90d --database-url sqlite://okmon.db"
    )]
    Create(Box<CreateArgs>),
    /// List all operators
    #[command(after_help = "Example:\n  okmon operator list")]
    List(Remote),
    /// Revoke an operator's token for good
    #[command(after_help = "Example:\n  okmon operator revoke 8fKq2LxTn0Zd")]
    Revoke(RevokeArgs),
}

/// Flags of `okmon operator create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What people call the operator; the audit log shows it
    name: String,
    /// What the operator may do: admin (change everything) or read
    #[arg(long, default_value = "admin", value_parser = args::operator_scopes)]
    scopes: OperatorScopes,
    /// How long the token works: a whole number and s, m, h, d or w, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = args::lifetime)]
    expires_in: Option<Duration>,
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

/// Flags of `okmon operator revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The operator's id: the 12 characters after okop_
    #[arg(value_parser = args::operator_id)]
    id: String,
    #[command(flatten)]
    remote: Remote,
}

/// Runs `okmon operator …`.
pub(super) fn run(command: &OperatorCommand) -> anyhow::Result<()> {
    match command {
        OperatorCommand::Create(args) => create(args),
        OperatorCommand::List(remote) => {
            let operators = Api::new(remote)?.list("/api/v1/operators")?;
            output::list(remote.json, operators, COLUMNS)
        }
        OperatorCommand::Revoke(RevokeArgs { id, remote }) => {
            let path = format!("/api/v1/operators/{id}/revoke");
            let operator = Api::new(remote)?.post(&path, &json!({}))?;
            output::object(
                remote.json,
                &operator,
                &["id", "name", "status", "revoked_at"],
            )
        }
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (operator, token) = runtime.block_on(async {
        let store = Store::connect(&args.database_url, 1)
            .await
            .with_context(|| format!("cannot use {}", args.database_url))?;
        store.schema_check().await?;
        let actor = Actor::command("okmon operator create");
        control::operator_create_for(&store, &args.name, args.scopes, args.expires_in, &actor).await
    })?;
    let time = |at: OffsetDateTime| at.format(&Rfc3339);
    let expires_at = operator.expires_at.map(time).transpose()?;
    if args.json {
        let object = json!({
            "id": operator.id,
            "name": operator.name,
            "scopes": operator.scopes.to_string().split(',').collect::<Vec<_>>(),
            "status": "active",
            "created_at": time(operator.created_at)?,
            "expires_at": expires_at,
            "revoked_at": null,
            "token": token.reveal(),
        });
        output::line(&object.to_string())?;
        return Ok(());
    }
    output::line(token.reveal())?;
    output::remark("The token is shown this once: keep it now, or set OKMON_OPERATOR_TOKEN to it.");
    if let Some(at) = expires_at {
        output::remark(&format!("It works until {at}."));
    }
    Ok(())
}
