//! What can be said of a configuration without running it.

use std::sync::Arc;

use store::Store;

use crate::acme;
use crate::config::Config;
use crate::keys;
use crate::listen::tls::Tls;
use crate::metrics::Metrics;
use crate::upstream::{self, Shared};

/// Reads every file that the configuration names, as a start would: what is worth knowing of them, one line each.
///
/// # Errors
/// One line for each thing that a start would fail for.
pub fn check_files(config: &Config) -> Result<Vec<String>, Vec<String>> {
    let failed = |error: &dyn std::fmt::Display| vec![error.to_string()];
    let (metrics, _) = Metrics::new().map_err(|error| failed(&error))?;
    let tls = Tls::new(Arc::clone(&metrics)).map_err(|error| failed(&error))?;
    let prepared = tls.prepare(&config.listeners);
    let (mut notes, mut problems) = (Vec::new(), Vec::new());
    match prepared {
        Ok(prepared) => {
            notes.extend(prepared.notes());
            notes.extend(prepared.warnings);
        }
        Err(found) => problems.extend(found),
    }
    notes.extend(config.acme.as_ref().and_then(acme::notes));
    problems.extend(
        acme::prepare(config.acme.as_ref())
            .err()
            .into_iter()
            .flatten(),
    );
    for (name, upstream) in &config.upstreams {
        if let Err(error) = Shared::new(name, upstream, &metrics) {
            problems.push(format!("upstreams.{name}: {error}"));
        }
    }
    if problems.is_empty() {
        Ok(notes)
    } else {
        Err(problems)
    }
}

/// Tries the database and every upstream once; one line per problem.
pub async fn try_connections(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let store = Store::open(&config.database, 1);
    if let Err(error) = store.schema_check().await {
        problems.push(format!("database.url: {}", keys::Chain(&error)));
    }
    let metrics = match Metrics::new() {
        Ok((metrics, _)) => metrics,
        Err(error) => return vec![error.to_string()],
    };
    for (name, upstream) in &config.upstreams {
        let found = upstream::try_connections(name, upstream, &metrics).await;
        problems.extend(
            found
                .iter()
                .map(|problem| format!("upstreams.{name}: {problem}")),
        );
    }
    problems
}
