//! What the edge reads: which key belongs to whom. Whether a grant is good at this moment is for the caller to judge.

use model::{Grant, KeyDigest};

use crate::columns::{Checked, Columns, Stamp};
use crate::{Pool, Store, StoreError, on_pool};

/// What [`Store::grants_load`] found.
#[derive(Debug, Clone, Default)]
pub struct GrantsLoaded {
    /// The grants by digest, the newest keys first.
    pub grants: Vec<(KeyDigest, Grant)>,
    /// Rows that are not valid. Their keys do not work; the others are not affected.
    pub bad: Vec<BadGrant>,
    /// Whether these were all: false when the limit cut the list.
    pub complete: bool,
}

/// A key whose row, or whose tenant's row, is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadGrant {
    /// The row's `key_id`, whatever it says.
    pub key_id: String,
    /// The column and what is wrong with it.
    pub reason: String,
}

macro_rules! grant_select {
    ($where:literal) => {
        concat!(
            "select k.key_id, k.tenant_id, k.digest, k.scopes, k.expires_at, k.revoked_at, t.status, t.suspended_at, t.body_max_bytes \
             from api_keys k join tenants t on t.id = k.tenant_id where ",
            $where
        )
    };
}

impl Store {
    /// The grant of the key with this digest: revoked, expired and suspended ones too.
    ///
    /// # Errors
    /// [`StoreError::BadRow`] when the key or its tenant was written by hand and is not valid.
    pub async fn grant_fetch(&self, digest: &KeyDigest) -> Result<Option<Grant>, StoreError> {
        let digest = digest.as_bytes().as_slice();
        on_pool!(self, pool => {
            let row = sqlx::query(grant_select!("k.digest = $1"))
                .bind(digest)
                .fetch_optional(pool)
                .await?;
            row.map(|row| Ok(grant_of(&row)?.1)).transpose()
        })
    }

    /// Up to `limit` grants that may work now: not revoked, not expired, tenant not deleted; the newest keys first.
    ///
    /// For a cache that then follows [`Store::changes_since`], read [`Store::change_seq_latest`] first: what changes in
    /// between is then seen twice rather than never.
    pub async fn grants_load(&self, limit: u32) -> Result<GrantsLoaded, StoreError> {
        const POSTGRES: &str = grant_select!(
            "k.revoked_at is null and t.status <> 'inactive' and (k.expires_at is null or k.expires_at > now()) \
             order by k.created_at desc, k.key_id limit $1"
        );
        // A time that SQLite cannot read must come through, to be reported.
        const SQLITE: &str = grant_select!(
            "k.revoked_at is null and t.status <> 'inactive' \
             and (k.expires_at is null or coalesce(datetime(k.expires_at) > datetime('now'), true)) \
             order by k.created_at desc, k.key_id limit $1"
        );
        let limit_rows = i64::from(limit);
        match &self.0 {
            Pool::Postgres(pool) => {
                let rows = sqlx::query(POSTGRES)
                    .bind(limit_rows)
                    .fetch_all(pool)
                    .await?;
                loaded(&rows, limit)
            }
            Pool::Sqlite(pool) => {
                let rows = sqlx::query(SQLITE).bind(limit_rows).fetch_all(pool).await?;
                loaded(&rows, limit)
            }
        }
    }
}

fn loaded(rows: &[impl Columns], limit: u32) -> Result<GrantsLoaded, StoreError> {
    let mut loaded = GrantsLoaded {
        complete: rows.len() < limit as usize,
        ..GrantsLoaded::default()
    };
    for row in rows {
        match grant_of(row) {
            Ok(grant) => loaded.grants.push(grant),
            Err(StoreError::BadRow { row, reason, .. }) => loaded.bad.push(BadGrant {
                key_id: row,
                reason,
            }),
            Err(other) => return Err(other),
        }
    }
    Ok(loaded)
}

fn grant_of(row: &impl Columns) -> Result<(KeyDigest, Grant), StoreError> {
    let row = Checked {
        table: "api_keys",
        id: row.text("key_id")?,
        row,
    };
    let digest = row.row.bytes_or_null("digest")?.unwrap_or_default();
    let digest =
        KeyDigest::from_slice(&digest).ok_or_else(|| row.bad("digest", "has not 32 bytes"))?;
    let suspended_at = match row.row.stamp("suspended_at")? {
        Some(Stamp::At(at)) => Some(at),
        // The grace period has no start then, as if the time were missing.
        Some(Stamp::Unreadable(_)) | None => None,
    };
    let grant = Grant {
        tenant: row.parsed("tenant_id")?,
        key_id: row.parsed("key_id")?,
        scopes: row.parsed("scopes")?,
        expires_at: row.time_or_null("expires_at")?,
        revoked_at: row.revocation()?,
        tenant_status: row.parsed("status")?,
        suspended_at,
        // The column's check lets nothing negative in.
        body_max_bytes: row
            .row
            .integer_or_null("body_max_bytes")?
            .map(i64::unsigned_abs),
    };
    Ok((digest, grant))
}
