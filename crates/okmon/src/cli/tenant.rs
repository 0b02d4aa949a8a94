//! `okmon tenant`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use model::TenantId;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::args::Limit;
use super::key::print_new_key;
use super::sheet::{self, Sheet};
use super::{Remote, Usage, args, output};

const COLUMNS: &[&str] = &["id", "name", "email", "status", "created_at"];
const FIELDS: &[&str] = &[
    "id",
    "name",
    "email",
    "status",
    "limits.body_max_bytes",
    "suspended_at",
    "created_at",
    "updated_at",
];

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Make a tenant and its first key, which is shown this once
    #[command(
        after_help = "Example:\n  okmon tenant create \"Acme Ltd\" ops@acme.example acme --sheet acme.md"
    )]
    Create(CreateArgs),
    /// List all tenants
    #[command(after_help = "Example:\n  okmon tenant list --json")]
    List(Remote),
    /// Show one tenant
    #[command(after_help = "Example:\n  okmon tenant show acme")]
    Show(OneArgs),
    /// Change a tenant's name, e-mail address or limits
    #[command(
        after_help = "Example:\n  okmon tenant set acme --email billing@acme.example --limit body_max_bytes=16MiB"
    )]
    Set(SetArgs),
    /// Refuse a tenant's telemetry until it is resumed; its senders are told to keep it for a while
    #[command(after_help = "Example:\n  okmon tenant suspend acme")]
    Suspend(OneArgs),
    /// Accept a suspended tenant's telemetry again
    #[command(after_help = "Example:\n  okmon tenant resume acme")]
    Resume(OneArgs),
    /// Mark a tenant inactive and revoke its keys for good; what it has stored stays
    #[command(after_help = "Example:\n  okmon tenant delete acme --yes")]
    Delete(DeleteArgs),
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
    /// Write a page for the customer: who they are, where to send, settings to paste. The file must not be there yet
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Put the key into the sheet
    #[arg(long, requires = "sheet")]
    with_key: bool,
    /// Where the customer's senders reach the edge, for the sheet
    #[arg(
        long,
        env = "OKMON_INGEST_URL",
        default_value = "https://localhost",
        value_name = "URL",
        value_parser = args::ingest_url
    )]
    ingest_url: String,
    #[command(flatten)]
    remote: Remote,
}

/// Flags of the commands that need nothing but a tenant.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// The tenant's id
    id: TenantId,
    #[command(flatten)]
    remote: Remote,
}

/// Flags of `okmon tenant set`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct SetArgs {
    /// The tenant's id
    id: TenantId,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// What people call the tenant
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Whom to write to
    #[arg(long)]
    email: Option<String>,
    /// The tenant's own limit, or default for the edge's. `body_max_bytes`: the largest body of a request, as it was sent;
    /// bytes, or with KiB, MiB or GiB
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<Limit>,
}

/// Flags of `okmon tenant delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The tenant's id
    id: TenantId,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Runs `okmon tenant …`.
pub(super) fn run(command: &TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create(args) => create(args),
        TenantCommand::List(remote) => {
            let tenants = Api::new(remote)?.list("/api/v1/tenants")?;
            output::list(remote.json, tenants, COLUMNS)
        }
        TenantCommand::Show(OneArgs { id, remote }) => {
            let tenant = Api::new(remote)?.get(&path(id))?;
            output::object(remote.json, &tenant, FIELDS)
        }
        TenantCommand::Set(args) => change(&args.id, &args.change.body()?, &args.remote),
        TenantCommand::Suspend(OneArgs { id, remote }) => {
            change(id, &json!({"status": "suspended"}), remote)
        }
        TenantCommand::Resume(OneArgs { id, remote }) => {
            change(id, &json!({"status": "active"}), remote)
        }
        TenantCommand::Delete(args) => delete(args),
    }
}

fn path(id: &TenantId) -> String {
    format!("/api/v1/tenants/{id}")
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.remote)?;
    // Before the tenant is made: one whose sheet cannot be written would have to be made again under another id.
    let sheet = args.sheet.as_deref().map(Sheet::reserve).transpose()?;
    let body = json!({
        "name": args.name,
        "email": args.email,
        "id": args.id,
        "allow_any_id": args.allow_any_id,
    });
    let tenant = api.post("/api/v1/tenants", &body)?;
    if args.remote.json {
        output::line(&tenant.to_string())?;
    } else {
        output::card(&tenant, FIELDS)?;
        print_new_key(tenant.get("key").unwrap_or(&Value::Null))?;
    }
    if let Some(sheet) = sheet {
        let text = sheet::text(&tenant, &args.ingest_url, args.with_key);
        let file = sheet
            .write(&text)
            .context("the tenant is made, but its sheet is not")?;
        output::remark(&format!("The page for the customer is {}.", file.display()));
    }
    Ok(())
}

fn change(id: &TenantId, body: &Value, remote: &Remote) -> anyhow::Result<()> {
    let tenant = Api::new(remote)?.patch(&path(id), body)?;
    output::object(remote.json, &tenant, FIELDS)
}

impl Change {
    fn body(&self) -> anyhow::Result<Value> {
        let mut body = Map::new();
        for (field, value) in [("name", &self.name), ("email", &self.email)] {
            if let Some(value) = value {
                body.insert(field.to_owned(), value.as_str().into());
            }
        }
        let mut limits = Map::new();
        for Limit { name, value } in &self.limit {
            if limits.insert((*name).to_owned(), json!(value)).is_some() {
                return Err(Usage(format!("--limit {name} is given twice: give it once")).into());
            }
        }
        if !limits.is_empty() {
            body.insert("limits".to_owned(), limits.into());
        }
        Ok(body.into())
    }
}

fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.remote)?;
    if !args.yes {
        confirm(&args.id)?;
    }
    let tenant = api.delete(&path(&args.id))?;
    output::object(args.remote.json, &tenant, FIELDS)
}

/// Has somebody at a terminal type the id again.
fn confirm(id: &TenantId) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        let text = format!(
            "deleting {id} revokes its keys for good, and there is no terminal to ask on: pass --yes"
        );
        return Err(Usage(text).into());
    }
    write!(
        io::stderr(),
        "This revokes every key of {id} for good; what it has stored stays. Type {id} to go on: "
    )?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    anyhow::ensure!(typed.trim() == id.as_str(), "nothing was deleted");
    Ok(())
}
