//! Keys in memory. The request path asks here and does no I/O for a key it has seen; everything that talks to the database
//! runs on the background runtime. Whether a grant is good at a moment is `model`'s to say.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `mod` | look-ups: in memory, and of the database for a key that is not |
//! | `follow` | the task that fills the memory, follows the feed of changes, and goes on without the database |
//! | `apply` | what a read of the database does to the memory |
//! | `save`, `snapshot` | the copy on disk: when it is written, and its format |
//!
//! Two things write to the memory at a time: the follower, and requests with keys that are not in it. A request may read a
//! row just before it changes, and put it into memory just after the follower has dealt with the change. So every change
//! first raises the epoch of its keys, and whoever has put something into memory looks whether the epoch is still the one
//! it began with; if not, it reads again.

mod apply;
mod follow;
mod save;
mod snapshot;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use model::{Grant, KeyDigest, TenantId};
use moka::policy::EvictionPolicy;
use moka::{future, sync};
use store::{Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use self::follow::{PART, keep};
use crate::config::KeySettings;
use crate::failures::Failures;
use crate::metrics::{Metrics, OfTenant, TenantMetrics};

/// Questions to the database that may be open at once. More would only wait for a connection.
const FETCHES: usize = 64;
/// How long a question may take. A pool whose database is gone waits longer than a sender would.
const ASK_MAX: Duration = Duration::from_secs(2);
/// How often a key is read again because it changed while it was read.
const READS_MAX: u32 = 5;
/// Names in Basic credentials that were looked up as tenants.
const TENANT_NAMES: u64 = 10_000;
const TENANT_NAMES_FOR: Duration = Duration::from_mins(1);

/// A grant in memory, with what the request path needs of it made once.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) grant: Grant,
    pub(crate) tenant_header: HeaderValue,
    metrics: OnceLock<Arc<OfTenant>>,
    /// The last reading of all keys that found it as it is.
    confirmed_by: AtomicU64,
}

impl Held {
    fn new(grant: Grant, reading: u64) -> Arc<Self> {
        let tenant_header = HeaderValue::from_str(grant.tenant.as_str());
        Arc::new(Self {
            // Tenant ids are printable ASCII by construction.
            tenant_header: tenant_header.unwrap_or(HeaderValue::from_static("")),
            grant,
            metrics: OnceLock::new(),
            confirmed_by: AtomicU64::new(reading),
        })
    }

    /// Where its tenant is counted. Looked up when the key is first used, so that tenants which do not send need no labels.
    pub(crate) fn metrics(&self, all: &TenantMetrics, labels_max: u32) -> &OfTenant {
        self.metrics
            .get_or_init(|| all.of(&self.grant.tenant, labels_max))
    }
}

/// What asking the database about a key came to.
pub(crate) enum Lookup {
    Held(Arc<Held>),
    Unknown,
    /// The database does not answer, too many are asking, or the key's row is not valid: nothing is known about the key.
    Unavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Unknown,
    /// There is a row, and nobody can say what it means.
    Bad,
    Unavailable,
}

/// A key that was asked for in vain, remembered.
#[derive(Debug, Clone, Copy)]
struct Absent {
    missing: Missing,
    epoch: u64,
}

/// Why nothing could be learnt about a key.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Store(StoreError),
    #[error("the database did not answer within {} s", ASK_MAX.as_secs())]
    TooSlow,
}

/// How old what is in memory is: at `at` it was `age_then` behind the database.
#[derive(Debug, Clone, Copy)]
struct Freshness {
    at: Instant,
    age_then: Duration,
}

