//! `okmon tenant`.

use clap::{Args, Subcommand};
use model::TenantId;
use serde_json::{Value, json};

use super::api::Api;
use super::key::print_new_key;
use super::{Remote, output};

const COLUMNS: &[&str] = &["id", "name", "email", "status", "created_at"];
const FIELDS: &[&str] = &[
    "id",
    "name",
    "email",
    "status",
    "suspended_at",
    "created_at",
    "updated_at",
];

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Make a tenant and its first key, which is shown this once
    #[command(after_help = "Example:\n  okmon tenant create \"Acme Ltd\" ops@acme.example acme")]
    Create(CreateArgs),
    /// List all tenants
    #[command(after_help = "Example:\n  okmon tenant list --json")]
    List {
        #[command(flatten)]
        #[expect(missing_docs, reason = "the flags have their own")]
        remote: Remote,
    },
    /// Show one tenant
    #[command(after_help = "Example:\n  okmon tenant show acme")]
    Show {
        /// The tenant's id
        id: TenantId,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the flags have their own")]
        remote: Remote,
    },
}

/// Flags of `okmon tenant create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What people call the tenant
    name: String,
    /// Whom to write to
    email: String,
    /// The tenant's id: a-z, 0-9 and '-', at most 63
    id: String,
    /// Accept every id that Mimir, Loki and Tempo accept
    #[arg(long)]
    allow_any_id: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Runs `okmon tenant …`.
pub fn run(command: &TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create(args) => create(args),
        TenantCommand::List { remote } => {
            let tenants = Api::new(remote)?.list("/api/v1/tenants")?;
            if remote.json {
                output::line(&Value::from(tenants).to_string())?;
            } else {
                output::table(&tenants, COLUMNS)?;
            }
            Ok(())
        }
        TenantCommand::Show { id, remote } => {
            let tenant = Api::new(remote)?.get(&format!("/api/v1/tenants/{id}"))?;
            if remote.json {
                output::line(&tenant.to_string())?;
            } else {
                output::card(&tenant, FIELDS)?;
            }
            Ok(())
        }
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let body = json!({
        "name": args.name,
        "email": args.email,
        "id": args.id,
        "allow_any_id": args.allow_any_id,
    });
    let tenant = Api::new(&args.remote)?.post("/api/v1/tenants", &body)?;
    if args.remote.json {
        output::line(&tenant.to_string())?;
    } else {
        output::card(&tenant, FIELDS)?;
        print_new_key(tenant.get("key").unwrap_or(&Value::Null))?;
    }
    Ok(())
}
