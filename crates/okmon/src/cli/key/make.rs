//! The commands that make a key work: `create`, `rotate` and `import`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::Context as _;
use clap::Args;
use model::{KeyId, TenantId};
use serde_json::Value;

use super::{FIELDS, sha256};
use crate::cli::api::Api;
use crate::cli::args::{self, KeyWish};
use crate::cli::{Remote, Usage, output};

/// More than a key with what surrounds it.
const INPUT_MAX_BYTES: u64 = 4096;

/// Flags of `okmon key create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The tenant's id
    tenant: TenantId,
    #[command(flatten)]
    wish: KeyWish,
    #[command(flatten)]
    remote: Remote,
}

/// Flags of `okmon key rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The tenant's id
    tenant: TenantId,
    /// The key to replace; may be left out where the tenant has one only
    #[arg(long, value_name = "KEY_ID", value_parser = args::key_id)]
    key: Option<KeyId>,
    /// How long the old key goes on working: a whole number and s, m, h, d or w; 0 revokes it now
    #[arg(long, value_name = "TIME", default_value = "24h", allow_hyphen_values = true, value_parser = args::seconds)]
    grace: u64,
    #[command(flatten)]
    wish: KeyWish,
    #[command(flatten)]
    remote: Remote,
}

/// Flags of `okmon key import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The tenant's id
    tenant: TenantId,
    /// Catches a key among the arguments, where everybody on the machine can read it.
    #[arg(hide = true)]
    misplaced: Option<String>,
    #[command(flatten)]
    wish: KeyWish,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let path = format!("/api/v1/tenants/{}/keys", args.tenant);
    let key = Api::new(&args.remote)?.post(&path, &args.wish.body().into())?;
    if args.remote.json {
        output::line(&key.to_string())?;
    } else {
        print_new_key(&key)?;
    }
    Ok(())
}

pub(super) fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let mut body = args.wish.body();
    body.insert("grace_seconds".to_owned(), args.grace.into());
    let key_id = args.key.as_ref().map(KeyId::as_str);
    body.insert("key_id".to_owned(), key_id.into());
    let path = format!("/api/v1/tenants/{}/keys/rotate", args.tenant);
    let key = Api::new(&args.remote)?.post(&path, &body.into())?;
    if args.remote.json {
        output::line(&key.to_string())?;
        return Ok(());
    }
    print_new_key(&key)?;
    if let Some(old) = key.get("replaces") {
        let [id, end] = ["key_id", "expires_at"].map(|field| output::cell(old, field));
        let end = match output::cell(old, "status").as_str() {
            "active" => format!("works until {end}"),
            status => format!("is {status}"),
        };
        output::remark(&format!("The old key {id} {end}."));
    }
    Ok(())
}

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    if args.misplaced.is_some() {
        let text = "a key among the arguments can be read by everybody on this machine: send it on standard input";
        return Err(Usage(text.to_owned()).into());
    }
    let api = Api::new(&args.remote)?;
    let key = args::pasted_key(&pasted()?).map_err(anyhow::Error::msg)?;
    let mut body = args.wish.body();
    body.insert("key_id".to_owned(), key.id().as_str().into());
    body.insert("sha256".to_owned(), sha256(&key)?.into());
    let path = format!("/api/v1/tenants/{}/keys", args.tenant);
    output::object(args.remote.json, &api.post(&path, &body.into())?, FIELDS)
}

/// Standard input; one line of it where a person types.
fn pasted() -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut text = Vec::new();
    let mut bounded = stdin.lock().take(INPUT_MAX_BYTES);
    let read = if stdin.is_terminal() {
        output::remark("Paste the key and press Enter:");
        bounded.read_until(b'\n', &mut text)
    } else {
        bounded.read_to_end(&mut text)
    };
    read.context("cannot read the key from standard input")?;
    Ok(text)
}

/// Prints a key that was just made, for people.
pub(in crate::cli) fn print_new_key(key: &Value) -> anyhow::Result<()> {
    output::card(key, &["key_id", "scopes", "expires_at", "key"])?;
    output::remark("The key is shown this once: keep it now.");
    Ok(())
}
