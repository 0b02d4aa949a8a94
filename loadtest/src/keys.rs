//! The keys load is sent with: made fresh or read from a file, and how one is written into a request. Does not say which
//! keys a proxy knows; whoever starts the proxy gives it the same list.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;
use model::ApiKey;

/// A key and the tenant it stands for.
#[derive(Clone, Debug)]
pub(crate) struct KeyPair {
    /// The key's text. Any text is taken, so that a proxy can be shown wrong keys too.
    pub(crate) key: String,
    /// The tenant id.
    pub(crate) tenant: String,
}

/// How a request carries its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CredentialForm {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// `Authorization: Basic base64(TENANT:KEY)`
    Basic,
    /// `X-API-Key: KEY`
    XApiKey,
}

impl CredentialForm {
    /// Header name, lower case as HTTP/2 wants it, and value.
    pub(crate) fn header(self, pair: &KeyPair) -> (&'static str, String) {
        match self {
            Self::Bearer => ("authorization", format!("Bearer {}", pair.key)),
            Self::Basic => {
                let plain = format!("{}:{}", pair.tenant, pair.key);
                (
                    "authorization",
                    format!("Basic {}", BASE64_STANDARD.encode(plain)),
                )
            }
            Self::XApiKey => ("x-api-key", pair.key.clone()),
        }
    }
}

/// Makes `count` keys, each of a tenant of its own: `tenant-00000` and so on.
pub(crate) fn generate(count: u32) -> anyhow::Result<Vec<KeyPair>> {
    (0..count)
        .map(|n| {
            let key = ApiKey::generate().context("the system has no randomness")?;
            Ok(KeyPair {
                key: key.reveal().to_owned(),
                tenant: format!("tenant-{n:05}"),
            })
        })
        .collect()
}

/// Reads `KEY` or `KEY TENANT` lines; empty lines and those that start with `#` are skipped.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<KeyPair>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("--keys {}", path.display()))?;
    let keys: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let key = words.next()?.to_owned();
            let tenant = words.next().unwrap_or_default().to_owned();
            Some(KeyPair { key, tenant })
        })
        .collect();
    ensure!(
        !keys.is_empty(),
        "--keys {}: no keys; write one `KEY` or `KEY TENANT` a line",
        path.display()
    );
    Ok(keys)
}

/// Writes what [`read`] reads.
pub(crate) fn write(keys: &[KeyPair], to: &mut impl Write) -> std::io::Result<()> {
    keys.iter()
        .try_for_each(|pair| writeln!(to, "{} {}", pair.key, pair.tenant))
}

/// Where the keys of a run come from.
#[derive(clap::Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct Source {
    /// One key for every request.
    #[arg(long)]
    key: Option<String>,
    /// A file of `KEY` or `KEY TENANT` lines; requests rotate over them.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Make N well-formed keys that nobody knows, and rotate over them.
    #[arg(long, value_name = "N")]
    generate_keys: Option<NonZeroU32>,
}

impl Source {
    /// The keys, at least one.
    pub(crate) fn load(&self) -> anyhow::Result<Vec<KeyPair>> {
        match (&self.key, &self.keys, self.generate_keys) {
            (Some(key), ..) => Ok(vec![KeyPair {
                key: key.clone(),
                tenant: String::new(),
            }]),
            (_, Some(path), _) => read(path),
            (.., Some(count)) => generate(count.get()),
            _ => generate(1),
        }
    }
}

/// Prints fresh keys.
#[derive(clap::Args)]
pub(crate) struct GenerateArgs {
    /// How many keys, each of a tenant of its own.
    #[arg(long, default_value = "10000")]
    count: NonZeroU32,
}

/// Runs `loadtest keys`.
pub(crate) fn command(args: &GenerateArgs) -> anyhow::Result<bool> {
    let keys = generate(args.count.get())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    write(&keys, &mut out).context("standard output")?;
    out.flush().context("standard output")?;
    Ok(true)
}
