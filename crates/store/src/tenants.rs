//! The control plane's view of tenants. Which ids, names and addresses are good is decided above and in `model`.

use model::{TenantId, TenantStatus};
use time::OffsetDateTime;

use crate::audit::{Done, audit_insert};
use crate::columns::{Checked, Columns, Written, kept};
use crate::keys::key_row_insert;
use crate::{Actor, Key, NewKey, Store, StoreError, in_transaction, on_pool};

/// A tenant as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id, in the tenant header and in every path.
    pub id: TenantId,
    /// What people call it.
    pub name: String,
    /// Whom to write to.
    pub email: String,
    /// Whether its keys work.
    pub status: TenantStatus,
    /// Since when it is suspended, if it is.
    pub suspended_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed through the admin API.
    pub updated_at: OffsetDateTime,
    /// What it may send.
    pub limits: TenantLimits,
}

/// A tenant's own limits. Where one is `None`, the edge's holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantLimits {
    /// How long a body may be, in bytes as sent; 0 refuses all but empty ones.
    pub body_max_bytes: Option<u64>,
}

/// A tenant about to be made.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its id; never given twice.
    pub id: TenantId,
    /// What people shall call it.
    pub name: String,
    /// Whom to write to.
    pub email: String,
}

/// What is to be different about a tenant; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantUpdate {
    /// What people shall call it.
    pub name: Option<String>,
    /// Whom to write to.
    pub email: Option<String>,
    /// Whether its keys shall work.
    pub suspended: Option<bool>,
    /// How long a body may be, in bytes.
    pub body_max_bytes: Option<Limit>,
}

/// What a limit shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The edge's own.
    Default,
    /// The tenant's own.
    Own(u64),
}

impl Limit {
    const fn own(self) -> Option<u64> {
        match self {
            Self::Default => None,
            Self::Own(limit) => Some(limit),
        }
    }
}

impl TenantUpdate {
    /// Applies this at `at`; gives what is done as the audit log calls it, and its details. `None`: nothing changes.
    fn apply(&self, tenant: &mut Tenant, at: OffsetDateTime) -> Option<(&'static str, String)> {
        let mut details = Vec::new();
        if let Some(name) = self.name.as_ref().filter(|name| **name != tenant.name) {
            details.push(format!("name {:?} to {name:?}", tenant.name));
            tenant.name.clone_from(name);
        }
        if let Some(email) = self.email.as_ref().filter(|email| **email != tenant.email) {
            details.push(format!("email {:?} to {email:?}", tenant.email));
            tenant.email.clone_from(email);
        }
        let limit = &mut tenant.limits.body_max_bytes;
        if let Some(new) = self
            .body_max_bytes
            .map(Limit::own)
            .filter(|new| new != limit)
        {
            let shown = |limit: Option<u64>| limit.map_or("default".to_owned(), |n| n.to_string());
            details.push(format!(
                "body_max_bytes {} to {}",
                shown(*limit),
                shown(new)
            ));
            *limit = new;
        }
        let suspended_now = tenant.status == TenantStatus::Suspended;
        let action = match self.suspended {
            Some(true) if !suspended_now => {
                tenant.status = TenantStatus::Suspended;
                tenant.suspended_at = Some(at);
                "tenant.suspend"
            }
            Some(false) if suspended_now => {
                tenant.status = TenantStatus::Active;
                tenant.suspended_at = None;
                "tenant.resume"
            }
            _ if details.is_empty() => return None,
            _ => "tenant.update",
        };
        tenant.updated_at = at;
        Some((action, details.join(", ")))
    }
}

macro_rules! tenant_select {
    ($rest:literal) => {
        concat!(
            "select id, name, email, status, suspended_at, created_at, updated_at, body_max_bytes from tenants ",
            $rest
        )
    };
}

/// Reads a tenant in the transaction `$tx`, so that nobody changes it before the end of the transaction.
macro_rules! tenant_locked {
    ($store:expr, $tx:ident, $id:expr) => {{
        // SQLite has one writer at a time, and this transaction is it.
        let sql = match &$store.0 {
            crate::Pool::Postgres(_) => {
                crate::tenants::tenant_select!("where id = $1 for update")
            }
            crate::Pool::Sqlite(_) => crate::tenants::tenant_select!("where id = $1"),
        };
        let id: &model::TenantId = $id;
        let row = sqlx::query(sql)
            .bind(id.as_str())
            .fetch_optional(&mut *$tx)
            .await?
            .ok_or_else(|| StoreError::NoSuchTenant(id.clone()))?;
        crate::tenants::tenant_of(&row)?
    }};
}

/// Writes into the log that each key of a tenant that is not revoked is revoked with it: however many there are, in one
/// statement.
macro_rules! revocations_insert {
    ($store:expr) => {
        match &$store.0 {
            crate::Pool::Postgres(_) => concat!(revocations_insert!(), " for update"),
            crate::Pool::Sqlite(_) => revocations_insert!(),
        }
    };
    () => {
        "insert into audit (at, actor, action, tenant_id, key_id, detail) \
         select $2, $3, 'key.revoke', tenant_id, key_id, 'with its tenant' from api_keys \
         where tenant_id = $1 and revoked_at is null order by created_at, key_id"
    };
}

pub(crate) use {tenant_locked, tenant_select};

