//! The feed of changes to tenants and keys, as the database's triggers write it. Says which cached grants are out of
//! date; what to do about it is the cache's business.
//!
//! Places in the feed are given before a transaction commits, so a reader that remembered the highest place it saw would
//! miss one that commits later with a lower place. On PostgreSQL a reader therefore remembers the snapshot it read with:
//! what that snapshot did not see is new, whatever its place. SQLite has one writer at a time, so places there are in the
//! order of commits.

use std::time::Duration;

use model::{KeyDigest, KeyId, TenantId};
use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::sqlite::SqlitePool;

use crate::columns::Columns;
use crate::{Pool, Store, StoreError};

/// What the triggers notify (PostgreSQL).
const CHANNEL: &str = "okmon_changes";

/// One entry of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the feed; grows, with gaps.
    pub seq: i64,
    /// What changed.
    pub changed: Changed,
}

/// What a change touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// One key was made, changed or deleted.
    Key {
        /// Whose key.
        tenant: TenantId,
        /// Its public id.
        key_id: KeyId,
        /// What it is cached under.
        digest: KeyDigest,
    },
    /// A tenant was made, changed or deleted: all its keys are affected.
    Tenant(TenantId),
    /// Anything may have changed.
    Everything,
}

/// How far a reader has followed the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedPosition(Position);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// A snapshot as `pg_current_snapshot()` writes it.
    Postgres(String),
    /// The highest place seen.
    Sqlite(i64),
}

/// What a reader gets of the feed.
#[derive(Debug, Clone)]
pub struct FeedRead {
    /// What is new, in the order of the places.
    pub changes: Vec<Change>,
    /// Where to read on. Unchanged when `cut_off`.
    pub next: FeedPosition,
    /// There is more than was asked for: reading everything again costs less than going through it.
    pub cut_off: bool,
    /// The database is behind the position: it was put back to an earlier state, or is another one.
    pub went_back: bool,
}

/// Hears of changes as they are committed. What it says is a hint to read the feed, and may be lost.
#[derive(Debug)]
pub struct FeedListener(Option<PgListener>);

impl FeedListener {
    /// Waits until the feed may have grown; for ever on SQLite, which tells nobody. May be dropped and called again.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        let Some(listener) = &mut self.0 else {
            return std::future::pending().await;
        };
        if listener.try_recv().await?.is_none() {
            let lost = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
            return Err(StoreError::Unavailable(sqlx::Error::Io(lost)));
        }
        while listener.next_buffered().is_some() {}
        Ok(())
    }
}

impl Store {
    /// How often the feed should be looked at where nobody is told otherwise: PostgreSQL notifies, SQLite does not.
    pub const fn poll_every_default(url: &crate::DatabaseUrl) -> Duration {
        match url.target() {
            crate::url::Target::Postgres(_) => Duration::from_secs(5),
            crate::url::Target::Sqlite(_) | crate::url::Target::Memory(_) => {
                Duration::from_millis(500)
            }
        }
    }

    /// Which database this is: an id made with its schema, so that another one in its place is recognised.
    pub async fn installation(&self) -> Result<String, StoreError> {
        crate::on_pool!(self, pool => {
            let row = sqlx::query("select id from installation").fetch_one(pool).await?;
            Ok(row.text("id")?)
        })
    }

    /// Starts to listen for changes.
    pub async fn feed_listen(&self) -> Result<FeedListener, StoreError> {
        match &self.0 {
            Pool::Postgres(pool) => {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.eager_reconnect(false);
                listener.listen(CHANNEL).await?;
                Ok(FeedListener(Some(listener)))
            }
            Pool::Sqlite(_) => Ok(FeedListener(None)),
        }
    }

    /// Where the feed is now. For a cache that follows it: ask this before loading, so that what changes in between is
    /// seen twice rather than never.
    pub async fn feed_position(&self) -> Result<FeedPosition, StoreError> {
        match &self.0 {
            Pool::Postgres(pool) => {
                let row = sqlx::query("select pg_current_snapshot()::text as position")
                    .fetch_one(pool)
                    .await?;
                Ok(FeedPosition(Position::Postgres(row.text("position")?)))
            }
            Pool::Sqlite(pool) => Ok(FeedPosition(Position::Sqlite(sqlite_end(pool).await?))),
        }
    }

