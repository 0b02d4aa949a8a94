//! `okmon key`: looking at keys and ending them. What makes one is in `make`.

mod make;

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use model::{ApiKey, KeyId, TenantId};
use serde_json::{Value, json};

use self::make::{CreateArgs, ImportArgs, RotateArgs};
use super::api::Api;
use super::{Remote, args, output};

pub(super) use make::print_new_key;

const COLUMNS: &[&str] = &[
    "key_id",
    "name",
    "scopes",
    "status",
    "created_at",
    "expires_at",
    "last_used_at",
    "replaced_by",
];
const FIELDS: &[&str] = &[
    "key_id",
    "tenant",
    "name",
    "scopes",
    "status",
    "created_at",
    "expires_at",
    "revoked_at",
    "replaced_by",
    "last_used_at",
];
const USE_COLUMNS: &[&str] = &["value", "requests", "first_at", "last_at"];

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Give a tenant a key, which is shown this once
    #[command(
        after_help = "Example:\n  okmon key create acme --name prod --scopes logs:write,metrics:write --expires-in 90d"
    )]
    Create(CreateArgs),
    /// List a tenant's keys
    #[command(after_help = "Example:\n  okmon key list acme")]
    List(ListArgs),
    /// Show one key and who uses it: when last, with which user agents, from which addresses
    #[command(after_help = "Example:\n  okmon key show 3kTMd0qAYz7P")]
    Show(OneArgs),
    /// Make a new key in place of one that goes on working for a while, and show it this once
    #[command(after_help = "Example:\n  okmon key rotate acme --grace 24h")]
    Rotate(RotateArgs),
    /// Revoke a key for good
    #[command(after_help = "Example:\n  okmon key revoke 3kTMd0qAYz7P")]
    Revoke(OneArgs),
    /// Make a well-formed key offline; nobody accepts it until it is imported
    #[command(after_help = "Example:\n  okmon key generate")]
    Generate(GenerateArgs),
    /// Give a tenant a key made offline, read from standard input; only its id and its SHA-256 are sent
    #[command(after_help = "Example:\n  okmon key import acme --name prod < acme.key")]
    Import(ImportArgs),
}

/// Flags of `okmon key list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The tenant's id
    tenant: TenantId,
    #[command(flatten)]
    remote: Remote,
}

/// Flags of the commands about one key.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// The key's id: the 12 characters after obs_
    #[arg(value_parser = args::key_id)]
    key_id: KeyId,
    #[command(flatten)]
    remote: Remote,
}

/// Flags of `okmon key generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Print the key, its id and its SHA-256 as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `okmon key …`.
pub(super) fn run(command: &KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => make::create(args),
        KeyCommand::Rotate(args) => make::rotate(args),
        KeyCommand::Import(args) => make::import(args),
        KeyCommand::Generate(args) => generate(args),
        KeyCommand::Show(args) => show(args),
        KeyCommand::List(ListArgs { tenant, remote }) => {
            let keys = Api::new(remote)?.list(&format!("/api/v1/tenants/{tenant}/keys"))?;
            output::list(remote.json, keys, COLUMNS)
        }
        KeyCommand::Revoke(OneArgs { key_id, remote }) => {
            let path = format!("/api/v1/keys/{key_id}/revoke");
            let key = Api::new(remote)?.post(&path, &json!({}))?;
            output::object(
                remote.json,
                &key,
                &["key_id", "tenant", "name", "status", "revoked_at"],
            )
        }
    }
}

fn show(args: &OneArgs) -> anyhow::Result<()> {
    let path = format!("/api/v1/keys/{}", args.key_id);
    let key = Api::new(&args.remote)?.get(&path)?;
    output::object(args.remote.json, &key, FIELDS)?;
    if args.remote.json {
        return Ok(());
    }
    for (field, title) in [("user_agents", "user agents"), ("addresses", "addresses")] {
        let uses = key.get(field).and_then(Value::as_array);
        let uses = uses.map_or(&[][..], Vec::as_slice);
        output::line("")?;
        if uses.is_empty() {
            output::line(&format!("{title}: none seen"))?;
        } else {
            output::line(&format!("{title}, last used first:"))?;
            output::table(uses, USE_COLUMNS)?;
        }
    }
    Ok(())
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let key = ApiKey::generate().context("the operating system has no random bytes")?;
    if args.json {
        let object = json!({
            "key_id": key.id().as_str(),
            "key": key.reveal(),
            "sha256": sha256(&key)?,
        });
        output::line(&object.to_string())?;
    } else {
        output::line(key.reveal())?;
    }
    Ok(())
}

/// What the database has of a key, in the form that the API takes.
fn sha256(key: &ApiKey) -> Result<String, std::fmt::Error> {
    let mut hex = String::with_capacity(64);
    for byte in key.digest().as_bytes() {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}
