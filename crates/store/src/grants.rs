//! What the edge reads: which key belongs to whom. Whether a grant is good at this moment is for the caller to judge.

use model::{Grant, KeyDigest, ScopeSet, TenantId};

use crate::columns::{Checked, Columns, Stamp};
use crate::{Pool, Store, StoreError, on_pool};

/// Grants that were read together.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// The grants by digest.
    pub good: Vec<(KeyDigest, Grant)>,
    /// Rows that are not valid. The others are not affected.
    pub bad: Vec<BadGrant>,
}

/// A part of all grants that may work.
#[derive(Debug, Clone, Default)]
pub struct GrantsPage {
    /// What was found, in the order of key ids.
    pub grants: Grants,
    /// Where to read on; `None` when this was the last page.
    pub next: Option<GrantsCursor>,
}

/// Where a page of grants ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantsCursor(String);

/// A key whose row, or whose tenant's row, is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadGrant {
    /// What the key is looked up by.
    pub digest: KeyDigest,
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

    /// The grants of the keys with these digests, as [`Store::grant_fetch`] finds them. Those that do not exist are left out.
    pub async fn grants_fetch(&self, digests: &[KeyDigest]) -> Result<Grants, StoreError> {
        match &self.0 {
            Pool::Postgres(pool) => {
                let digests: Vec<_> = digests.iter().map(|d| d.as_bytes().as_slice()).collect();
                let rows = sqlx::query(grant_select!("k.digest = any($1)"))
                    .bind(digests)
                    .fetch_all(pool)
                    .await?;
                grants_of(&rows)
            }
            Pool::Sqlite(pool) => {
                let mut rows = Vec::new();
                for digest in digests {
                    let row = sqlx::query(grant_select!("k.digest = $1"))
                        .bind(digest.as_bytes().as_slice())
                        .fetch_optional(pool)
                        .await?;
                    rows.extend(row);
                }
                grants_of(&rows)
            }
        }
    }

    /// The grants of all keys of `tenant`.
    pub async fn grants_of_tenant(&self, tenant: &TenantId) -> Result<Grants, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(grant_select!("k.tenant_id = $1"))
                .bind(tenant.as_str())
                .fetch_all(pool)
                .await?;
            grants_of(&rows)
        })
    }

    /// Up to `limit` grants that may work now: not revoked, not expired, tenant not deleted. To read all of them, go on
    /// from each page's `next`.
    pub async fn grants_page(
        &self,
        after: Option<&GrantsCursor>,
        limit: u32,
    ) -> Result<GrantsPage, StoreError> {
        const POSTGRES: &str = grant_select!(
            "k.key_id > $1 and k.revoked_at is null and t.status <> 'inactive' \
             and (k.expires_at is null or k.expires_at > now()) order by k.key_id limit $2"
        );
        // A time that SQLite cannot read must come through, to be reported.
        const SQLITE: &str = grant_select!(
            "k.key_id > $1 and k.revoked_at is null and t.status <> 'inactive' \
             and (k.expires_at is null or coalesce(datetime(k.expires_at) > datetime('now'), true)) \
             order by k.key_id limit $2"
        );
        let after = after.map_or("", |cursor| cursor.0.as_str());
        let rows_max = i64::from(limit);
        match &self.0 {
            Pool::Postgres(pool) => {
                let query = sqlx::query(POSTGRES).bind(after).bind(rows_max);
                page_of(&query.fetch_all(pool).await?, limit)
            }
            Pool::Sqlite(pool) => {
                let query = sqlx::query(SQLITE).bind(after).bind(rows_max);
                page_of(&query.fetch_all(pool).await?, limit)
            }
        }
    }
}

fn page_of(rows: &[impl Columns], limit: u32) -> Result<GrantsPage, StoreError> {
    let full = rows.len() >= limit as usize;
    let last = rows.last().filter(|_| full);
    Ok(GrantsPage {
        grants: grants_of(rows)?,
        next: last
            .map(|row| row.text("key_id").map(GrantsCursor))
            .transpose()?,
    })
}

fn grants_of(rows: &[impl Columns]) -> Result<Grants, StoreError> {
    let mut grants = Grants::default();
    for row in rows {
        match grant_of(row) {
            Ok(grant) => grants.good.push(grant),
            Err(StoreError::BadRow {
                row: key_id,
                reason,
                ..
            }) => {
                let digest = row.bytes_or_null("digest")?.unwrap_or_default();
                // A digest that is none is no key's: nobody can ask for it.
                grants
                    .bad
                    .extend(KeyDigest::from_slice(&digest).map(|digest| BadGrant {
                        digest,
                        key_id,
                        reason,
                    }));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(grants)
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
    let revoked_at = row.revocation()?;
    let (scopes, expires_at) = if revoked_at.is_some() {
        // A revoked key is revoked whatever else its row says.
        (ScopeSet::EMPTY, None)
    } else {
        (row.parsed("scopes")?, row.time_or_null("expires_at")?)
    };
    let grant = Grant {
        tenant: row.parsed("tenant_id")?,
        key_id: row.parsed("key_id")?,
        scopes,
        expires_at,
        revoked_at,
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
