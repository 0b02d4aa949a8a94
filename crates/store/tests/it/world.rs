//! A database with nothing in it but the schema, and a hand to type SQL with.

use model::{ApiKey, ScopeSet, TenantId};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use store::{Actor, DatabaseUrl, Key, NewKey, NewTenant, Store, Tenant};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05.678901 UTC);

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) url: String,
    _dir: Option<TempDir>,
}

impl World {
    pub(crate) async fn postgres() -> Self {
        let url = testkit::postgres::Postgres::shared().database();
        Self::migrated(url, None).await
    }

    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("okmon.db").display());
        Self::migrated(url, Some(dir)).await
    }

    /// The database at `url`, which is another server's.
    pub(crate) async fn at(url: String) -> Self {
        Self::migrated(url, None).await
    }

    async fn migrated(url: String, dir: Option<TempDir>) -> Self {
        let world = Self {
            store: connect(&url).await,
            url,
            _dir: dir,
        };
        world.store.migrate().await.unwrap();
        world
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// The current time as somebody types it.
    pub(crate) fn now(&self) -> &'static str {
        if self.is_postgres() {
            "now()"
        } else {
            "datetime('now')"
        }
    }

    /// Eight days ago, as somebody types it.
    pub(crate) fn past(&self) -> &'static str {
        if self.is_postgres() {
            "now() - interval '8 days'"
        } else {
            "datetime('now', '-8 days')"
        }
    }

    /// Runs statements as somebody with a database shell would, on a connection of its own.
    pub(crate) async fn sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = sqlx::AssertSqlSafe(sql);
        if self.is_postgres() {
            let mut shell = PgConnection::connect(&self.url).await?;
            sqlx::raw_sql(sql).execute(&mut shell).await?;
        } else {
            let mut shell = SqliteConnection::connect(&self.url).await?;
            sqlx::raw_sql(sql).execute(&mut shell).await?;
        }
        Ok(())
    }

    /// Makes tenant `id` with a first key.
    pub(crate) async fn tenant(&self, id: &str) -> (Tenant, Key, ApiKey) {
        let secret = ApiKey::generate().unwrap();
        let new = NewTenant {
            id: tenant_id(id),
            name: format!("Tenant {id}"),
            email: format!("{id}@example.com"),
        };
        let made = self
            .store
            .tenant_insert(new, new_key(&secret), NOW, &actor())
            .await;
        let (tenant, key) = made.unwrap();
        (tenant, key, secret)
    }
}

pub(crate) async fn connect(url: &str) -> Store {
    let url: DatabaseUrl = url.parse().unwrap();
    Store::connect(&url, 4).await.unwrap()
}

pub(crate) fn tenant_id(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

pub(crate) fn actor() -> Actor {
    Actor::operator("0123456789ab", "olga")
}

pub(crate) fn new_key(secret: &ApiKey) -> NewKey {
    NewKey {
        key_id: secret.id(),
        digest: secret.digest(),
        name: "default".to_owned(),
        scopes: ScopeSet::WRITE,
        expires_at: None,
    }
}
