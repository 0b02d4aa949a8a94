//! Our own edge as a candidate: its configuration, its database with the keys in it, its command line. Whatever changes in how the
//! edge is set up changes here only.

use anyhow::Context;

use super::Args;
use super::candidate::{Ports, Recipe, Site, free_port, version};
use crate::seed;

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
    let script = site.directory.join("edge.sql");
    if let Err(error) = seed::sqlite(&args.okmon, &url, &database, &script, &site.keys) {
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
