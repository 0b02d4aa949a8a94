//! What may be forgotten, so that tables which only grow do not. Who calls this, and how often, is decided above.

use time::{Duration, OffsetDateTime};

use crate::columns::Written;
use crate::{Store, StoreError, on_pool};

/// How long changes are kept. A reader that was away for longer reads everything again anyway.
const CHANGES_KEPT: Duration = Duration::days(7);
/// How long it is known who used a key.
const USES_KEPT: Duration = Duration::days(90);

/// How many rows were forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Of the feed of changes.
    pub changes: u64,
    /// Of who used which key.
    pub key_uses: u64,
}

impl Store {
    /// Deletes what is old.
    pub async fn forget(&self, now: OffsetDateTime) -> Result<Forgotten, StoreError> {
        on_pool!(self, pool => {
            let changes = sqlx::query("delete from changes where at < $1")
                .bind(Written(now - CHANGES_KEPT))
                .execute(pool)
                .await?
                .rows_affected();
            let key_uses = sqlx::query("delete from key_uses where last_at < $1")
                .bind(Written(now - USES_KEPT))
                .execute(pool)
                .await?
                .rows_affected();
            Ok(Forgotten { changes, key_uses })
        })
    }
}
