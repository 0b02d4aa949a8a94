//! What a read of the database does to the keys in memory: changes of the feed, and readings of all keys. Only the follower
//! comes here, one call at a time.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Grant, KeyDigest, TenantId};
use store::{Change, Changed, Grants, StoreError};
use tracing::warn;

use super::{Held, Keyring};

/// How long the database may take to answer one question of the follower's. A page of keys takes the longest.
const READ_MAX: Duration = Duration::from_secs(10);
/// Keys read at once.
const PAGE: u32 = 10_000;
/// Changed keys asked for at once.
const DIGESTS: usize = 1000;

/// Whether all of what changed could be dealt with, or only reading everything again can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    All,
    ReadAllAgain,
}

impl Keyring {
    /// Puts what the database says about one key into memory.
    pub(super) async fn put(&self, digest: KeyDigest, found: Option<Grant>) {
        match found {
            Some(grant) => {
                let held = Held::new(grant, self.reading.load(Ordering::Relaxed));
                self.held.insert(digest, held).await;
                self.failures.forget(&digest);
            }
            None => self.held.invalidate(&digest).await,
        }
        self.absent.invalidate(&digest);
    }

    /// Reads again what `changes` name. New keys that work are taken into memory: the first request with one waits for
    /// nobody.
    pub(super) async fn apply(&self, changes: &[Change]) -> Result<Applied, StoreError> {
        let (mut digests, mut tenants) = (HashSet::new(), BTreeSet::new());
        for change in changes {
            self.metrics.key_changes.increment(1);
            match &change.changed {
                Changed::Key { digest, .. } => {
                    digests.insert(*digest);
                }
                Changed::Tenant(tenant) => {
                    tenants.insert(tenant.clone());
                }
                Changed::Everything => return Ok(Applied::ReadAllAgain),
            }
        }
        for tenant in &tenants {
            self.apply_tenant(tenant).await?;
        }
        let digests: Vec<_> = digests.into_iter().collect();
        for digests in digests.chunks(DIGESTS) {
            self.apply_keys(digests).await?;
        }
        if !changes.is_empty() {
            self.unsaved.notify_one();
        }
        Ok(Applied::All)
    }

    async fn apply_tenant(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.tenants.invalidate(tenant).await;
        // Which keys a tenant has is known to the database only; those that were deleted have changes of their own.
        self.raise_all_epochs();
        let grants = within(self.store.grants_of_tenant(tenant)).await?;
        self.take(grants).await;
        Ok(())
    }

    async fn apply_keys(&self, digests: &[KeyDigest]) -> Result<(), StoreError> {
        for digest in digests {
            self.raise_epoch(digest);
        }
        let grants = within(self.store.grants_fetch(digests)).await?;
        let exist = grants.good.iter().map(|(digest, _)| *digest);
        let exist: HashSet<_> = exist
            .chain(grants.bad.iter().map(|bad| bad.digest))
            .collect();
        self.take(grants).await;
        for gone in digests.iter().filter(|digest| !exist.contains(*digest)) {
            self.put(*gone, None).await;
        }
        Ok(())
    }

    /// Takes grants into memory. A row that is not valid leaves the last good state of its key in place.
    async fn take(&self, grants: Grants) {
        let reading = self.reading.load(Ordering::Relaxed);
        for bad in &grants.bad {
            self.metrics.key_rows_bad.increment(1);
            let held = self.held.get(&bad.digest).await;
            if let Some(held) = &held {
                held.confirmed_by.store(reading, Ordering::Relaxed);
            }
            warn!(
                key.id = bad.key_id,
                reason = bad.reason,
                last_good_state_serves = held.is_some(),
                "a key's row is not valid"
            );
        }
        for (digest, grant) in grants.good {
            match self.held.get(&digest).await {
                Some(held) if held.grant == grant => {
                    held.confirmed_by.store(reading, Ordering::Relaxed);
                }
                // A key that does not work takes no place unless it had one.
                None if grant.revoked_at.is_some() => {}
                Some(_) | None => self.put(digest, Some(grant)).await,
            }
        }
    }

    /// Reads all keys that may work into memory, as many as it may hold, and drops those that are no more.
    /// `between` is called between two pages, so that changes do not wait for the end.
    pub(super) async fn read_all<F>(
        &self,
        between: impl Fn() -> F,
    ) -> Result<(u64, bool), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let reading = self.reading.fetch_add(1, Ordering::Relaxed) + 1;
        let (mut read, mut next) = (0_u64, None);
        loop {
            let page = within(self.store.grants_page(next.as_ref(), PAGE)).await?;
            read += page.grants.good.len() as u64;
            self.take(page.grants).await;
            next = page.next;
            if next.is_none() || read >= u64::from(self.settings.held_max) {
                break;
            }
            between().await?;
        }
        self.held.run_pending_tasks().await;
        let unconfirmed = self.held.iter().filter(|(_, held): &(_, Arc<Held>)| {
            held.grant.revoked_at.is_none() && held.confirmed_by.load(Ordering::Relaxed) < reading
        });
        let unconfirmed: Vec<_> = unconfirmed.map(|(digest, _)| *digest).collect();
        for digests in unconfirmed.chunks(DIGESTS) {
            self.apply_keys(digests).await?;
        }
        self.metrics.key_reloads.increment(1);
        self.unsaved.notify_one();
        Ok((read, next.is_none()))
    }
}

/// Gives a question to the database an end.
pub(super) async fn within<T>(
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    store::within(READ_MAX, asking).await
}
