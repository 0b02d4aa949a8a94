//! When the copy on disk is written and read. Its format is for `snapshot`.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use model::Grant;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Held, Keyring, locked, snapshot};

/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(500);
/// A write is followed by a pause this many times as long as it took: with many keys it takes seconds of a core.
const PAUSE_FACTOR: u32 = 10;

/// Writes the copy whenever it is behind, and a last time at `stop`.
pub(super) async fn keep_saved(keyring: &Arc<Keyring>, stop: &CancellationToken) {
    let mut failing = false;
    loop {
        let stopped = tokio::select! {
            () = keyring.unsaved.notified() => false,
            () = stop.cancelled() => true,
        };
        if !stopped {
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = stop.cancelled() => {}
            }
        }
        let began = Instant::now();
        let saved = save(keyring).await;
        let took = began.elapsed();
        match saved {
            Ok(()) => failing = false,
            Err(error) => {
                keyring.metrics.key_snapshot_errors.increment(1);
                if !failing {
                    warn!(%error, "the keys could not be saved: a restart while the database is away would have none");
                }
                failing = true;
            }
        }
        if stopped || stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(took * PAUSE_FACTOR) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Writes the copy.
async fn save(keyring: &Arc<Keyring>) -> Result<(), snapshot::SnapshotError> {
    let installation = locked(&keyring.installation).clone();
    let (Some(file), Some(installation), Some(age)) = (
        keyring.snapshot_file().cloned(),
        installation,
        keyring.age(),
    ) else {
        return Ok(());
    };
    let keyring = Arc::clone(keyring);
    let writing = tokio::task::spawn_blocking(move || {
        // What changes from here on may be in it, and will be written again.
        let taken_at = OffsetDateTime::now_utc() - age;
        let grants = keyring.held.iter();
        let grants = grants.map(|(digest, held)| (*digest, Saving(held)));
        let bytes = snapshot::write(&file, &installation, taken_at, grants)?;
        keyring
            .metrics
            .key_snapshot_bytes
            .set(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)));
        Ok(())
    });
    match writing.await {
        Ok(written) => written,
        // A panic has said so; a runtime that ends has nothing more to save.
        Err(_) => Ok(()),
    }
}

/// A grant that is written without being copied first.
struct Saving(Arc<Held>);

impl Borrow<Grant> for Saving {
    fn borrow(&self) -> &Grant {
        &self.0.grant
    }
}

/// What a copy on disk holds, read and checked.
pub(super) struct Saved {
    contents: snapshot::Contents,
    age: Duration,
}

/// Reads the copy. Which database it came from is noted at once, so that another one in its place is recognised.
pub(super) async fn read(keyring: &Arc<Keyring>) -> Option<Saved> {
    let file = keyring.snapshot_file().cloned()?;
    let read = tokio::task::spawn_blocking(move || snapshot::read(&file)).await;
    let contents = match read.ok()? {
        Ok(contents) => contents?,
        Err(error) => {
            keyring.metrics.key_snapshot_errors.increment(1);
            warn!(%error, "the saved keys are not used");
            return None;
        }
    };
    *locked(&keyring.installation) = Some(contents.installation.clone());
    // After the clock was set back a copy looks as if it came from the future; it is not younger than new.
    let age = OffsetDateTime::now_utc() - contents.taken_at;
    let age = Duration::try_from(age).unwrap_or_default();
    Some(Saved { contents, age })
}

/// Takes a copy into memory, for a start without the database.
pub(super) async fn restore(keyring: &Arc<Keyring>, saved: Saved) {
    let age_seconds = saved.age.as_secs();
    if saved.age > keyring.settings.stale_for {
        warn!(
            age_seconds,
            "the saved keys are older than keys.stale_for and not used"
        );
        return;
    }
    let keys = saved.contents.grants.len();
    for (digest, grant) in saved.contents.grants {
        // Nothing can be known about any key yet that this would have to replace.
        keyring.held.insert(digest, Held::new(grant, 0)).await;
    }
    keyring.held.run_pending_tasks().await;
    keyring.is_fresh(saved.age);
    info!(
        keys,
        age_seconds, "the saved keys are served until the database answers"
    );
}