    /// What is new since `position`, but not more than `limit` changes.
    pub async fn changes_since(
        &self,
        position: &FeedPosition,
        limit: u32,
    ) -> Result<FeedRead, StoreError> {
        match (&self.0, &position.0) {
            (Pool::Postgres(pool), Position::Postgres(snapshot)) => {
                postgres_changes(pool, snapshot, limit).await
            }
            (Pool::Sqlite(pool), Position::Sqlite(seq)) => sqlite_changes(pool, *seq, limit).await,
            // A position of another kind of database: nothing it says holds here.
            _ => Ok(FeedRead {
                changes: Vec::new(),
                next: self.feed_position().await?,
                cut_off: false,
                went_back: true,
            }),
        }
    }
}

async fn postgres_changes(
    pool: &PgPool,
    snapshot: &str,
    limit: u32,
) -> Result<FeedRead, StoreError> {
    // One statement, so that the snapshot it gives back is the one it reads with.
    let rows = sqlx::query(
        "select pg_current_snapshot()::text as position, \
         pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax($1::text::pg_snapshot) as went_back, \
         c.seq, c.kind, c.tenant_id, c.key_id, c.digest \
         from (select) as always left join ( \
           select * from changes where xid >= pg_snapshot_xmin($1::text::pg_snapshot) \
           and not pg_visible_in_snapshot(xid, $1::text::pg_snapshot) order by seq limit $2 \
         ) as c on true order by c.seq",
    )
    .bind(snapshot)
    .bind(i64::from(limit) + 1)
    .fetch_all(pool)
    .await?;
    let mut read = FeedRead {
        changes: Vec::with_capacity(rows.len()),
        next: FeedPosition(Position::Postgres(snapshot.to_owned())),
        cut_off: rows.len() > limit as usize,
        went_back: false,
    };
    for row in &rows {
        read.went_back = row.try_get("went_back")?;
        if !read.cut_off {
            read.next = FeedPosition(Position::Postgres(row.text("position")?));
        }
        if row.integer_or_null("seq")?.is_some() {
            read.changes.push(change_of(row)?);
        }
    }
    read.changes.truncate(limit as usize);
    Ok(read)
}

async fn sqlite_changes(pool: &SqlitePool, seq: i64, limit: u32) -> Result<FeedRead, StoreError> {
    let rows = sqlx::query(
        "select seq, kind, tenant_id, key_id, digest from changes where seq > $1 order by seq limit $2",
    )
    .bind(seq)
    .bind(i64::from(limit) + 1)
    .fetch_all(pool)
    .await?;
    let cut_off = rows.len() > limit as usize;
    let rows = rows.iter().take(limit as usize);
    let changes = rows.map(change_of).collect::<Result<Vec<_>, _>>()?;
    let went_back = changes.is_empty() && sqlite_end(pool).await? < seq;
    let next = match changes.last() {
        Some(last) if !cut_off => last.seq,
        _ => seq,
    };
    Ok(FeedRead {
        changes,
        next: FeedPosition(Position::Sqlite(next)),
        cut_off,
        went_back,
    })
}

/// The last place ever given, also when its change has been pruned since.
async fn sqlite_end(pool: &SqlitePool) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "select coalesce((select seq from sqlite_sequence where name = 'changes'), 0) as seq",
    )
    .fetch_one(pool)
    .await?;
    Ok(row.integer("seq")?)
}

fn change_of(row: &impl Columns) -> Result<Change, StoreError> {
    let kind = row.text("kind")?;
    let tenant = row
        .text_or_null("tenant_id")?
        .and_then(|id| id.parse().ok());
    let key_id = row.text_or_null("key_id")?.and_then(|id| id.parse().ok());
    let digest = row.bytes_or_null("digest")?;
    let digest = digest.and_then(|bytes| KeyDigest::from_slice(&bytes));
    // A row that cannot be read must not stop the feed, and must not be passed over either.
    let changed = match (kind.as_str(), tenant, key_id, digest) {
        ("key", Some(tenant), Some(key_id), Some(digest)) => Changed::Key {
            tenant,
            key_id,
            digest,
        },
        ("tenant", Some(tenant), _, _) => Changed::Tenant(tenant),
        _ => Changed::Everything,
    };
    Ok(Change {
        seq: row.integer("seq")?,
        changed,
    })
}
