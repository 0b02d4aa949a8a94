//! What can go wrong with the database, as far as a caller can act on it.

use model::{KeyId, TenantId};

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be asked now: not reachable, starting, stopping, or out of connections. Worth another try.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused a statement.
    #[error("the database refused a statement")]
    Query(#[source] sqlx::Error),
    /// A migration failed; nothing of it was kept.
    #[error("the database could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The schema is older than this program.
    #[error(
        "the database has schema {found}, this program needs {needed}: run `okmon migrate --database-url …` first"
    )]
    SchemaTooOld {
        /// The version in the database; 0 for an empty one.
        found: i64,
        /// The version this program knows.
        needed: i64,
    },
    /// The schema is newer than this program.
    #[error(
        "the database has schema {found}, this program knows {known} at most: run a version of okmon that is at least as new as the one that ran `okmon migrate`"
    )]
    SchemaTooNew {
        /// The version in the database.
        found: i64,
        /// The version this program knows.
        known: i64,
    },
    /// A row holds something that the rules of `model` forbid, most likely written by hand.
    #[error("row {row:?} of table {table} is not valid: {reason}")]
    BadRow {
        /// The table's name.
        table: &'static str,
        /// The row's public id.
        row: String,
        /// The column, and what is wrong with it.
        reason: String,
    },
    /// A tenant with this id exists already.
    #[error("tenant {0} exists already")]
    TenantExists(TenantId),
    /// There is no tenant with this id.
    #[error("there is no tenant {0}")]
    NoSuchTenant(TenantId),
    /// The tenant was deleted, so it gets no new keys.
    #[error("tenant {0} is inactive")]
    TenantInactive(TenantId),
    /// A key with this id or digest exists already.
    #[error("key {0} exists already")]
    KeyExists(KeyId),
    /// A key that was made elsewhere cannot be taken in.
    #[error("key {key_id} cannot be imported: {why}")]
    KeyTaken {
        /// The key's id.
        key_id: KeyId,
        /// What is in the way.
        why: &'static str,
    },
    /// It is not clear which key a rotation shall replace.
    #[error("{}", rotate_which(tenant, *wanted, candidates))]
    RotateWhich {
        /// Whose keys.
        tenant: TenantId,
        /// The key that was named, which is not among the candidates.
        wanted: Option<KeyId>,
        /// The keys that could be replaced, with their names.
        candidates: Vec<(KeyId, String)>,
    },
}

fn rotate_which(
    tenant: &TenantId,
    wanted: Option<KeyId>,
    candidates: &[(KeyId, String)],
) -> String {
    let listed: Vec<_> = candidates
        .iter()
        .map(|(id, name)| format!("{id} ({name:?})"))
        .collect();
    let there_are = match listed.as_slice() {
        [] => "it has none that works and has not been replaced; make a new one".to_owned(),
        _ => format!("name one of {}", listed.join(", ")),
    };
    match wanted {
        Some(id) => format!(
            "key {id} is not one of tenant {tenant}'s that work and have not been replaced: {there_are}"
        ),
        None => format!("it is not clear which key of tenant {tenant} to replace: {there_are}"),
    }
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything but the database's state.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Turns a violated unique constraint into `exists`.
    pub(crate) fn exists_as(error: sqlx::Error, exists: Self) -> Self {
        let violated = error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        if violated { exists } else { error.into() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let temporary = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_temporary(&code)),
            _ => false,
        };
        if temporary {
            Self::Unavailable(error)
        } else {
            Self::Query(error)
        }
    }
}

/// PostgreSQL's SQLSTATE (appendix A of its manual), or SQLite's result code.
fn is_temporary(code: &str) -> bool {
    // 08 connection, 40 serialization and deadlock, 53 resources, 57P0x stopping or starting.
    let postgres = code.len() == 5
        && (["08", "40", "53"]
            .iter()
            .any(|class| code.starts_with(class))
            || code.starts_with("57P0"));
    // SQLite's primary code is the low byte: 5 BUSY, 6 LOCKED, 10 IOERR, 13 FULL, 14 CANTOPEN.
    let sqlite = code.len() < 5
        && code
            .parse::<u32>()
            .is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14));
    postgres || sqlite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_that_pass_by_themselves_are_temporary() {
        for code in ["57P03", "53300", "08006", "40001", "5", "261", "14"] {
            assert!(is_temporary(code), "{code}");
        }
        for code in ["23505", "42P01", "57014", "28P01", "1", "2067"] {
            assert!(!is_temporary(code), "{code}");
        }
    }
}
