//! What the edges write down about the use of keys: when each was last used, by which user agents, and from which addresses.
//! Few are kept per key, and the role that edges have may delete nothing: a newcomer takes over the row that was seen longest
//! ago.

use std::collections::{HashMap, HashSet};

use model::KeyId;
use sqlx::{PgTransaction, SqliteTransaction};
use time::OffsetDateTime;

use crate::columns::{Columns, Stamp, Written, kept};
use crate::{Pool, Store, StoreError};

/// How many user agents, and how many addresses, are kept of one key.
pub const USES_PER_KEY_MAX: usize = 10;

/// Keys in one statement.
const KEYS_AT_ONCE: usize = 500;

/// How one key was used for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Which key.
    pub key_id: KeyId,
    /// When it was last used.
    pub last_used_at: OffsetDateTime,
    /// By which user agents, those worth most first. No value may come twice.
    pub user_agents: Vec<Seen>,
    /// From which addresses, those worth most first. No value may come twice.
    pub addresses: Vec<Seen>,
}

/// A user agent or an address that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The user agent or the address. No NUL may be in it.
    pub value: String,
    /// In how many requests.
    pub requests: u64,
    /// When first.
    pub first_at: OffsetDateTime,
    /// When last.
    pub last_at: OffsetDateTime,
}

/// One row to be written.
struct Upsert<'a> {
    key_id: &'a str,
    kind: &'static str,
    /// The row that gives way.
    replaces: Option<String>,
    seen: &'a Seen,
}

/// A row that is there.
struct Row {
    value: String,
    last_at: OffsetDateTime,
}

type Rows = HashMap<(String, String), Vec<Row>>;

