//! Keys in memory. The request path asks here and does no I/O for a key it has seen; everything that talks to the database
//! runs on the background runtime. Whether a grant is good at a moment is `model`'s to say.

mod follow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use model::{Grant, KeyDigest, TenantId};
use moka::{future, sync};
use store::{Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

pub(crate) use self::follow::{PART, follow, load};
use crate::config::KeySettings;
use crate::metrics::Metrics;

/// Questions to the database that may be open at once. More would only wait for a connection.
const FETCHES: usize = 64;
/// How long a question may take. A pool whose database is gone waits longer than a sender would.
const ASK_MAX: Duration = Duration::from_secs(2);
/// How long a failed refresh is not tried again.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Names in Basic credentials that were looked up as tenants.
const TENANT_NAMES: u64 = 10_000;
const TENANT_NAMES_FOR: Duration = Duration::from_mins(1);

/// A grant in memory, with what the request path needs of it made once.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) grant: Grant,
    pub(crate) tenant_header: HeaderValue,
    fetched: Instant,
    /// When it should be fetched again; spread, so that keys loaded together are not asked for together.
    refresh_after: Duration,
    refreshing: AtomicBool,
}

impl Held {
    fn new(digest: &KeyDigest, grant: Grant, refresh_after: Duration) -> Arc<Self> {
        let [spread, ..] = digest.as_bytes();
        let tenant_header = HeaderValue::from_str(grant.tenant.as_str());
        Arc::new(Self {
            // Tenant ids are printable ASCII by construction.
            tenant_header: tenant_header.unwrap_or(HeaderValue::from_static("")),
            grant,
            fetched: Instant::now(),
            refresh_after: refresh_after.mul_f64(0.8 + f64::from(*spread) / 640.0),
            refreshing: AtomicBool::new(false),
        })
    }
}

/// What asking the database about a key came to.
pub(crate) enum Lookup {
    Held(Arc<Held>),
    Unknown,
    /// The database does not answer, or too many are asking: nothing is known about the key.
    Unavailable,
}

#[derive(Debug, Clone, Copy)]
enum Missing {
    Unknown,
    Unavailable,
}

/// Why nothing could be learnt about a key.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Store(StoreError),
    #[error("the database did not answer within {} s", ASK_MAX.as_secs())]
    TooSlow,
}

/// All keys this process knows, and those it knows not to exist.
pub(crate) struct Keyring {
    held: future::Cache<KeyDigest, Arc<Held>>,
    unknown: sync::Cache<KeyDigest, ()>,
    tenants: future::Cache<TenantId, bool>,
    store: Store,
    background: Handle,
    fetches: Semaphore,
    settings: KeySettings,
    metrics: Arc<Metrics>,
}

impl Keyring {
    /// `background` is the runtime that talks to the database.
    pub(crate) fn new(
        store: Store,
        background: Handle,
        settings: KeySettings,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            held: future::Cache::new(u64::from(settings.held_max)),
            unknown: sync::Cache::builder()
                .max_capacity(u64::from(settings.unknown_max))
                .time_to_live(settings.unknown_for)
                .build(),
            tenants: future::Cache::builder()
                .max_capacity(TENANT_NAMES)
                .time_to_live(TENANT_NAMES_FOR)
                .build(),
            store,
            background,
            fetches: Semaphore::new(FETCHES),
            settings,
            metrics,
        })
    }

    /// The key if it is in memory; one that has become old is served and fetched again behind the request's back.
    pub(crate) async fn held(self: &Arc<Self>, digest: &KeyDigest) -> Option<Arc<Held>> {
        let held = self.held.get(digest).await?;
        let age = held.fetched.elapsed();
        if age > held.refresh_after {
            if age > self.settings.stale_for {
                self.held.invalidate(digest).await;
                return None;
            }
            if !held.refreshing.swap(true, Ordering::Relaxed) {
                let (keyring, digest, held) = (Arc::clone(self), *digest, Arc::clone(&held));
                self.background.spawn(async move {
                    if !keyring.refresh(digest).await {
                        tokio::time::sleep(REFRESH_PAUSE).await;
                        held.refreshing.store(false, Ordering::Relaxed);
                    }
                });
            }
        }
        Some(held)
    }

    /// Asks the database for a key that is not in memory: once, however many requests bring it.
    pub(crate) async fn fetch(self: &Arc<Self>, digest: KeyDigest) -> Lookup {
        if self.unknown.contains_key(&digest) {
            return Lookup::Unknown;
        }
        let fetched = self
            .held
            .try_get_with(digest, self.fetch_alone(digest))
            .await;
        match fetched.map_err(|missing| *missing) {
            Ok(held) => Lookup::Held(held),
            Err(Missing::Unknown) => Lookup::Unknown,
            Err(Missing::Unavailable) => Lookup::Unavailable,
        }
    }

    async fn fetch_alone(self: &Arc<Self>, digest: KeyDigest) -> Result<Arc<Held>, Missing> {
        let Ok(_permit) = self.fetches.try_acquire() else {
            return Err(Missing::Unavailable);
        };
        let keyring = Arc::clone(self);
        let asked = self
            .background
            .spawn(async move { keyring.ask(digest).await });
        match asked.await {
            Ok(Ok(Some(grant))) => Ok(Held::new(&digest, grant, self.settings.refresh_after)),
            Ok(Ok(None)) => {
                self.unknown.insert(digest, ());
                Err(Missing::Unknown)
            }
            Ok(Err(_)) | Err(_) => Err(Missing::Unavailable),
        }
    }

    /// Fetches a key again. False when the database could not say; the key in memory then stays as it is.
    async fn refresh(&self, digest: KeyDigest) -> bool {
        match self.ask(digest).await {
            Ok(Some(grant)) => {
                let held = Held::new(&digest, grant, self.settings.refresh_after);
                self.held.insert(digest, held).await;
                self.unknown.invalidate(&digest);
                true
            }
            Ok(None) => {
                self.unknown.insert(digest, ());
                self.held.invalidate(&digest).await;
                true
            }
            Err(_) => false,
        }
    }

    async fn ask(&self, digest: KeyDigest) -> Result<Option<Grant>, AskError> {
        self.metrics.key_fetches.increment(1);
        let asking = self.store.grant_fetch(&digest);
        let asked = match tokio::time::timeout(ASK_MAX, asking).await {
            Ok(asked) => asked.map_err(AskError::Store),
            Err(_) => Err(AskError::TooSlow),
        };
        if let Err(error) = &asked {
            self.metrics.key_fetch_errors.increment(1);
            warn!(error = %Chain(error), "a key could not be read from the database");
        }
        asked
    }

    /// Whether there is a tenant of this name. False while the database does not answer: the name is only a hint.
    pub(crate) async fn tenant_exists(self: &Arc<Self>, tenant: &TenantId) -> bool {
        let asking = async {
            let _permit = self.fetches.try_acquire().map_err(|_| ())?;
            let (keyring, tenant) = (Arc::clone(self), tenant.clone());
            let asked = self
                .background
                .spawn(async move { keyring.store.tenant_fetch(&tenant).await });
            match asked.await {
                Ok(Ok(found)) => Ok(found.is_some()),
                Ok(Err(_)) | Err(_) => Err(()),
            }
        };
        let found = self.tenants.try_get_with(tenant.clone(), asking).await;
        found.unwrap_or(false)
    }
}

/// An error with all its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
