//! The feed of changes to tenants and keys, as the database's triggers write it. Says which cached grants are out of
//! date; what to do about it is the cache's business.

use model::{KeyDigest, KeyId, TenantId};

use crate::columns::Columns;
use crate::{Store, StoreError, on_pool};

/// One entry of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the feed; grows, with gaps.
    pub seq: i64,
    /// What changed.
    pub changed: Changed,
}

/// What a change touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// One key was made, changed or deleted.
    Key {
        /// Whose key.
        tenant: TenantId,
        /// Its public id.
        key_id: KeyId,
        /// What it is cached under.
        digest: KeyDigest,
    },
    /// A tenant was made, changed or deleted: all its keys are affected.
    Tenant(TenantId),
    /// Anything may have changed.
    Everything,
}

impl Store {
    /// Up to `limit` changes after `seq`, oldest first.
    pub async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<Change>, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(
                "select seq, kind, tenant_id, key_id, digest from changes where seq > $1 order by seq limit $2",
            )
            .bind(seq)
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await?;
            rows.iter().map(change_of).collect()
        })
    }

    /// The place of the newest change; 0 when there was none.
    pub async fn change_seq_latest(&self) -> Result<i64, StoreError> {
        on_pool!(self, pool => {
            let row = sqlx::query("select coalesce(max(seq), 0) as seq from changes")
                .fetch_one(pool)
                .await?;
            Ok(row.integer("seq")?)
        })
    }
}

fn change_of(row: &impl Columns) -> Result<Change, StoreError> {
    let kind = row.text("kind")?;
    let tenant = row
        .text_or_null("tenant_id")?
        .and_then(|id| id.parse().ok());
    let key_id = row.text_or_null("key_id")?.and_then(|id| id.parse().ok());
    let digest = row.bytes_or_null("digest")?;
    let digest = digest.and_then(|bytes| KeyDigest::from_slice(&bytes));
    // A row that cannot be read must not stop the feed, and must not be passed over either.
    let changed = match (kind.as_str(), tenant, key_id, digest) {
        ("key", Some(tenant), Some(key_id), Some(digest)) => Changed::Key {
            tenant,
            key_id,
            digest,
        },
        ("tenant", Some(tenant), _, _) => Changed::Tenant(tenant),
        _ => Changed::Everything,
    };
    Ok(Change {
        seq: row.integer("seq")?,
        changed,
    })
}
