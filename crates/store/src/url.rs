//! Where a database is. Decides which texts are such an address, and shows them without the password.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

/// How long a statement waits for another process's write to a SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of a database: `postgres://USER:PASSWORD@HOST/NAME`, `sqlite://PATH` or `sqlite::memory:`.
///
/// `Display` and `Debug` leave out the password and any parameters.
#[derive(Clone)]
pub struct DatabaseUrl {
    target: Target,
    shown: String,
    /// As it was given; may hold a password.
    text: String,
}

#[derive(Clone)]
pub(crate) enum Target {
    Postgres(PgConnectOptions),
    Sqlite(SqliteConnectOptions),
    Memory(SqliteConnectOptions),
}

/// A text that is not the address of a database we speak to. The text is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Neither PostgreSQL nor SQLite.
    #[error(
        "not a database URL: use postgres://USER:PASSWORD@HOST/NAME, sqlite://PATH or sqlite::memory:"
    )]
    Scheme,
    /// The scheme is known, the rest is not understood.
    #[error("not a valid {0} URL: {1}")]
    Malformed(&'static str, String),
}

impl DatabaseUrl {
    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }

    fn postgres(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let options = PgConnectOptions::from_str(text)
            .map_err(|error| InvalidDatabaseUrl::Malformed("PostgreSQL", error.to_string()))?
            .application_name("okmon");
        let host = options.get_socket().map_or_else(
            || options.get_host().to_owned(),
            |dir| dir.display().to_string(),
        );
        let shown = format!(
            "postgres://{}@{host}:{}/{}",
            options.get_username(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        );
        Ok(Self {
            target: Target::Postgres(options),
            shown,
            text: text.to_owned(),
        })
    }

    fn sqlite(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let options = SqliteConnectOptions::from_str(text)
            .map_err(|error| InvalidDatabaseUrl::Malformed("SQLite", error.to_string()))?
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        if text == "sqlite::memory:" {
            return Ok(Self {
                target: Target::Memory(options),
                shown: text.to_owned(),
                text: text.to_owned(),
            });
        }
        let path = options.get_filename();
        if path.as_os_str().is_empty() {
            let message = "the path is missing".to_owned();
            return Err(InvalidDatabaseUrl::Malformed("SQLite", message));
        }
        let shown = format!("sqlite://{}", path.display());
        // Readers never wait for the writer in WAL mode. NORMAL may lose the last commits when the machine loses power;
        // FULL costs a sync per commit, which is the promise a revocation needs.
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        Ok(Self {
            target: Target::Sqlite(options),
            shown,
            text: text.to_owned(),
        })
    }
}

/// Equal when they were given alike, passwords included.
impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::postgres(text)
        } else if text.starts_with("sqlite:") {
            Self::sqlite(text)
        } else {
            Err(InvalidDatabaseUrl::Scheme)
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "postgres://okmon:hunter2@db.example:5433/tenants?sslmode=require",
            "postgres:///tenants?host=/run/postgresql&user=okmon&password=hunter2",
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            let shown = format!("{url} {url:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("tenants"), "{shown}");
        }
        let error = "postgres://okmon:hunter2@[bad/tenants"
            .parse::<DatabaseUrl>()
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn other_databases_are_refused_with_the_forms_that_work() {
        for text in ["", "mysql://h/d", "/var/lib/x.db"] {
            let error = text.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(error.contains("sqlite://PATH"), "{error}");
        }
        assert!("sqlite://".parse::<DatabaseUrl>().is_err());
    }
}
