//! Who did what, when. Every method that changes something writes its entry in the same transaction, so there is no
//! change without one.

use model::{KeyId, TenantId};
use time::OffsetDateTime;

use crate::columns::{Checked, Columns};
use crate::{Store, StoreError, on_pool};

/// Who makes a change, as the audit log names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(String);

impl Actor {
    /// An operator who came through the admin API.
    pub fn operator(id: &str, name: &str) -> Self {
        Self(format!("operator {id} ({name})"))
    }

    /// A command that works on the database itself, such as `okmon operator create`.
    pub fn command(name: &str) -> Self {
        Self(format!("command {name}"))
    }

    /// The text in the log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the log; grows, with gaps.
    pub seq: i64,
    /// When it was done.
    pub at: OffsetDateTime,
    /// By whom.
    pub actor: String,
    /// What: `tenant.create`, `tenant.update`, `tenant.suspend`, `tenant.resume`, `tenant.delete`, `key.create`, `key.import`,
    /// `key.rotate` (of the new key), `key.replace` (of the old one), `key.revoke`, `operator.create`, `operator.revoke`.
    pub action: String,
    /// On which tenant.
    pub tenant_id: Option<String>,
    /// On which key.
    pub key_id: Option<String>,
    /// What else there is to know, for people.
    pub detail: String,
}

/// An entry about to be written.
pub(crate) struct Done<'a> {
    pub(crate) at: OffsetDateTime,
    pub(crate) actor: &'a Actor,
    pub(crate) action: &'static str,
    pub(crate) tenant: Option<&'a TenantId>,
    pub(crate) key_id: Option<KeyId>,
    pub(crate) detail: String,
}

/// Writes a [`Done`] in the transaction `$tx`.
macro_rules! audit_insert {
    ($tx:ident, $done:expr) => {{
        let done: crate::audit::Done<'_> = $done;
        sqlx::query(
            "insert into audit (at, actor, action, tenant_id, key_id, detail) values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(crate::columns::Written(done.at))
        .bind(done.actor.as_str())
        .bind(done.action)
        .bind(done.tenant.map(model::TenantId::as_str))
        .bind(done.key_id.map(|id| id.to_string()))
        .bind(done.detail)
        .execute(&mut *$tx)
        .await?;
    }};
}

pub(crate) use audit_insert;

/// Which entries are asked for; `None` asks for all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Those on this tenant and its keys.
    pub tenant: Option<TenantId>,
    /// Those on this key.
    pub key_id: Option<KeyId>,
}

impl Store {
    /// Up to `limit` entries before `before` (all, if `None`), newest first.
    pub async fn audit_list(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(
                "select seq, at, actor, action, tenant_id, key_id, detail from audit \
                 where seq < $1 and ($2 = '' or tenant_id = $2) and ($3 = '' or key_id = $3) order by seq desc limit $4",
            )
            .bind(before.unwrap_or(i64::MAX))
            .bind(filter.tenant.as_ref().map_or("", TenantId::as_str))
            .bind(filter.key_id.as_ref().map_or("", KeyId::as_str))
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await?;
            rows.iter().map(entry_of).collect()
        })
    }
}

fn entry_of(row: &impl Columns) -> Result<AuditEntry, StoreError> {
    let seq = row.integer("seq")?;
    let checked = Checked {
        table: "audit",
        id: seq.to_string(),
        row,
    };
    Ok(AuditEntry {
        seq,
        at: checked.time("at")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        tenant_id: row.text_or_null("tenant_id")?,
        key_id: row.text_or_null("key_id")?,
        detail: row.text("detail")?,
    })
}
