//! Puts the control plane together and runs it: the only place that makes its long-lived things.

use std::future::{Future, IntoFuture as _};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use store::{Store, StoreError};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ControlConfig;
use crate::api::router::{Deps, router};

/// When old rows are deleted first, and how often from then on.
const HOUSEKEEPING_FIRST: Duration = Duration::from_mins(1);
const HOUSEKEEPING_EVERY: Duration = Duration::from_hours(1);

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database does not answer, or its schema is not ours.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener is of no use.
    #[error("the admin API cannot listen")]
    Listen(#[from] io::Error),
}

/// A control plane that serves. Dropping it leaves it running; [`Running::stop`] ends it.
#[derive(Debug)]
pub struct Running {
    /// Where the admin API listens.
    pub addr: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Takes no new requests, and waits for those under way.
    pub async fn stop(self) -> io::Result<()> {
        self.stop.cancel();
        self.served.await?
    }
}

/// Serves the admin API on `listener`, over a database that must have our schema.
pub async fn start(listener: TcpListener, store: Store) -> Result<Running, StartError> {
    let stop = CancellationToken::new();
    let addr = listener.local_addr()?;
    let serving = prepare(listener, store, stop.clone()).await?;
    Ok(Running {
        addr,
        stop,
        served: tokio::spawn(serving),
    })
}

/// `okmon control`: starts as `config` says and serves until `stop`.
pub async fn run(config: ControlConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}: stop what holds the port, or change `listen`")
    })?;
    let store = Store::connect(&config.database, config.database_connections)
        .await
        .with_context(|| format!("cannot use {}", config.database))?;
    let addr = listener.local_addr()?;
    let serving = prepare(listener, store.clone(), stop).await?;
    tracing::info!(%addr, database = %config.database, "the admin API listens");
    let served = serving.await;
    store.close().await;
    Ok(served?)
}

async fn prepare(
    listener: TcpListener,
    store: Store,
    stop: CancellationToken,
) -> Result<impl Future<Output = io::Result<()>> + use<>, StartError> {
    store.schema_check().await?;
    let router = router(Deps {
        store: store.clone(),
    });
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    Ok(async move {
        let (served, ()) = tokio::join!(serving.into_future(), keep_house(store, stop));
        served
    })
}

/// Forgets what is old, from time to time, until `stop`. Several control planes may do so at once.
async fn keep_house(store: Store, stop: CancellationToken) {
    let mut pause = HOUSEKEEPING_FIRST;
    loop {
        let chance = getrandom::u32().unwrap_or_default();
        let pause_by_chance = pause + pause.mul_f64(0.1 * f64::from(chance) / f64::from(u32::MAX));
        tokio::select! {
            () = tokio::time::sleep(pause_by_chance) => {}
            () = stop.cancelled() => return,
        }
        pause = HOUSEKEEPING_EVERY;
        match store.forget(OffsetDateTime::now_utc()).await {
            Ok(forgotten) => tracing::debug!(?forgotten, "old rows were deleted"),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "old rows could not be deleted; tried again in an hour"
                );
            }
        }
    }
}