impl Store {
    /// Makes a tenant and its first key, both or neither.
    ///
    /// # Errors
    /// [`StoreError::TenantExists`], [`StoreError::KeyExists`].
    pub async fn tenant_insert(
        &self,
        new: NewTenant,
        first_key: NewKey,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<(Tenant, Key), StoreError> {
        let digest = first_key.digest;
        let at = kept(now);
        let tenant = Tenant {
            id: new.id,
            name: new.name,
            email: new.email,
            status: TenantStatus::Active,
            suspended_at: None,
            created_at: at,
            updated_at: at,
            limits: TenantLimits::default(),
        };
        let key = first_key.made(tenant.id.clone(), now);
        in_transaction!(self, tx => {
            sqlx::query(
                "insert into tenants (id, name, email, status, created_at, updated_at) values ($1, $2, $3, $4, $5, $5)",
            )
            .bind(tenant.id.as_str())
            .bind(tenant.name.as_str())
            .bind(tenant.email.as_str())
            .bind(tenant.status.as_str())
            .bind(Written(at))
            .execute(&mut *tx)
            .await
            .map_err(|error| StoreError::exists_as(error, StoreError::TenantExists(tenant.id.clone())))?;
            audit_insert!(tx, Done {
                at,
                actor,
                action: "tenant.create",
                tenant: Some(&tenant.id),
                key_id: None,
                detail: format!("name {:?}, email {:?}", tenant.name, tenant.email),
            });
            key_row_insert!(tx, &key, digest);
            audit_insert!(tx, key.creation(actor));
        });
        Ok((tenant, key))
    }

    /// The tenant with this id, if there is one.
    pub async fn tenant_fetch(&self, id: &TenantId) -> Result<Option<Tenant>, StoreError> {
        on_pool!(self, pool => {
            let row = sqlx::query(tenant_select!("where id = $1"))
                .bind(id.as_str())
                .fetch_optional(pool)
                .await?;
            row.as_ref().map(tenant_of).transpose()
        })
    }

    /// Changes a tenant. What is as it shall be already leaves no trace.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTenant`], [`StoreError::TenantInactive`].
    pub async fn tenant_update(
        &self,
        id: &TenantId,
        update: &TenantUpdate,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<Tenant, StoreError> {
        let at = kept(now);
        in_transaction!(self, tx => {
            let mut tenant = tenant_locked!(self, tx, id);
            if tenant.status == TenantStatus::Inactive {
                return Err(StoreError::TenantInactive(id.clone()));
            }
            if let Some((action, detail)) = update.apply(&mut tenant, at) {
                let body_max_bytes = tenant.limits.body_max_bytes;
                sqlx::query(
                    "update tenants set name = $2, email = $3, status = $4, suspended_at = $5, body_max_bytes = $6, \
                     updated_at = $7 where id = $1",
                )
                .bind(id.as_str())
                .bind(tenant.name.as_str())
                .bind(tenant.email.as_str())
                .bind(tenant.status.as_str())
                .bind(tenant.suspended_at.map(Written))
                .bind(body_max_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
                .bind(Written(at))
                .execute(&mut *tx)
                .await?;
                audit_insert!(tx, Done { at, actor, action, tenant: Some(id), key_id: None, detail });
            }
            Ok(tenant)
        })
    }

    /// Makes a tenant inactive and revokes its keys, all or nothing. One that is inactive already stays as it is, but a key
    /// that works all the same is revoked.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTenant`].
    pub async fn tenant_delete(
        &self,
        id: &TenantId,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<Tenant, StoreError> {
        let at = kept(now);
        in_transaction!(self, tx => {
            let mut tenant = tenant_locked!(self, tx, id);
            // First those, of which each is locked: what is written down is what is revoked.
            sqlx::query(revocations_insert!(self))
                .bind(id.as_str())
                .bind(Written(at))
                .bind(actor.as_str())
                .execute(&mut *tx)
                .await?;
            let revoked = sqlx::query(
                "update api_keys set revoked_at = $2 where tenant_id = $1 and revoked_at is null",
            )
            .bind(id.as_str())
            .bind(Written(at))
            .execute(&mut *tx)
            .await?
            .rows_affected();
            let was_active = tenant.status != TenantStatus::Inactive;
            if was_active {
                tenant.status = TenantStatus::Inactive;
                tenant.suspended_at = None;
                tenant.updated_at = at;
                sqlx::query(
                    "update tenants set status = 'inactive', suspended_at = null, updated_at = $2 where id = $1",
                )
                .bind(id.as_str())
                .bind(Written(at))
                .execute(&mut *tx)
                .await?;
            }
            if was_active || revoked > 0 {
                audit_insert!(tx, Done {
                    at,
                    actor,
                    action: "tenant.delete",
                    tenant: Some(id),
                    key_id: None,
                    detail: format!("{revoked} keys revoked"),
                });
            }
            Ok(tenant)
        })
    }

    /// Up to `limit` tenants in the order of their ids, those after `after`.
    pub async fn tenant_list(
        &self,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<Tenant>, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(tenant_select!("where id > $1 order by id limit $2"))
                .bind(after.map_or("", TenantId::as_str))
                .bind(i64::from(limit))
                .fetch_all(pool)
                .await?;
            rows.iter().map(tenant_of).collect()
        })
    }
}

pub(crate) fn tenant_of(row: &impl Columns) -> Result<Tenant, StoreError> {
    let row = Checked {
        table: "tenants",
        id: row.text("id")?,
        row,
    };
    Ok(Tenant {
        id: row.parsed("id")?,
        name: row.row.text("name")?,
        email: row.row.text("email")?,
        status: row.parsed("status")?,
        suspended_at: row.time_or_null("suspended_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        limits: TenantLimits {
            // The column's check lets nothing negative in.
            body_max_bytes: row
                .row
                .integer_or_null("body_max_bytes")?
                .map(i64::unsigned_abs),
        },
    })
}
