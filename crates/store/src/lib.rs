//! The only crate that knows SQL: tenants, keys, operators, the audit log and the feed of changes, in PostgreSQL or SQLite.
//!
//! Every statement is written once for both databases; what differs is the schema (`migrations/`) and how a time is read.
//! Nothing here decides what a key may do: that is `model`'s [`Grant::verdict`](model::Grant::verdict). Secrets never
//! come here, only their digests.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `grants` | what the edge reads: one grant by digest, or all active ones |
//! | `changes` | the feed that says which cached grants are out of date |
//! | `tenants`, `keys`, `rotation`, `operators`, `audit` | what the control plane reads and writes |
//! | `housekeeping` | what may be forgotten |
//! | `uses` | what the edge writes: when a key was last used, by whom and from where |
//! | `schema` | migrations, and the check that a process knows the schema it meets |

mod audit;
mod changes;
mod columns;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod operators;
mod rotation;
mod schema;
mod tenants;
mod url;
mod uses;

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

pub use audit::{Actor, AuditEntry, AuditFilter};
pub use changes::{Change, Changed, FeedListener, FeedPosition, FeedRead};
pub use error::StoreError;
pub use grants::{BadGrant, Grants, GrantsCursor, GrantsPage};
pub use housekeeping::Forgotten;
pub use keys::{Key, KeyUses, NewKey, UsedBy};
pub use operators::{NewOperator, Operator, OperatorScope, OperatorScopes, UnknownOperatorScope};
pub use rotation::Rotation;
pub use tenants::{Limit, NewTenant, Tenant, TenantLimits, TenantUpdate};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
pub use uses::{KeyUse, Seen, USES_PER_KEY_MAX};

use url::Target;

/// How long a call waits for a free connection, or for the database to accept a new one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Gives a call to the database an end: after `patience` it counts as not answered.
pub async fn within<T>(
    patience: Duration,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answered = tokio::time::timeout(patience, asking).await;
    answered.unwrap_or_else(|_| {
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(StoreError::Unavailable(sqlx::Error::Io(late)))
    })
}

/// A database. Cheap to clone; clones share one pool.
#[derive(Debug, Clone)]
pub struct Store(Pool);

#[derive(Debug, Clone)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// Runs `$body` with the pool of whichever database it is; the body is compiled once for each.
macro_rules! on_pool {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.0 {
            crate::Pool::Postgres($pool) => $body,
            crate::Pool::Sqlite($pool) => $body,
        }
    };
}

/// As `on_pool!`, in a transaction that is committed when `$body` ends; leaving the body early rolls back.
macro_rules! in_transaction {
    ($store:expr, $tx:ident => $body:expr) => {
        match &$store.0 {
            crate::Pool::Postgres(pool) => {
                let mut $tx = pool.begin().await?;
                let done = $body;
                $tx.commit().await?;
                done
            }
            crate::Pool::Sqlite(pool) => {
                // A transaction that reads first and writes later fails if another wrote in between; this one waits.
                let mut $tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                let done = $body;
                $tx.commit().await?;
                done
            }
        }
    };
}

pub(crate) use {in_transaction, on_pool};

impl Store {
    /// Opens the database lazily: nothing is tried before the first call. For a process that must start without it.
    ///
    /// `max_connections` bounds the pool; a database in memory has exactly one connection, because it lives in it.
    pub fn open(url: &DatabaseUrl, max_connections: u32) -> Self {
        Self(match url.target() {
            Target::Postgres(options) => Pool::Postgres(
                PgPoolOptions::new()
                    .max_connections(max_connections.max(1))
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .connect_lazy_with(options.clone()),
            ),
            Target::Sqlite(options) => Pool::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(max_connections.max(1))
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .connect_lazy_with(options.clone()),
            ),
            Target::Memory(options) => Pool::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .connect_lazy_with(options.clone()),
            ),
        })
    }

    /// Opens the database and makes sure that it answers. Does not migrate: see [`Store::schema_check`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not answer within 5 s.
    pub async fn connect(url: &DatabaseUrl, max_connections: u32) -> Result<Self, StoreError> {
        if let Target::Postgres(options) = url.target() {
            // A pool tries a refused connection again until its time is up, and then cannot tell why it failed.
            let tried = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
            let connection = tried.map_err(|_| sqlx::Error::PoolTimedOut)??;
            connection.close().await?;
        }
        let store = Self::open(url, max_connections);
        store.ping().await?;
        Ok(store)
    }

    /// Makes sure within `patience` that the database takes connections, by one of its own: the pool would try a refused
    /// one again and again until its own time is up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the reason.
    pub async fn reach(&self, patience: Duration) -> Result<(), StoreError> {
        let Pool::Postgres(pool) = &self.0 else {
            return self.ping().await;
        };
        let options = pool.connect_options();
        let tried = tokio::time::timeout(patience, options.connect()).await;
        let connection = tried.map_err(|_| sqlx::Error::PoolTimedOut)??;
        Ok(connection.close().await?)
    }

    /// Asks the database for an answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_pool!(self, pool => {
            sqlx::query("select 1").execute(pool).await?;
        });
        Ok(())
    }

    /// Closes every connection, waiting for calls under way.
    pub async fn close(&self) {
        on_pool!(self, pool => pool.close().await);
    }
}
