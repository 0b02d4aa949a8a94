//! Another configuration in place of the one in force: built whole beside it, then swapped in, or refused whole.

use tracing::info;

use super::{Running, StartError};
use crate::acme;
use crate::config::Config;
use crate::worker::Blueprint;

/// Why a configuration was not taken over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ReloadError(Vec<String>);

impl Running {
    /// Serves by `config` from now on. Requests in flight end as they began; HTTP/2 connections keep their connection's own
    /// limits.
    ///
    /// # Errors
    /// When it changes what cannot be changed while the process runs, or something it names cannot be had: one line each.
    pub async fn reload(&mut self, config: Config) -> Result<(), ReloadError> {
        let taken = self.take_over(config).await;
        self.metrics.config.loaded(taken.is_ok());
        taken
    }

    /// Says that a configuration could not even be read.
    pub fn reload_failed(&self) {
        self.metrics.config.loaded(false);
    }

    async fn take_over(&mut self, config: Config) -> Result<(), ReloadError> {
        let mut problems = fixed(&self.config, &config);
        let opened = self.listeners.open_new(&config.listeners);
        let left = self.inherited_left(&config);
        problems.extend(left.err().map(|error| error.to_string()));
        let spans = self.exports.start(config.spans.as_ref());
        let spans = spans.map_err(|problem| problems.push(problem));
        let blueprint = Blueprint::new(&config, spans.ok().flatten(), &self.metrics).await;
        let tls = self.tls.prepare(&config.listeners);
        let obtaining = acme::prepare(config.acme.as_ref());
        let obtaining = obtaining.unwrap_or_else(|found| {
            problems.extend(found);
            None
        });
        let (opened, blueprint, tls) = match (opened, blueprint, tls) {
            (Ok(opened), Ok(blueprint), Ok(tls)) if problems.is_empty() => (opened, blueprint, tls),
            (opened, blueprint, tls) => {
                problems.extend(opened.err().into_iter().flatten());
                problems.extend(blueprint.err().into_iter().flatten());
                problems.extend(tls.err().into_iter().flatten());
                return Err(ReloadError(problems));
            }
        };
        self.failures.replace(&config.auth_failures);
        self.workers.replace(blueprint).await;
        self.listeners.limit(&config.connections, &config.strangers);
        self.listeners
            .keep(&config.listeners, &tls, config.runtime.drain.idle);
        self.listeners
            .accept(opened, &tls, &self.workers, &self.metrics);
        self.tls.put_in_force(&tls);
        self.acme.replace(obtaining).await;
        self.config = config;
        info!(addresses = ?self.listeners.addresses(), "the configuration was replaced");
        Ok(())
    }

    /// The sockets stay open whatever we do, and who connects to one that has no listener any more would wait for ever.
    fn inherited_left(&self, config: &Config) -> Result<(), StartError> {
        self.listeners
            .nothing_left(config.ops_address, &config.listeners)
    }
}

/// What is set differently and cannot be while the process runs: the keys in memory and their database are built around it,
/// and the log cannot change its form between two lines.
fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let database =
        old.database == new.database && old.database_connections == new.database_connections;
    let fixed = [
        ("database", database),
        ("keys", old.keys == new.keys),
        ("ops.address", old.ops_address == new.ops_address),
        ("log.format", old.log.format == new.log.format),
        (
            "runtime.workers",
            old.runtime.workers == new.runtime.workers,
        ),
    ];
    let changed = fixed.into_iter().filter(|(_, same)| !same);
    changed
        .map(|(what, _)| format!("{what}: cannot change while the process runs: restart it"))
        .collect()
}
