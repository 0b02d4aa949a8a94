//! The only place that constructs long-lived things: sockets first, so that a port that is taken fails the start, then keys,
//! workers and tasks, top to bottom. Nothing here is a global.
//!
//! Two kinds of things are told apart. What lives as long as the process is made here; what a configuration makes, the workers'
//! [`Blueprint`] and the listeners, can be exchanged while requests run ([`reload`]).

mod check;
mod listeners;
mod reload;
mod stop;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ops::inherited::Inherited;
use ops::probe::{self, Readiness};
use store::{Store, StoreError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::check::{check_files, try_connections};
use self::listeners::Listeners;
pub use self::reload::ReloadError;
use self::workers::Workers;
use crate::acme::{self, Acme};
use crate::clock::Clock;
use crate::config::Config;
use crate::failures::{self, Failures};
use crate::keys::{self, Keyring};
use crate::listen::Ending;
use crate::listen::gate::Gate;
use crate::listen::tls::{self, Tls};
use crate::log_limits::{self, LogLimits};
use crate::metrics::Metrics;
use crate::spans::SpanExports;
use crate::uses;
use crate::worker::{Blueprint, Common};

/// Why the edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({name}): {source}")]
    Listen {
        /// The listener's name in the configuration.
        name: String,
        /// The address it was given.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The database has a schema this program does not know.
    #[error(transparent)]
    Schema(StoreError),
    /// Inherited sockets that nothing in the configuration listens on: whoever connects to them would wait for ever.
    #[error("no listener has the name or the address of these inherited sockets: {0}")]
    Inherited(String),
    /// Something that the configuration names cannot be had; one line each.
    #[error("{}", .0.join("\n"))]
    Configuration(Vec<String>),
    /// The operating system refused a thread or randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// There is no randomness for tickets.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The metrics' own settings are wrong.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// How long a start waits for the database, once to reach it and once for its answer.
const DATABASE_MAX: Duration = Duration::from_millis(500);

/// A name that no listener has.
#[derive(Debug, thiserror::Error)]
#[error("there is no listener {0}")]
pub struct UnknownListener(String);

/// A running edge.
pub struct Running {
    /// Where the operator can reach it.
    pub ops_address: SocketAddr,
    config: Config,
    listeners: Listeners,
    tls: Arc<Tls>,
    acme: Acme,
    workers: Workers,
    failures: Arc<Failures>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: JoinSet<()>,
    exports: SpanExports,
    /// Comes first: connections end.
    ending: Ending,
    /// Cancelled when they have: everything else ends.
    stop: CancellationToken,
}

/// Starts the edge on the current runtime, which becomes its background runtime; requests are served on threads of their
/// own. Listeners take over the `inherited` sockets that have their name or address.
///
/// # Errors
/// When a port is taken, the database has an unknown schema, or an upstream's TLS settings are wrong. A database that does
/// not answer is no error: it is tried until it does.
pub async fn start(config: Config, inherited: Inherited) -> Result<Running, StartError> {
    let (metrics, rendered) = Metrics::new()?;
    let readiness = Readiness::default();
    let (ending, stop) = (Ending::default(), CancellationToken::new());
    let mut tasks = JoinSet::new();

    let (ops_socket, _) = listeners::open(listeners::OPS, config.ops_address, &inherited)?;
    let ops_address = ops_socket.local_addr()?;
    let log_limits = Arc::new(LogLimits::default());
    let gate = Gate::new(&config.connections, &config.strangers);
    let mut listeners = Listeners::new(inherited, &ending, gate, Arc::clone(&log_limits));
    let opened = listeners
        .open_new(&config.listeners)
        .map_err(StartError::Configuration)?;
    listeners.nothing_left(config.ops_address, &config.listeners)?;
    let tls = Arc::new(Tls::new(Arc::clone(&metrics))?);
    let prepared = tls
        .prepare(&config.listeners)
        .map_err(StartError::Configuration)?;
    let obtaining = acme::prepare(config.acme.as_ref()).map_err(StartError::Configuration)?;

    let store = Store::open(&config.database, config.database_connections);
    check_schema(&store).await?;
    let failures = Arc::new(Failures::new(&config.auth_failures, Arc::clone(&metrics)));
    tasks.spawn(failures::keep_reporting(
        Arc::clone(&failures),
        stop.clone(),
    ));
    let (hand_over, arriving) = uses::queue();
    tasks.spawn(uses::keep_writing(
        store.clone(),
        arriving,
        metrics.uses.clone(),
        stop.clone(),
    ));
    let keyring = Keyring::new(
        store,
        Handle::current(),
        config.keys.clone(),
        Arc::clone(&failures),
        Arc::clone(&metrics),
    );
    readiness.blocked_by(keys::PART, "not loaded yet");
    tasks.spawn(keys::keep(
        Arc::clone(&keyring),
        readiness.clone(),
        stop.clone(),
    ));

    tasks.spawn(log_limits::keep_telling(
        Arc::clone(&log_limits),
        Arc::clone(&metrics),
        stop.clone(),
    ));
    let common = Common {
        keys: keyring,
        failures: Arc::clone(&failures),
        clock: Arc::new(Clock::start()),
        metrics: Arc::clone(&metrics),
        log_limits,
        draining: ending.draining.clone(),
    };
    let mut exports = SpanExports::new(&metrics.spans, &stop);
    let spans = exports.start(config.spans.as_ref());
    let spans = spans.map_err(|problem| StartError::Configuration(vec![problem]))?;
    let blueprint = Blueprint::new(&config, spans, &metrics)
        .await
        .map_err(StartError::Configuration)?;
    let workers = Workers::start(config.runtime.workers, blueprint, &common, &hand_over)?;
    listeners.accept(opened, &prepared, &workers, &metrics);
    tls.put_in_force(&prepared);
    tasks.spawn(tls::keep_fresh(Arc::clone(&tls), stop.clone()));
    let mut acme = Acme::new(tls.challenges(), Arc::clone(&metrics));
    acme.replace(obtaining).await;
    let probing = probe::serve(ops_socket, rendered, readiness.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = probing.await {
            warn!(%error, "the ops port stopped");
        }
    });
    info!(addresses = ?listeners.addresses(), %ops_address, "the edge is up");
    metrics.config.loaded(true);
    Ok(Running {
        ops_address,
        config,
        listeners,
        tls,
        acme,
        workers,
        failures,
        metrics,
        readiness,
        tasks,
        exports,
        ending,
        stop,
    })
}

/// Refuses a database whose schema is not ours. One that does not answer may be started later.
async fn check_schema(store: &Store) -> Result<(), StartError> {
    let checked = async {
        store.reach(DATABASE_MAX).await?;
        store::within(DATABASE_MAX, store.schema_check()).await
    };
    match checked.await {
        Ok(()) | Err(StoreError::Unavailable(_)) => Ok(()),
        Err(error) => Err(StartError::Schema(error)),
    }
}

impl Running {
    /// The address of a listener, by its name in the configuration.
    ///
    /// # Errors
    /// When the configuration has no such listener.
    pub fn listener(&self, name: &str) -> Result<SocketAddr, UnknownListener> {
        let addresses = self.listeners.addresses();
        let found = addresses.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, address)| *address)
            .ok_or_else(|| UnknownListener(name.to_owned()))
    }

    /// Waits until every part can do its work: the keys are loaded.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let readiness = self.readiness.clone();
        async move { readiness.wait().await }
    }

    /// Waits until a task ends that never should: then the process had better stop.
    pub async fn failed(&mut self) {
        tokio::select! {
            _ = self.tasks.join_next() => {}
            () = self.listeners.failed() => {}
        }
    }

    /// Whether the configuration in force asks to be replaced when its file changes.
    pub const fn reloads_on_change(&self) -> bool {
        self.config.runtime.reload_on_change
    }
}
