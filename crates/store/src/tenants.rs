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

macro_rules! tenant_select {
    ($rest:literal) => {
        concat!(
            "select id, name, email, status, suspended_at, created_at, updated_at from tenants ",
            $rest
        )
    };
}

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

fn tenant_of(row: &impl Columns) -> Result<Tenant, StoreError> {
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
    })
}
