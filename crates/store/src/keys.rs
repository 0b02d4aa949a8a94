//! The control plane's view of keys: everything but the secret. Whether a key may be made or revoked is decided above.

use model::{KeyDigest, KeyId, ScopeSet, TenantId, TenantStatus};
use time::OffsetDateTime;

use crate::audit::{Done, audit_insert};
use crate::columns::{Checked, Columns, Written, kept};
use crate::{Actor, Store, StoreError, in_transaction, on_pool};

/// A key as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The public id.
    pub key_id: KeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What people call it; may be empty.
    pub name: String,
    /// What it may do.
    pub scopes: ScopeSet,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it stops working by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last seen, in steps of some seconds.
    pub last_used_at: Option<OffsetDateTime>,
}

/// A key about to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The public id.
    pub key_id: KeyId,
    /// The digest of the whole key.
    pub digest: KeyDigest,
    /// What people shall call it; may be empty.
    pub name: String,
    /// What it may do.
    pub scopes: ScopeSet,
    /// When it stops working by itself.
    pub expires_at: Option<OffsetDateTime>,
}

impl NewKey {
    pub(crate) fn made(self, tenant: TenantId, now: OffsetDateTime) -> Key {
        Key {
            key_id: self.key_id,
            tenant,
            name: self.name,
            scopes: self.scopes,
            created_at: kept(now),
            expires_at: self.expires_at.map(kept),
            revoked_at: None,
            last_used_at: None,
        }
    }
}

impl Key {
    pub(crate) fn creation<'a>(&'a self, actor: &'a Actor) -> Done<'a> {
        Done {
            at: self.created_at,
            actor,
            action: "key.create",
            tenant: Some(&self.tenant),
            key_id: Some(self.key_id),
            detail: format!("name {:?}, scopes {}", self.name, self.scopes),
        }
    }
}

/// Writes a [`Key`] with its digest in the transaction `$tx`.
macro_rules! key_row_insert {
    ($tx:ident, $key:expr, $digest:expr) => {{
        let key: &crate::Key = $key;
        sqlx::query(
            "insert into api_keys (key_id, tenant_id, digest, name, scopes, created_at, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.key_id.as_str())
        .bind(key.tenant.as_str())
        .bind($digest.as_bytes().as_slice())
        .bind(key.name.as_str())
        .bind(key.scopes.to_string())
        .bind(crate::columns::Written(key.created_at))
        .bind(key.expires_at.map(crate::columns::Written))
        .execute(&mut *$tx)
        .await
        .map_err(|error| StoreError::exists_as(error, StoreError::KeyExists(key.key_id)))?;
    }};
}

pub(crate) use key_row_insert;

macro_rules! key_select {
    ($rest:literal) => {
        concat!(
            "select key_id, tenant_id, name, scopes, created_at, expires_at, revoked_at, last_used_at from api_keys ",
            $rest
        )
    };
}

impl Store {
    /// Gives `tenant` a key.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTenant`], [`StoreError::TenantInactive`], [`StoreError::KeyExists`].
    pub async fn key_insert(
        &self,
        tenant: &TenantId,
        new: NewKey,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<Key, StoreError> {
        let digest = new.digest;
        let key = new.made(tenant.clone(), now);
        in_transaction!(self, tx => {
            let row = sqlx::query("select status from tenants where id = $1")
                .bind(tenant.as_str())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or_else(|| StoreError::NoSuchTenant(tenant.clone()))?;
            if row.text("status")? == TenantStatus::Inactive.as_str() {
                return Err(StoreError::TenantInactive(tenant.clone()));
            }
            key_row_insert!(tx, &key, digest);
            audit_insert!(tx, key.creation(actor));
        });
        Ok(key)
    }

    /// The key with this id, if there is one.
    pub async fn key_fetch(&self, key_id: KeyId) -> Result<Option<Key>, StoreError> {
        on_pool!(self, pool => {
            let row = sqlx::query(key_select!("where key_id = $1"))
                .bind(key_id.as_str())
                .fetch_optional(pool)
                .await?;
            row.as_ref().map(key_of).transpose()
        })
    }

    /// Up to `limit` keys of `tenant`, oldest first, those after the key `after`.
    pub async fn key_list(
        &self,
        tenant: &TenantId,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<Key>, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(key_select!(
                "where tenant_id = $1 and ($2 = '' or (created_at, key_id) > \
                 (select created_at, key_id from api_keys where key_id = $2)) order by created_at, key_id limit $3"
            ))
            .bind(tenant.as_str())
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await?;
            rows.iter().map(key_of).collect()
        })
    }

    /// Revokes a key. `None`: there is no such key. A key revoked before stays as it is.
    pub async fn key_revoke(
        &self,
        key_id: KeyId,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<Option<Key>, StoreError> {
        let at = kept(now);
        in_transaction!(self, tx => {
            let written = sqlx::query(
                "update api_keys set revoked_at = $2 where key_id = $1 and revoked_at is null",
            )
            .bind(key_id.as_str())
            .bind(Written(at))
            .execute(&mut *tx)
            .await?
            .rows_affected();
            let row = sqlx::query(key_select!("where key_id = $1"))
                .bind(key_id.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            let Some(key) = row.as_ref().map(key_of).transpose()? else {
                return Ok(None);
            };
            if written > 0 {
                audit_insert!(tx, Done {
                    at,
                    actor,
                    action: "key.revoke",
                    tenant: Some(&key.tenant),
                    key_id: Some(key_id),
                    detail: String::new(),
                });
            }
            Ok(Some(key))
        })
    }
}

fn key_of(row: &impl Columns) -> Result<Key, StoreError> {
    let row = Checked {
        table: "api_keys",
        id: row.text("key_id")?,
        row,
    };
    Ok(Key {
        key_id: row.parsed("key_id")?,
        tenant: row.parsed("tenant_id")?,
        name: row.row.text("name")?,
        scopes: row.parsed("scopes")?,
        created_at: row.time("created_at")?,
        expires_at: row.time_or_null("expires_at")?,
        revoked_at: row.revocation()?,
        last_used_at: row.time_or_null("last_used_at")?,
    })
}
