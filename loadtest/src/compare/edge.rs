//! Our own edge as a candidate: its configuration, its database with the keys in it, its command line. Whatever changes in how the
//! edge is set up changes here only.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use model::ApiKey;

use super::Args;
use super::candidate::{Ports, Recipe, Site, free_port, version};

/// The default of `--edge-command`.
pub(crate) const COMMAND: &str = "{okmon} edge --config {config}";

pub(crate) fn prepare(site: &Site, args: &Args) -> anyhow::Result<Result<Recipe, String>> {
    if !args.okmon.is_file() {
        return Ok(Err(format!(
            "edge: {} does not exist; cargo build --release -p okmon makes it",
            args.okmon.display()
        )));
    }
    let database = site.directory.join("edge.sqlite");
    let url = format!("sqlite://{}", database.display());
    let ports = Ports::free()?;
    let ops = free_port()?.to_string();
    let config = site.fill(
        include_str!("../../peers/edge.toml"),
        ports,
        &[("database", &url), ("ops", &ops)],
    );
    let config = site.file("edge.toml", &config)?;
    if let Err(error) = seed(site, args, &url, &database) {
        return Ok(Err(format!("edge: {error:#}")));
    }
    let mut words = args.edge_command.split_whitespace().map(|word| {
        word.replace("{okmon}", &args.okmon.display().to_string())
            .replace("{config}", &config.display().to_string())
    });
    let program = words
        .next()
        .context("--edge-command is empty; its default is `{okmon} edge --config {config}`")?;
    Ok(Ok(Recipe {
        name: "edge",
        method: "keys from SQLite, in memory",
        version: version(&args.okmon, "--version"),
        program: program.into(),
        arguments: words.map(Into::into).collect(),
        // The variable goes before the file, whatever it is set to outside.
        environment: vec![("OKMON_DATABASE_URL", url)],
        ports,
    }))
}

/// Lets the edge's own migrations make the tables, then fills them. By SQL, because ten thousand keys through the API are ten
/// thousand requests, and rows made by hand are a promise of the product anyway.
fn seed(site: &Site, args: &Args, url: &str, database: &Path) -> anyhow::Result<()> {
    let migrated = Command::new(&args.okmon)
        .arg("migrate")
        .args(["--database-url", url])
        .output()
        .context("okmon migrate")?;
    ensure!(
        migrated.status.success(),
        "okmon migrate: {}",
        String::from_utf8_lossy(&migrated.stderr).trim()
    );
    let sql = rows(site)?;
    let script = site.file("edge.sql", &sql)?;
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

fn rows(site: &Site) -> anyhow::Result<String> {
    let mut sql = String::from("BEGIN;\n");
    for pair in &site.keys {
        let key: ApiKey = pair.key.parse()?;
        let digest = key
            .digest()
            .as_bytes()
            .iter()
            .try_fold(String::with_capacity(64), |mut hex, byte| {
                write!(hex, "{byte:02x}").map(|()| hex)
            })?;
        let (tenant, id) = (&pair.tenant, key.id());
        writeln!(
            sql,
            "INSERT INTO tenants (id, name, email) VALUES ('{tenant}', '{tenant}', 'load@example.com');\n\
             INSERT INTO api_keys (key_id, tenant_id, digest) VALUES ('{id}', '{tenant}', X'{digest}');"
        )?;
    }
    sql.push_str("COMMIT;\n");
    Ok(sql)
}