impl Store {
    /// Writes down how keys were used, all or nothing. What was counted before is added to, times go forward only, and of
    /// each key at most [`USES_PER_KEY_MAX`] user agents and as many addresses stay. Keys that are gone are no error.
    pub async fn key_uses_write(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        match &self.0 {
            Pool::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                // One edge at a time: two that read nine rows would each add a tenth.
                sqlx::query("select pg_advisory_xact_lock(hashtext('okmon key_uses'))")
                    .execute(&mut *tx)
                    .await?;
                for uses in uses.chunks(KEYS_AT_ONCE) {
                    postgres_last_used(&mut tx, uses).await?;
                    let rows = postgres_rows(&mut tx, uses).await?;
                    postgres_upsert(&mut tx, &upserts(uses, rows)).await?;
                }
                tx.commit().await?;
            }
            Pool::Sqlite(pool) => {
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                for uses in uses.chunks(KEYS_AT_ONCE) {
                    let rows = sqlite_rows(&mut tx, uses).await?;
                    sqlite_last_used(&mut tx, uses).await?;
                    for upsert in upserts(uses, rows) {
                        sqlite_upsert(&mut tx, &upsert).await?;
                    }
                }
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

/// What has to be written where `rows` are there.
fn upserts(uses: &[KeyUse], mut rows: Rows) -> Vec<Upsert<'_>> {
    let mut upserts = Vec::new();
    for used in uses {
        let kinds = [
            ("user_agent", &used.user_agents),
            ("address", &used.addresses),
        ];
        for (kind, seen) in kinds {
            if seen.is_empty() {
                continue;
            }
            let key_id = used.key_id.as_str();
            let rows = rows.remove(&(key_id.to_owned(), kind.to_owned()));
            let rows = rows.unwrap_or_default();
            let seen = seen.get(..USES_PER_KEY_MAX).unwrap_or(seen);
            for (seen, replaces) in placed(seen, rows) {
                upserts.push(Upsert {
                    key_id,
                    kind,
                    replaces,
                    seen,
                });
            }
        }
    }
    upserts
}

/// Finds a place for each of `seen`: its own row, a new one while there is room, or that of a row seen longest ago, if that
/// was before.
fn placed(seen: &[Seen], rows: Vec<Row>) -> Vec<(&Seen, Option<String>)> {
    let mut room = USES_PER_KEY_MAX.saturating_sub(rows.len());
    let values: HashSet<_> = seen.iter().map(|seen| seen.value.as_str()).collect();
    let (own, mut others): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| values.contains(row.value.as_str()));
    let own: HashSet<_> = own.into_iter().map(|row| row.value).collect();
    others.sort_by_key(|row| std::cmp::Reverse(row.last_at));
    let mut placed = Vec::with_capacity(seen.len());
    for seen in seen {
        if own.contains(&seen.value) {
            placed.push((seen, None));
        } else if room > 0 {
            room -= 1;
            placed.push((seen, None));
        } else if let Some(oldest) = others.pop_if(|oldest| oldest.last_at < seen.last_at) {
            placed.push((seen, Some(oldest.value)));
        }
    }
    placed
}

fn put_row(rows: &mut Rows, row: &impl Columns) -> Result<(), StoreError> {
    let of = (row.text("key_id")?, row.text("kind")?);
    let last_at = match row.stamp("last_at")? {
        Some(Stamp::At(at)) => at,
        // Written by hand; it gives way first.
        Some(Stamp::Unreadable(_)) | None => OffsetDateTime::UNIX_EPOCH,
    };
    let value = row.text("value")?;
    rows.entry(of).or_default().push(Row { value, last_at });
    Ok(())
}

fn key_ids(uses: &[KeyUse]) -> Vec<&str> {
    uses.iter().map(|used| used.key_id.as_str()).collect()
}

/// The keys of which more is known than that they were used.
fn with_details(uses: &[KeyUse]) -> impl Iterator<Item = &str> {
    let with = |used: &&KeyUse| !used.user_agents.is_empty() || !used.addresses.is_empty();
    uses.iter().filter(with).map(|used| used.key_id.as_str())
}

fn counted(requests: u64) -> i64 {
    i64::try_from(requests).unwrap_or(i64::MAX)
}

async fn postgres_last_used(tx: &mut PgTransaction<'_>, uses: &[KeyUse]) -> Result<(), StoreError> {
    let at: Vec<_> = uses.iter().map(|used| kept(used.last_used_at)).collect();
    // A key that is being changed at this moment is passed over: waiting for it could end in a deadlock, which would make
    // somebody's revocation fail. Its next use is written.
    sqlx::query(
        "update api_keys k set last_used_at = u.at from unnest($1::text[], $2::timestamptz[]) as u (key_id, at) \
         where k.key_id = u.key_id and (k.last_used_at is null or k.last_used_at < u.at) and k.key_id in \
         (select key_id from api_keys where key_id = any($1) for no key update skip locked)",
    )
    .bind(key_ids(uses))
    .bind(at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn postgres_rows(tx: &mut PgTransaction<'_>, uses: &[KeyUse]) -> Result<Rows, StoreError> {
    let key_ids: Vec<_> = with_details(uses).collect();
    if key_ids.is_empty() {
        return Ok(Rows::new());
    }
    let found =
        sqlx::query("select key_id, kind, value, last_at from key_uses where key_id = any($1)")
            .bind(key_ids)
            .fetch_all(&mut **tx)
            .await?;
    let mut rows = Rows::new();
    for row in &found {
        put_row(&mut rows, row)?;
    }
    Ok(rows)
}

async fn postgres_upsert(
    tx: &mut PgTransaction<'_>,
    upserts: &[Upsert<'_>],
) -> Result<(), StoreError> {
    let (newcomers, own): (Vec<_>, Vec<_>) =
        upserts.iter().partition(|upsert| upsert.replaces.is_some());
    let statements = [
        (
            own,
            "insert into key_uses (key_id, kind, value, requests, first_at, last_at) \
             select u.key_id, u.kind, u.value, u.requests, u.first_at, u.last_at from unnest($1::text[], $2::text[], \
             $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::text[]) \
             as u (key_id, kind, value, requests, first_at, last_at, replaces) \
             on conflict (key_id, kind, value) do update set requests = key_uses.requests + excluded.requests, \
             first_at = least(key_uses.first_at, excluded.first_at), \
             last_at = greatest(key_uses.last_at, excluded.last_at)",
        ),
        (
            newcomers,
            "update key_uses k set value = u.value, requests = u.requests, first_at = u.first_at, last_at = u.last_at \
             from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], \
             $7::text[]) as u (key_id, kind, value, requests, first_at, last_at, replaces) \
             where k.key_id = u.key_id and k.kind = u.kind and k.value = u.replaces",
        ),
    ];
    for (upserts, statement) in statements {
        if upserts.is_empty() {
            continue;
        }
        let column =
            |of: fn(&Upsert<'_>) -> String| upserts.iter().map(|u| of(u)).collect::<Vec<_>>();
        let times = |of: fn(&Seen) -> OffsetDateTime| {
            let times = upserts.iter().map(|upsert| kept(of(upsert.seen)));
            times.collect::<Vec<_>>()
        };
        let requests = upserts.iter().map(|upsert| counted(upsert.seen.requests));
        sqlx::query(statement)
            .bind(column(|upsert| upsert.key_id.to_owned()))
            .bind(column(|upsert| upsert.kind.to_owned()))
            .bind(column(|upsert| upsert.seen.value.clone()))
            .bind(requests.collect::<Vec<_>>())
            .bind(times(|seen| seen.first_at))
            .bind(times(|seen| seen.last_at))
            .bind(column(|upsert| upsert.replaces.clone().unwrap_or_default()))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn sqlite_last_used(
    tx: &mut SqliteTransaction<'_>,
    uses: &[KeyUse],
) -> Result<(), StoreError> {
    for used in uses {
        sqlx::query(
            "update api_keys set last_used_at = $2 where key_id = $1 and (last_used_at is null or last_used_at < $2)",
        )
        .bind(used.key_id.as_str())
        .bind(Written(kept(used.last_used_at)))
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

async fn sqlite_rows(tx: &mut SqliteTransaction<'_>, uses: &[KeyUse]) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    for key_id in with_details(uses) {
        let found =
            sqlx::query("select key_id, kind, value, last_at from key_uses where key_id = $1")
                .bind(key_id)
                .fetch_all(&mut **tx)
                .await?;
        for row in &found {
            put_row(&mut rows, row)?;
        }
    }
    Ok(rows)
}

async fn sqlite_upsert(
    tx: &mut SqliteTransaction<'_>,
    upsert: &Upsert<'_>,
) -> Result<(), StoreError> {
    let statement = match upsert.replaces {
        None => {
            "insert into key_uses (key_id, kind, value, requests, first_at, last_at) values ($1, $2, $3, $4, $5, $6) \
             on conflict (key_id, kind, value) do update set requests = requests + excluded.requests, \
             first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)"
        }
        Some(_) => {
            "update key_uses set value = $3, requests = $4, first_at = $5, last_at = $6 \
             where key_id = $1 and kind = $2 and value = $7"
        }
    };
    let query = sqlx::query(statement)
        .bind(upsert.key_id)
        .bind(upsert.kind)
        .bind(upsert.seen.value.as_str())
        .bind(counted(upsert.seen.requests))
        .bind(Written(kept(upsert.seen.first_at)))
        .bind(Written(kept(upsert.seen.last_at)));
    let query = match &upsert.replaces {
        None => query,
        Some(replaced) => query.bind(replaced.as_str()),
    };
    query.execute(&mut **tx).await?;
    Ok(())
}
