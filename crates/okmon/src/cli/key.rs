//! `okmon key`.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use model::{ApiKey, KeyId, MalformedKeyId, ScopeSet, TenantId};
use serde_json::{Value, json};

use super::api::Api;
use super::{Remote, output};

const COLUMNS: &[&str] = &[
    "key_id",
    "name",
    "scopes",
    "status",
    "created_at",
    "expires_at",
    "last_used_at",
];

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
    List {
        /// The tenant's id
        tenant: TenantId,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the flags have their own")]
        remote: Remote,
    },
    /// Revoke a key for good
    #[command(after_help = "Example:\n  okmon key revoke 3kTMd0qAYz7P")]
    Revoke {
        /// The key's id: the 12 characters after obs_
        #[arg(value_parser = key_id)]
        key_id: KeyId,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the flags have their own")]
        remote: Remote,
    },
    /// Make a well-formed key offline; nobody accepts it until it is imported
    #[command(after_help = "Example:\n  okmon key generate")]
    Generate {
        /// Print the key, its id and its SHA-256 as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Flags of `okmon key create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The tenant's id
    tenant: TenantId,
    /// What people call the key
    #[arg(long, default_value = "")]
    name: String,
    /// What the key may do, separated by commas: metrics:write, logs:write, traces:write, profiles:write, metrics:read,
    /// logs:read, traces:read [default: all that write]
    #[arg(long)]
    scopes: Option<ScopeSet>,
    /// How long the key works: a whole number and s, m, h, d or w, such as 90d
    #[arg(long, value_parser = seconds, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<u64>,
    /// When the key stops working, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Runs `okmon key …`.
pub fn run(command: &KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => create(args),
        KeyCommand::List { tenant, remote } => {
            let keys = Api::new(remote)?.list(&format!("/api/v1/tenants/{tenant}/keys"))?;
            if remote.json {
                output::line(&Value::from(keys).to_string())?;
            } else {
                output::table(&keys, COLUMNS)?;
            }
            Ok(())
        }
        KeyCommand::Revoke { key_id, remote } => {
            let path = format!("/api/v1/keys/{key_id}/revoke");
            let key = Api::new(remote)?.post(&path, &json!({}))?;
            if remote.json {
                output::line(&key.to_string())?;
            } else {
                output::card(&key, &["key_id", "tenant", "name", "status", "revoked_at"])?;
            }
            Ok(())
        }
        KeyCommand::Generate { json } => generate(*json),
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let scopes = args.scopes.map(|scopes| {
        let names = scopes.iter().map(|scope| Value::from(scope.as_str()));
        names.collect::<Value>()
    });
    let body = json!({
        "name": args.name,
        "scopes": scopes,
        "expires_in_seconds": args.expires_in,
        "expires_at": args.expires_at,
    });
    let path = format!("/api/v1/tenants/{}/keys", args.tenant);
    let key = Api::new(&args.remote)?.post(&path, &body)?;
    if args.remote.json {
        output::line(&key.to_string())?;
    } else {
        print_new_key(&key)?;
    }
    Ok(())
}

/// Prints a key that was just made, for people.
pub(super) fn print_new_key(key: &Value) -> anyhow::Result<()> {
    output::card(key, &["key_id", "scopes", "expires_at", "key"])?;
    output::remark("The key is shown this once: keep it now.");
    Ok(())
}

fn generate(json: bool) -> anyhow::Result<()> {
    let key = ApiKey::generate().context("the operating system has no random bytes")?;
    if json {
        let digest = key.digest();
        let mut hex = String::with_capacity(64);
        for byte in digest.as_bytes() {
            write!(hex, "{byte:02x}")?;
        }
        let object = json!({"key_id": key.id().as_str(), "key": key.reveal(), "sha256": hex});
        output::line(&object.to_string())?;
    } else {
        output::line(key.reveal())?;
    }
    Ok(())
}

/// A key id, also out of a whole key: that is what somebody has who found one where it should not be.
fn key_id(text: &str) -> Result<KeyId, MalformedKeyId> {
    text.parse::<ApiKey>()
        .map_or_else(|_| text.parse(), |key| Ok(key.id()))
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "use a whole number and s, m, h, d or w, such as 90d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let scale: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    text.strip_suffix(unit)
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(wrong)
}
