//! Puts the control plane together and runs it: the only place that makes its long-lived things.

use std::future::{Future, IntoFuture as _};
use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ControlConfig;
use crate::api::router::{Deps, router};
use crate::housekeeping::{Pace, keep_house};

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
        let (served, ()) =
            tokio::join!(serving.into_future(), keep_house(store, Pace::USUAL, stop));
        served
    })
}
