//! The only place that constructs long-lived things: sockets first, so that a port that is taken fails the start, then keys,
//! workers and tasks, top to bottom. Nothing here is a global.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use ops::probe::{self, Readiness};
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::failures::{self, Failures};
use crate::keys::{self, Keyring};
use crate::listen::{self, WorkerSender};
use crate::log_limits::{self, LogLimits};
use crate::metrics::Metrics;
use crate::upstream::{self, Shared, Targets, TlsError};
use crate::uses::{self, HandedOver, Uses};
use crate::worker::{Common, Current, Settings, Worker};

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
    /// The TLS side of an upstream cannot be set up.
    #[error("upstreams.{name}: {reason}")]
    Upstream {
        /// The upstream's name in the configuration.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused a thread or randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
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
    /// Where senders can reach it: the listeners' names and addresses.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Where the operator can.
    pub ops_address: SocketAddr,
    readiness: Readiness,
    tasks: JoinSet<()>,
    workers: Vec<std::thread::JoinHandle<()>>,
    draining: CancellationToken,
    stop: CancellationToken,
    drain_max: Duration,
    /// Kept alive for as long as the workers may hand connections over.
    _senders: Vec<WorkerSender>,
}

/// Starts the edge on the current runtime, which becomes its background runtime; requests are served on threads of their
/// own.
///
/// # Errors
/// When a port is taken, the database has an unknown schema, or an upstream's TLS settings are wrong. A database that does
/// not answer is no error: it is tried until it does.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let (metrics, rendered) = Metrics::new()?;
    let readiness = Readiness::default();
    let draining = CancellationToken::new();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();

    let ops_listener = bind("ops", config.ops_address).await?;
    let ops_address = ops_listener.local_addr()?;
    let mut listeners = Vec::new();
    for settings in &config.listeners {
        listeners.push((
            bind(&settings.name, settings.address).await?,
            Arc::new(settings.clone()),
        ));
    }

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

    let log_limits = Arc::new(LogLimits::default());
    tasks.spawn(log_limits::keep_telling(
        Arc::clone(&log_limits),
        Arc::clone(&metrics),
        stop.clone(),
    ));
    let common = Common {
        keys: keyring,
        failures,
        clock: Arc::new(Clock::start()),
        metrics: Arc::clone(&metrics),
        log_limits,
        draining: draining.clone(),
    };
    let (workers, senders) = start_workers(&config, &common, &hand_over)?;
    let mut addresses = Vec::new();
    for (listener, settings) in listeners {
        addresses.push((settings.name.clone(), listener.local_addr()?));
        let accepting = listen::accept(
            listener,
            settings,
            senders.clone(),
            Arc::clone(&metrics),
            draining.clone(),
        );
        tasks.spawn(accepting);
    }
    let probing = probe::serve(ops_listener, rendered, readiness.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = probing.await {
            warn!(%error, "the ops port stopped");
        }
    });
    info!(?addresses, %ops_address, "the edge is up");
    Ok(Running {
        listeners: addresses,
        ops_address,
        readiness,
        tasks,
        workers,
        draining,
        stop,
        drain_max: config.drain_max,
        _senders: senders,
    })
}

async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            name: name.to_owned(),
            address,
            source,
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

/// Starts a thread with a runtime of its own per core: requests never move between cores and share no lock.
fn start_workers(
    config: &Config,
    common: &Common,
    hand_over: &mpsc::Sender<HandedOver>,
) -> Result<(Vec<std::thread::JoinHandle<()>>, Vec<WorkerSender>), StartError> {
    let mut connectors = Vec::new();
    for (name, upstream) in &config.upstreams {
        let shared = Shared::new(upstream).map_err(|error: TlsError| StartError::Upstream {
            name: name.clone(),
            reason: error.to_string(),
        })?;
        connectors.push(Arc::new(shared));
    }
    let connectors = Arc::new(connectors);
    let settings = Arc::new(Settings {
        body_max: config.body_max,
        body_idle_max: config.body_idle_max,
        suspend_grace: config.suspend_grace,
        connections: config.connections.clone(),
        request_log: config.request_log,
        tenant_labels_max: config.tenant_labels_max,
    });
    let (mut threads, mut senders) = (Vec::new(), Vec::new());
    for n in 0..config.workers {
        let (connections, accepted) = mpsc::unbounded_channel();
        senders.push(WorkerSender {
            connections,
            load: Arc::new(AtomicUsize::new(0)),
        });
        let (common, connectors) = (common.clone(), Arc::clone(&connectors));
        let settings = Arc::clone(&settings);
        let uses = Uses::new(hand_over.clone(), common.metrics.uses.clone());
        let (upstreams, routes) = (config.upstreams.clone(), config.routes.clone());
        let runtime = move || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())?;
            let targets = Targets::new(
                &upstreams,
                &routes,
                &connectors,
                settings.body_idle_max,
                &common.metrics.upstream_connections,
            );
            let current = Current { settings, targets };
            let worker = Worker::new(common, current, uses).map_err(io::Error::other)?;
            runtime.block_on(async {
                tokio::select! {
                    () = listen::serve_accepted(Rc::clone(&worker), accepted) => {}
                    () = uses::keep_handing_over(Rc::clone(&worker)) => {}
                }
            });
            worker.uses.hand_over();
            Ok(())
        };
        let thread = std::thread::Builder::new().name(format!("edge-{n}"));
        threads.push(thread.spawn(move || {
            if let Err(error) = runtime() {
                tracing::error!(%error, "a worker could not start");
            }
        })?);
    }
    Ok((threads, senders))
}

/// Tries the database and every upstream once; one line per problem.
pub async fn try_connections(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let store = Store::open(&config.database, 1);
    if let Err(error) = store.schema_check().await {
        problems.push(format!("database.url: {}", keys::Chain(&error)));
    }
    for (name, upstream) in &config.upstreams {
        if let Err(reason) = upstream::try_connection(upstream).await {
            problems.push(format!("upstreams.{name}: {reason}"));
        }
    }
    problems
}

impl Running {
    /// The address of a listener, by its name in the configuration.
    ///
    /// # Errors
    /// When the configuration has no such listener.
    pub fn listener(&self, name: &str) -> Result<SocketAddr, UnknownListener> {
        let found = self.listeners.iter().find(|(known, _)| known == name);
        found
            .map(|(_, address)| *address)
            .ok_or_else(|| UnknownListener(name.to_owned()))
    }

    /// Waits until every part can do its work: the keys are loaded.
    pub async fn ready(&self) {
        self.readiness.wait().await;
    }

    /// Waits until a task ends that never should: then the process had better stop.
    pub async fn failed(&mut self) {
        self.tasks.join_next().await;
    }

    /// Stops: takes no new connections, answers what is in flight for as long as the configuration allows, then ends.
    pub async fn stop(self) {
        let Self {
            mut tasks,
            workers,
            draining,
            stop,
            drain_max,
            _senders: senders,
            ..
        } = self;
        draining.cancel();
        drop(senders);
        let ended = async {
            // A worker ends when the last sender is gone and its connections are over.
            let joined = tokio::task::spawn_blocking(move || {
                for worker in workers {
                    // A worker that panicked has said so.
                    let _ = worker.join();
                }
            });
            let _ = joined.await;
        };
        if tokio::time::timeout(drain_max, ended).await.is_err() {
            warn!("requests in flight were cut off: they took longer than runtime.drain_max");
        }
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}
