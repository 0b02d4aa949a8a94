//! Who may use the admin API, by the digest of their token. What a token looks like is the control plane's business.

use std::fmt;
use std::str::FromStr;

use model::KeyDigest;
use time::OffsetDateTime;

use crate::audit::{Done, audit_insert};
use crate::columns::{Checked, Columns, Written, kept};
use crate::{Actor, Store, StoreError, in_transaction, on_pool};

/// One thing an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorScope {
    /// See everything but secrets.
    Read,
    /// Change everything, and see it.
    Admin,
}

impl OperatorScope {
    /// The scope as the API, the database and the CLI write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// A text that names no operator scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown operator scope {0:?}: use admin or read")]
pub struct UnknownOperatorScope(pub String);

impl FromStr for OperatorScope {
    type Err = UnknownOperatorScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Read, Self::Admin]
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownOperatorScope(text.to_owned()))
    }
}

/// What an operator may do; written as names separated by commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperatorScopes {
    read: bool,
    admin: bool,
}

impl OperatorScopes {
    /// To see everything and change nothing.
    pub const READ: Self = Self {
        read: true,
        admin: false,
    };
    /// To see and change everything.
    pub const ADMIN: Self = Self {
        read: false,
        admin: true,
    };

    /// The names of what is granted.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let admin = self.admin.then_some(OperatorScope::Admin.as_str());
        let read = self.read.then_some(OperatorScope::Read.as_str());
        admin.into_iter().chain(read)
    }

    /// Whether `scope` is granted; `admin` includes `read`.
    pub const fn allows(self, scope: OperatorScope) -> bool {
        match scope {
            OperatorScope::Read => self.read || self.admin,
            OperatorScope::Admin => self.admin,
        }
    }
}

impl FromStr for OperatorScopes {
    type Err = UnknownOperatorScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut scopes = Self::default();
        for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
            match name.parse()? {
                OperatorScope::Read => scopes.read = true,
                OperatorScope::Admin => scopes.admin = true,
            }
        }
        Ok(scopes)
    }
}

impl fmt::Display for OperatorScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.admin, self.read) {
            (true, true) => "admin,read",
            (true, false) => "admin",
            (false, true) => "read",
            (false, false) => "",
        })
    }
}

/// An operator as the database has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The public part of the token.
    pub id: String,
    /// What people call them; the audit log shows it.
    pub name: String,
    /// What they may do.
    pub scopes: OperatorScopes,
    /// When the token was made.
    pub created_at: OffsetDateTime,
    /// When the token stops working by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When the token was revoked; any value means that it is.
    pub revoked_at: Option<OffsetDateTime>,
}

/// An operator about to be made.
#[derive(Debug, Clone)]
pub struct NewOperator {
    /// The public part of the token.
    pub id: String,
    /// What people shall call them.
    pub name: String,
    /// SHA-256 of the whole token.
    pub digest: KeyDigest,
    /// What they may do.
    pub scopes: OperatorScopes,
    /// When the token stops working by itself.
    pub expires_at: Option<OffsetDateTime>,
}

macro_rules! operator_select {
    ($rest:literal) => {
        concat!(
            "select id, name, scopes, created_at, expires_at, revoked_at from operators ",
            $rest
        )
    };
}

impl Store {
    /// Makes an operator.
    pub async fn operator_insert(
        &self,
        new: NewOperator,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<Operator, StoreError> {
        let at = kept(now);
        let operator = Operator {
            id: new.id,
            name: new.name,
            scopes: new.scopes,
            created_at: at,
            expires_at: new.expires_at.map(kept),
            revoked_at: None,
        };
        in_transaction!(self, tx => {
            sqlx::query(
                "insert into operators (id, name, digest, scopes, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)",
            )
            .bind(operator.id.as_str())
            .bind(operator.name.as_str())
            .bind(new.digest.as_bytes().as_slice())
            .bind(operator.scopes.to_string())
            .bind(Written(at))
            .bind(operator.expires_at.map(Written))
            .execute(&mut *tx)
            .await?;
            audit_insert!(tx, Done {
                at,
                actor,
                action: "operator.create",
                tenant: None,
                key_id: None,
                detail: format!("id {}, name {:?}, scopes {}", operator.id, operator.name, operator.scopes),
            });
        });
        Ok(operator)
    }

    /// Up to `limit` operators in the order of their ids, those after `after`.
    pub async fn operator_list(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Operator>, StoreError> {
        on_pool!(self, pool => {
            let rows = sqlx::query(operator_select!("where id > $1 order by id limit $2"))
                .bind(after.unwrap_or_default())
                .bind(i64::from(limit))
                .fetch_all(pool)
                .await?;
            rows.iter().map(operator_of).collect()
        })
    }

    /// Revokes an operator's token. `None`: there is no such operator. One revoked before stays as it is.
    pub async fn operator_revoke(
        &self,
        id: &str,
        now: OffsetDateTime,
        actor: &Actor,
    ) -> Result<Option<Operator>, StoreError> {
        let at = kept(now);
        in_transaction!(self, tx => {
            let written = sqlx::query(
                "update operators set revoked_at = $2 where id = $1 and revoked_at is null",
            )
            .bind(id)
            .bind(Written(at))
            .execute(&mut *tx)
            .await?
            .rows_affected();
            let row = sqlx::query(operator_select!("where id = $1"))
                .bind(id)
                .fetch_optional(&mut *tx)
                .await?;
            let Some(operator) = row.as_ref().map(operator_of).transpose()? else {
                return Ok(None);
            };
            if written > 0 {
                audit_insert!(tx, Done {
                    at,
                    actor,
                    action: "operator.revoke",
                    tenant: None,
                    key_id: None,
                    detail: format!("id {}, name {:?}", operator.id, operator.name),
                });
            }
            Ok(Some(operator))
        })
    }

    /// The operator whose token has this digest: expired and revoked ones too.
    pub async fn operator_fetch(&self, digest: &KeyDigest) -> Result<Option<Operator>, StoreError> {
        on_pool!(self, pool => {
            let row = sqlx::query(operator_select!("where digest = $1"))
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(pool)
            .await?;
            row.as_ref().map(operator_of).transpose()
        })
    }
}

fn operator_of(row: &impl Columns) -> Result<Operator, StoreError> {
    let row = Checked {
        table: "operators",
        id: row.text("id")?,
        row,
    };
    Ok(Operator {
        name: row.row.text("name")?,
        scopes: row.parsed("scopes")?,
        created_at: row.time("created_at")?,
        expires_at: row.time_or_null("expires_at")?,
        revoked_at: row.revocation()?,
        id: row.id,
    })
}
