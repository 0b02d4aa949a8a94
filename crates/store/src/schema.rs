//! Migrations, embedded in the binary, and the check that a process knows the schema it meets.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::columns::Columns as _;
use crate::{Pool, Store, StoreError, on_pool};

/// Two processes that migrate at once meet at this lock; the number is "okmon" in ASCII.
const MIGRATION_LOCK: i64 = 0x6f_6b6d_6f6e;

/// Each migration: its version, its name, and its SQL for either database. Applied ones are never edited.
const MIGRATIONS: &[(i64, &str, [&str; 2])] = &[
    (
        1,
        "tenants and keys",
        [
            include_str!("../migrations/postgres/0001_tenants_and_keys.sql"),
            include_str!("../migrations/sqlite/0001_tenants_and_keys.sql"),
        ],
    ),
    (
        2,
        "lifecycle",
        [
            include_str!("../migrations/postgres/0002_lifecycle.sql"),
            include_str!("../migrations/sqlite/0002_lifecycle.sql"),
        ],
    ),
];

/// The edge's role and its rights, brought up to date after every migration. SQLite has no roles.
const EDGE_ROLE: &str = include_str!("../migrations/postgres/edge_role.sql");

fn migrator(select: impl Fn(&[&'static str; 2]) -> &'static str) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = select(sql).into_sql_str();
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.set_locking(false);
    migrator
}

fn latest() -> i64 {
    MIGRATIONS
        .iter()
        .map(|(version, ..)| *version)
        .max()
        .unwrap_or_default()
}

impl Store {
    /// Brings the schema to the version of this program, in one transaction: all of it or nothing. Several processes may
    /// try at once; one does it and the others wait.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooNew`], [`StoreError::Migrate`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let found = self.schema_version().await?;
        if found > latest() {
            return Err(StoreError::SchemaTooNew {
                found,
                known: latest(),
            });
        }
        match &self.0 {
            Pool::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                sqlx::query("select pg_advisory_xact_lock($1)")
                    .bind(MIGRATION_LOCK)
                    .execute(&mut *tx)
                    .await?;
                let migrator = migrator(|[postgres, _]| postgres);
                migrator
                    .run_direct(None, &mut *tx, false)
                    .await
                    .map_err(StoreError::Migrate)?;
                sqlx::raw_sql(EDGE_ROLE).execute(&mut *tx).await?;
                tx.commit().await?;
            }
            Pool::Sqlite(pool) => {
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                let migrator = migrator(|[_, sqlite]| sqlite);
                migrator
                    .run_direct(None, &mut *tx, false)
                    .await
                    .map_err(StoreError::Migrate)?;
                tx.commit().await?;
            }
        }
        Ok(())
    }

    /// Whether this program knows the database's schema.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooOld`], [`StoreError::SchemaTooNew`].
    pub async fn schema_check(&self) -> Result<(), StoreError> {
        let (found, known) = (self.schema_version().await?, latest());
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(StoreError::SchemaTooOld {
                found,
                needed: known,
            }),
            std::cmp::Ordering::Greater => Err(StoreError::SchemaTooNew { found, known }),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    /// The version in the database; 0 when it has never been migrated.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        let exists = match &self.0 {
            Pool::Postgres(pool) => {
                sqlx::query("select 1 where to_regclass('_sqlx_migrations') is not null")
                    .fetch_optional(pool)
                    .await?
                    .is_some()
            }
            Pool::Sqlite(pool) => {
                sqlx::query("select 1 from sqlite_master where name = '_sqlx_migrations'")
                    .fetch_optional(pool)
                    .await?
                    .is_some()
            }
        };
        if !exists {
            return Ok(0);
        }
        on_pool!(self, pool => {
            let row = sqlx::query("select coalesce(max(version), 0) as version from _sqlx_migrations where success")
                .fetch_one(pool)
                .await?;
            Ok(row.integer("version")?)
        })
    }
}
