//! `okmon audit`.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use model::{KeyId, TenantId};

use super::api::Api;
use super::{Remote, args, output};

const COLUMNS: &[&str] = &["seq", "at", "actor", "action", "tenant", "key_id", "detail"];

/// Flags of `okmon audit`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon audit --tenant acme --limit 20")]
pub struct AuditArgs {
    /// Only what was done to this tenant and its keys
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
    /// Only what was done to this key
    #[arg(long, value_name = "KEY_ID", value_parser = args::key_id)]
    key: Option<KeyId>,
    /// How many entries, newest first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

/// Prints the newest entries of the audit log.
pub(super) fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let mut query = Vec::new();
    if let Some(tenant) = &args.tenant {
        query.push(("tenant", tenant.as_str()));
    }
    if let Some(key_id) = &args.key {
        query.push(("key_id", key_id.as_str()));
    }
    let entries = Api::new(&args.remote)?.first("/api/v1/audit", &query, args.limit)?;
    output::list(args.remote.json, entries, COLUMNS)
}
