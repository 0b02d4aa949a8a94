//! A SQLite database with keys in it, for an edge that is not to lean on a server.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use model::ApiKey;
use testkit::key_rows::digest_hex;

use crate::keys::KeyPair;

/// Lets the edge's own migrations make the tables at `url`, then fills them. By SQL, because ten thousand keys through the API are
/// ten thousand requests, and rows made by hand are a promise of the product anyway. `script` is a place for the SQL.
pub(crate) fn sqlite(
    okmon: &Path,
    url: &str,
    database: &Path,
    script: &Path,
    keys: &[KeyPair],
) -> anyhow::Result<()> {
    let migrated = Command::new(okmon)
        .arg("migrate")
        .args(["--database-url", url])
        .output()
        .context("okmon migrate")?;
    ensure!(
        migrated.status.success(),
        "okmon migrate: {}",
        String::from_utf8_lossy(&migrated.stderr).trim()
    );
    std::fs::write(script, rows(keys)?).with_context(|| script.display().to_string())?;
    let filled = Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .stdin(std::fs::File::open(script)?)
        .stdout(Stdio::null())
        .output()
        .context("sqlite3 (Debian package sqlite3)")?;
    ensure!(
        filled.status.success(),
        "seeding keys: {}",
        String::from_utf8_lossy(&filled.stderr).trim()
    );
    Ok(())
}

fn rows(keys: &[KeyPair]) -> anyhow::Result<String> {
    let mut sql = String::from("BEGIN;\n");
    for pair in keys {
        let key: ApiKey = pair.key.parse()?;
        let (tenant, id, digest) = (&pair.tenant, key.id(), digest_hex(&key));
        writeln!(
            sql,
            "INSERT INTO tenants (id, name, email) VALUES ('{tenant}', '{tenant}', 'load@example.com');\n\
             INSERT INTO api_keys (key_id, tenant_id, digest) VALUES ('{id}', '{tenant}', X'{digest}');"
        )?;
    }
    sql.push_str("COMMIT;\n");
    Ok(sql)
}
