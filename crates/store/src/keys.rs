//! The control plane's view of keys: everything but the secret. Whether a key may be made or revoked is decided above.

use model::{KeyDigest, KeyId, ScopeSet, TenantId};
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
    /// The key that was made in its place.
    pub replaced_by: Option<KeyId>,
}

/// How much one user agent, or one address, used a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedBy {
    /// The user agent or the address.
    pub value: String,
    /// Requests seen.
    pub requests: i64,
    /// When it was seen first.
    pub first_at: OffsetDateTime,
    /// When it was last seen.
    pub last_at: OffsetDateTime,
}

/// Who uses a key; in each list those first that were seen last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyUses {
    /// What senders call themselves.
    pub user_agents: Vec<UsedBy>,
    /// Where they send from.
    pub addresses: Vec<UsedBy>,
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
            replaced_by: None,
        }
    }
}

impl Key {
    /// Whether the key works at `now`, as far as it is up to itself.
    pub fn works(&self, now: OffsetDateTime) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }

    pub(crate) fn creation<'a>(&'a self, actor: &'a Actor) -> Done<'a> {
        self.made_by("key.create", actor)
    }

    pub(crate) fn made_by<'a>(&'a self, action: &'static str, actor: &'a Actor) -> Done<'a> {
        Done {
            at: self.created_at,
            actor,
            action,
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

macro_rules! key_select {
    ($rest:literal) => {
        concat!(
            "select key_id, tenant_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaced_by \
             from api_keys ",
            $rest
        )
    };
}

/// Makes sure in the transaction `$tx` that a tenant may get keys, until the end of the transaction.
macro_rules! active_tenant {
    ($store:expr, $tx:ident, $tenant:expr) => {{
        let found = crate::tenants::tenant_locked!($store, $tx, $tenant);
        if found.status == model::TenantStatus::Inactive {
            return Err(StoreError::TenantInactive($tenant.clone()));
        }
    }};
}

pub(crate) use {active_tenant, key_row_insert, key_select};

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
            active_tenant!(self, tx, tenant);
            key_row_insert!(tx, &key, digest);
            audit_insert!(tx, key.creation(actor));
        });
        Ok(key)
    }

    /// Gives `tenant` a key that was made elsewhere. The same again changes nothing, while the key works; the second part
    /// says whether it was new.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTenant`], [`StoreError::TenantInactive`]; [`StoreError::KeyTaken`] when the key is another
    /// tenant's or does not work any more, or its id is another key's.
    pub async fn key_import(
        &self,
        tenant: &TenantId,
        new: NewKey,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<(Key, bool), StoreError> {
        let digest = new.digest;
        let key = new.made(tenant.clone(), now);
        in_transaction!(self, tx => {
            active_tenant!(self, tx, tenant);
            let row = sqlx::query(
                "select key_id, tenant_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaced_by, \
                 digest from api_keys where key_id = $1 or digest = $2 order by digest = $2 desc limit 1",
            )
            .bind(key.key_id.as_str())
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(row) = row {
                let found = key_of(&row)?;
                let same = row.bytes_or_null("digest")?.as_deref() == Some(digest.as_bytes().as_slice());
                let Some(why) = import_obstacle(&found, &key, same, now) else {
                    return Ok((found, false));
                };
                return Err(StoreError::KeyTaken { key_id: key.key_id, why });
            }
            key_row_insert!(tx, &key, digest);
            audit_insert!(tx, key.made_by("key.import", actor));
        });
        Ok((key, true))
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

    /// Who uses a key: up to `limit` of the last seen of each kind.
    pub async fn key_uses(&self, key_id: KeyId, limit: u32) -> Result<KeyUses, StoreError> {
        Ok(KeyUses {
            user_agents: self.key_uses_of_kind(key_id, "user_agent", limit).await?,
            addresses: self.key_uses_of_kind(key_id, "address", limit).await?,
        })
    }

    async fn key_uses_of_kind(
        &self,
        key_id: KeyId,
        kind: &str,
        limit: u32,
    ) -> Result<Vec<UsedBy>, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(
                "select key_id, value, requests, first_at, last_at from key_uses where key_id = $1 and kind = $2 \
                 order by last_at desc, requests desc, value limit $3",
            )
            .bind(key_id.as_str())
            .bind(kind)
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await?;
            rows.iter().map(use_of).collect()
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

/// Why `found`, which has the id or the digest of `wanted`, is not the same key in working order. `None`: it is.
fn import_obstacle(
    found: &Key,
    wanted: &Key,
    same_digest: bool,
    now: OffsetDateTime,
) -> Option<&'static str> {
    if !same_digest {
        Some("its id is that of another key")
    } else if found.key_id != wanted.key_id {
        Some("its SHA-256 is that of a key with another id")
    } else if found.tenant != wanted.tenant {
        Some("it belongs to another tenant")
    } else if found.revoked_at.is_some() {
        Some("it was revoked, which is for good")
    } else if !found.works(now) {
        Some("it has expired")
    } else {
        None
    }
}

fn use_of(row: &impl Columns) -> Result<UsedBy, StoreError> {
    let row = Checked {
        table: "key_uses",
        id: row.text("key_id")?,
        row,
    };
    Ok(UsedBy {
        value: row.row.text("value")?,
        requests: row.row.integer("requests")?,
        first_at: row.time("first_at")?,
        last_at: row.time("last_at")?,
    })
}

pub(crate) fn key_of(row: &impl Columns) -> Result<Key, StoreError> {
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
        // Only a hint for people: what cannot be read is no reason to hide the key.
        replaced_by: row
            .row
            .text_or_null("replaced_by")?
            .and_then(|id| id.parse().ok()),
    })
}