/// All keys this process knows, and those it knows not to exist.
pub(crate) struct Keyring {
    held: future::Cache<KeyDigest, Arc<Held>>,
    absent: sync::Cache<KeyDigest, Absent>,
    tenants: future::Cache<TenantId, bool>,
    /// How often keys changed, by the first byte of their digests.
    epochs: Box<[AtomicU64]>,
    /// The number of the current reading of all keys.
    reading: AtomicU64,
    /// Whether the database is worth asking.
    database_up: AtomicBool,
    /// Cancelled once that is known. Before, one that is away would let a request wait, and another one in its place would
    /// call every key unknown.
    tried: CancellationToken,
    /// Whether what is in memory has become too old to be served.
    too_stale: AtomicBool,
    /// `None` before there is anything in memory.
    freshness: Mutex<Option<Freshness>>,
    /// Which database the keys in memory came from.
    installation: Mutex<Option<String>>,
    /// Rung when the copy on disk is behind.
    unsaved: Notify,
    store: Store,
    background: Handle,
    fetches: Semaphore,
    settings: KeySettings,
    failures: Arc<Failures>,
    metrics: Arc<Metrics>,
}

impl Keyring {
    /// `background` is the runtime that talks to the database.
    pub(crate) fn new(
        store: Store,
        background: Handle,
        settings: KeySettings,
        failures: Arc<Failures>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            // What is in use stays: with more keys than fit, the default policy would turn new ones away.
            held: future::Cache::builder()
                .max_capacity(u64::from(settings.held_max))
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            absent: sync::Cache::builder()
                .max_capacity(u64::from(settings.unknown_max))
                .time_to_live(settings.unknown_for)
                .build(),
            tenants: future::Cache::builder()
                .max_capacity(TENANT_NAMES)
                .time_to_live(TENANT_NAMES_FOR)
                .build(),
            epochs: (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect(),
            reading: AtomicU64::new(0),
            // Once it has answered, a request may ask: the keys are being loaded.
            database_up: AtomicBool::new(true),
            tried: CancellationToken::new(),
            too_stale: AtomicBool::new(false),
            freshness: Mutex::new(None),
            installation: Mutex::new(None),
            unsaved: Notify::new(),
            store,
            background,
            fetches: Semaphore::new(FETCHES),
            settings,
            failures,
            metrics,
        })
    }

    /// The key if it is in memory, and what is in memory is not too old to be believed.
    pub(crate) async fn held(&self, digest: &KeyDigest) -> Option<Arc<Held>> {
        if self.too_stale.load(Ordering::Relaxed) {
            return None;
        }
        self.held.get(digest).await
    }

    /// What is remembered of a key that was asked for in vain.
    pub(crate) fn absent(&self, digest: &KeyDigest) -> Option<Lookup> {
        let absent = self.absent.get(digest)?;
        (absent.epoch == self.epoch(digest)).then(|| absent.missing.into())
    }

    /// Asks the database for a key that is not in memory: once, however many requests bring it.
    pub(crate) async fn fetch(self: &Arc<Self>, digest: KeyDigest) -> Lookup {
        if !self.tried.is_cancelled() {
            // A try that takes longer has its own end, and finds the database away.
            let _ = tokio::time::timeout(ASK_MAX, self.tried.cancelled()).await;
            if let Some(held) = self.held(&digest).await {
                return Lookup::Held(held);
            }
            if !self.tried.is_cancelled() {
                return Lookup::Unavailable;
            }
        }
        if let Some(absent) = self.absent(&digest) {
            return absent;
        }
        if !self.database_up.load(Ordering::Relaxed) || self.too_stale.load(Ordering::Relaxed) {
            return Lookup::Unavailable;
        }
        let epoch = self.epoch(&digest);
        let fetched = self
            .held
            .try_get_with(digest, self.fetch_alone(digest, epoch))
            .await;
        match fetched.map_err(|missing| *missing) {
            Ok(held) if self.epoch(&digest) == epoch => Lookup::Held(held),
            // It changed while it was read.
            Ok(_) => self.read_again(digest).await,
            Err(missing) => missing.into(),
        }
    }

    async fn fetch_alone(
        self: &Arc<Self>,
        digest: KeyDigest,
        epoch: u64,
    ) -> Result<Arc<Held>, Missing> {
        let Ok(_permit) = self.fetches.try_acquire() else {
            return Err(Missing::Unavailable);
        };
        let keyring = Arc::clone(self);
        let asked = self
            .background
            .spawn(async move { keyring.ask(digest).await });
        let missing = match asked.await {
            Ok(Ok(Some(grant))) => {
                self.unsaved.notify_one();
                self.failures.forget(&digest);
                return Ok(Held::new(grant, self.reading.load(Ordering::Relaxed)));
            }
            Ok(Ok(None)) => Missing::Unknown,
            Ok(Err(AskError::Store(StoreError::BadRow { .. }))) => Missing::Bad,
            Ok(Err(_)) | Err(_) => return Err(Missing::Unavailable),
        };
        self.absent.insert(digest, Absent { missing, epoch });
        Err(missing)
    }

    /// Reads a key until it does not change meanwhile.
    async fn read_again(self: &Arc<Self>, digest: KeyDigest) -> Lookup {
        let keyring = Arc::clone(self);
        let read = self.background.spawn(async move {
            for _ in 0..READS_MAX {
                let epoch = keyring.epoch(&digest);
                let found = keyring.ask(digest).await.ok()?;
                keyring.put(digest, found.clone()).await;
                if keyring.epoch(&digest) == epoch {
                    return Some(found);
                }
            }
            None
        });
        match read.await {
            Ok(Some(Some(_))) => match self.held.get(&digest).await {
                Some(held) => Lookup::Held(held),
                None => Lookup::Unavailable,
            },
            Ok(Some(None)) => Lookup::Unknown,
            Ok(None) | Err(_) => {
                // What is in memory may be the state before the change.
                self.held.invalidate(&digest).await;
                Lookup::Unavailable
            }
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
            if !self.database_up.load(Ordering::Relaxed) {
                return Err(());
            }
            let _permit = self.fetches.try_acquire().map_err(|_| ())?;
            let (keyring, tenant) = (Arc::clone(self), tenant.clone());
            let asked = self.background.spawn(async move {
                tokio::time::timeout(ASK_MAX, keyring.store.tenant_fetch(&tenant)).await
            });
            match asked.await {
                Ok(Ok(Ok(found))) => Ok(found.is_some()),
                Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(()),
            }
        };
        let found = self.tenants.try_get_with(tenant.clone(), asking).await;
        found.unwrap_or(false)
    }

    fn epoch(&self, digest: &KeyDigest) -> u64 {
        let [first, ..] = digest.as_bytes();
        let epoch = self.epochs.get(usize::from(*first));
        epoch.map_or(0, |epoch| epoch.load(Ordering::SeqCst))
    }

    fn raise_epoch(&self, digest: &KeyDigest) {
        let [first, ..] = digest.as_bytes();
        if let Some(epoch) = self.epochs.get(usize::from(*first)) {
            epoch.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn raise_all_epochs(&self) {
        for epoch in &self.epochs {
            epoch.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Notes that what is in memory was `age` behind the database just now.
    fn is_fresh(&self, age: Duration) {
        let now = Freshness {
            at: Instant::now(),
            age_then: age,
        };
        *locked(&self.freshness) = Some(now);
        self.check_age();
    }

    /// How old what is in memory is; `None` before there is anything.
    fn age(&self) -> Option<Duration> {
        let freshness = *locked(&self.freshness);
        freshness.map(|freshness| freshness.at.elapsed().saturating_add(freshness.age_then))
    }

    /// Stops serving what has become too old.
    fn check_age(&self) {
        let Some(age) = self.age() else { return };
        self.metrics.key_data_age.set(age.as_secs_f64());
        let too_stale = age > self.settings.stale_for;
        if too_stale && !self.too_stale.load(Ordering::Relaxed) {
            tracing::error!(
                age_seconds = age.as_secs(),
                "the keys in memory are older than keys.stale_for: all requests are told to wait until the database is back"
            );
        }
        self.too_stale.store(too_stale, Ordering::Relaxed);
    }

    /// The file of the copy on disk, if one is kept.
    fn snapshot_file(&self) -> Option<&PathBuf> {
        self.settings.snapshot_file.as_ref()
    }
}

impl From<Missing> for Lookup {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Unknown => Self::Unknown,
            Missing::Bad | Missing::Unavailable => Self::Unavailable,
        }
    }
}

/// What is behind a lock is replaced whole, so a panic elsewhere leaves nothing half-done.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
