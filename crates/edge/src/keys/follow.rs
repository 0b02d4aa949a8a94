//! Fills the keyring at start and keeps it true: the database's feed of changes is read at an interval, and each key that it
//! names is fetched again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::KeyDigest;
use ops::probe::Readiness;
use store::{Changed, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Chain, Held, Keyring};

/// Places of the feed that are read again: a transaction may commit after one that got a later place, and after the keys
/// were loaded.
const OVERLAP: i64 = 256;
/// Changes read at once.
const CHANGES: u32 = 10_000;
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The part of readiness that waits for the keys.
pub(crate) const PART: &str = "keys";

/// Reads all keys that may work into memory, trying until the database answers. Gives the place in the feed to follow from.
pub(crate) async fn load(
    keyring: &Arc<Keyring>,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Option<i64> {
    let mut pause = Duration::from_millis(100);
    loop {
        match try_load(keyring).await {
            Ok(seq) => {
                readiness.ready(PART);
                return Some(seq);
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                warn!(error, "the keys could not be loaded; trying again");
                readiness.blocked_by(PART, format!("not loaded yet: {error}"));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = stop.cancelled() => return None,
        }
    }
}

async fn try_load(keyring: &Keyring) -> Result<i64, StoreError> {
    let seq = keyring.store.change_seq_latest().await?;
    let loaded = keyring.store.grants_load(keyring.settings.held_max).await?;
    for bad in &loaded.bad {
        keyring.metrics.key_rows_bad.increment(1);
        warn!(
            key.id = bad.key_id,
            reason = bad.reason,
            "a key's row is not valid; the key is left out"
        );
    }
    let (n, complete) = (loaded.grants.len(), loaded.complete);
    for (digest, grant) in loaded.grants {
        let held = Held::new(&digest, grant, keyring.settings.refresh_after);
        keyring.held.insert(digest, held).await;
    }
    keyring.held.run_pending_tasks().await;
    info!(keys = n, complete, "keys loaded");
    Ok(seq)
}

/// Follows the feed from `seq` until `stop`.
pub(crate) async fn follow(keyring: Arc<Keyring>, mut seq: i64, stop: CancellationToken) {
    let mut seen = BTreeSet::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(keyring.settings.poll_every) => {}
            () = stop.cancelled() => return,
        }
        keyring
            .metrics
            .keys_held
            .set(precise(keyring.held.entry_count()));
        match keyring.store.changes_since(seq - OVERLAP, CHANGES).await {
            Ok(changes) => {
                for change in changes {
                    if seen.insert(change.seq) {
                        apply(&keyring, change.changed).await;
                    }
                    seq = seq.max(change.seq);
                }
                seen = seen.split_off(&(seq - OVERLAP));
            }
            Err(error) => {
                keyring.metrics.key_fetch_errors.increment(1);
                warn!(error = %Chain(&error), "changes of keys could not be read; those in memory go on being served");
            }
        }
    }
}

async fn apply(keyring: &Keyring, changed: Changed) {
    keyring.metrics.key_changes.increment(1);
    match changed {
        Changed::Key { digest, .. } => {
            // A new key is fetched when it is first used; here it only must not pass for unknown any longer.
            keyring.unknown.invalidate(&digest);
            if keyring.held.contains_key(&digest) {
                refresh(keyring, digest).await;
            }
        }
        Changed::Tenant(tenant) => {
            keyring.tenants.invalidate(&tenant).await;
            let affected = keyring
                .held
                .iter()
                .filter(|(_, held)| held.grant.tenant == tenant);
            let affected: Vec<_> = affected.map(|(digest, _)| *digest).collect();
            for digest in affected {
                refresh(keyring, digest).await;
            }
        }
        Changed::Everything => {
            keyring.unknown.invalidate_all();
            let held: Vec<_> = keyring.held.iter().map(|(digest, _)| *digest).collect();
            for digest in held {
                refresh(keyring, digest).await;
            }
        }
    }
}

/// A change that cannot be read now is read by the key's own refresh later.
async fn refresh(keyring: &Keyring, digest: KeyDigest) {
    if !keyring.refresh(digest).await {
        warn!("a changed key could not be read again; it goes on being served as it was");
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of keys stay far below 2^52"
)]
fn precise(count: u64) -> f64 {
    count as f64
}
