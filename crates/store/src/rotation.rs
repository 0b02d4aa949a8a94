//! A key in the place of another: the one change of two keys at once. For how long, and which, is decided above.

use model::{KeyId, TenantId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::audit::{Done, audit_insert};
use crate::columns::{Written, kept};
use crate::keys::{active_tenant, key_of, key_row_insert, key_select};
use crate::{Actor, Key, NewKey, Store, StoreError, in_transaction};

/// What a key was made as a rotation of, and for how long it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The key that is replaced; `None` where the tenant has exactly one that can be.
    pub old: Option<KeyId>,
    /// When the old key stops working, if it does not stop by itself before.
    pub old_until: OffsetDateTime,
}

/// Reads a key that can be replaced, so that nobody changes it before the end of the transaction.
macro_rules! replaceable_locked {
    ($store:expr) => {
        match &$store.0 {
            crate::Pool::Postgres(_) => {
                key_select!(
                    "where key_id = $1 and revoked_at is null and replaced_by is null for update"
                )
            }
            crate::Pool::Sqlite(_) => {
                key_select!("where key_id = $1 and revoked_at is null and replaced_by is null")
            }
        }
    };
}

impl Store {
    /// Makes a key in the place of another, which goes on working for a while: both or neither. `make` makes the new key
    /// of the old one. Gives the new key and the old one.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTenant`], [`StoreError::TenantInactive`]; [`StoreError::RotateWhich`] when the old key is not one
    /// of the tenant's that work and have not been replaced, or none was named and there is not exactly one.
    pub async fn key_rotate(
        &self,
        tenant: &TenantId,
        rotation: Rotation,
        make: impl FnOnce(&Key) -> NewKey,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<(Key, Key), StoreError> {
        in_transaction!(self, tx => {
            active_tenant!(self, tx, tenant);
            let rows = sqlx::query(key_select!(
                "where tenant_id = $1 and revoked_at is null and replaced_by is null order by created_at, key_id"
            ))
            .bind(tenant.as_str())
            .fetch_all(&mut *tx)
            .await?;
            let keys = rows.iter().map(key_of).collect::<Result<Vec<_>, _>>()?;
            let chosen = rotated(tenant, keys, rotation.old, now)?.key_id;
            // It may have been revoked in this moment: what is written below must not undo that.
            let row = sqlx::query(replaceable_locked!(self))
                .bind(chosen.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            let still = row.as_ref().map(key_of).transpose()?;
            let mut old = rotated(tenant, still.into_iter().collect(), Some(chosen), now)?;
            let new = make(&old);
            let digest = new.digest;
            let key = new.made(tenant.clone(), now);
            key_row_insert!(tx, &key, digest);
            old.give_way(&key, kept(rotation.old_until));
            sqlx::query(
                "update api_keys set expires_at = $2, revoked_at = $3, replaced_by = $4 where key_id = $1",
            )
            .bind(old.key_id.as_str())
            .bind(old.expires_at.map(Written))
            .bind(old.revoked_at.map(Written))
            .bind(key.key_id.as_str())
            .execute(&mut *tx)
            .await?;
            let entry = key.made_by("key.rotate", actor);
            let detail = format!("replaces {}, {}", old.key_id, entry.detail);
            audit_insert!(tx, Done { detail, ..entry });
            audit_insert!(tx, old.gave_way(&key, actor));
            Ok((key, old))
        })
    }
}

impl Key {
    /// Stops working at `until` or when `new` was made, whichever is later, unless it stops by itself before.
    fn give_way(&mut self, new: &Self, until: OffsetDateTime) {
        if until <= new.created_at {
            self.revoked_at = Some(new.created_at);
        } else {
            self.expires_at = Some(self.expires_at.map_or(until, |own| own.min(until)));
        }
        self.replaced_by = Some(new.key_id);
    }

    /// The entry of [`Key::give_way`], for those who ask what became of this key.
    fn gave_way<'a>(&'a self, new: &Self, actor: &'a Actor) -> Done<'a> {
        let (action, detail) = match (self.revoked_at, self.expires_at) {
            (None, Some(end)) => (
                "key.replace",
                format!("by {}, works until {}", new.key_id, shown(end)),
            ),
            _ => ("key.revoke", format!("replaced by {}", new.key_id)),
        };
        Done {
            at: new.created_at,
            actor,
            action,
            tenant: Some(&self.tenant),
            key_id: Some(self.key_id),
            detail,
        }
    }
}

/// The key that a rotation replaces.
fn rotated(
    tenant: &TenantId,
    keys: Vec<Key>,
    wanted: Option<KeyId>,
    now: OffsetDateTime,
) -> Result<Key, StoreError> {
    let mut candidates: Vec<_> = keys.into_iter().filter(|key| key.works(now)).collect();
    let found = match wanted {
        Some(id) => candidates.iter().position(|key| key.key_id == id),
        None if candidates.len() == 1 => Some(0),
        None => None,
    };
    match found {
        Some(at) => Ok(candidates.swap_remove(at)),
        None => Err(StoreError::RotateWhich {
            tenant: tenant.clone(),
            wanted,
            candidates: candidates
                .into_iter()
                .map(|key| (key.key_id, key.name))
                .collect(),
        }),
    }
}

/// A time for people to read.
fn shown(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
