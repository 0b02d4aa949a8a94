//! Reads the columns of a row in the same way from both databases, and checks them against the rules of `model`.
//! SQLite holds what anybody typed, so a time there may be any text.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteRow, SqliteTypeInfo};
use sqlx::{Encode, Postgres, Row as _, Sqlite, Type, TypeInfo as _, ValueRef as _};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::StoreError;

/// A time as a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stamp {
    At(OffsetDateTime),
    Unreadable(String),
}

/// Typed access to one row by column name.
pub(crate) trait Columns {
    fn text(&self, column: &str) -> Result<String, sqlx::Error>;
    fn text_or_null(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn bytes_or_null(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
    fn integer(&self, column: &str) -> Result<i64, sqlx::Error>;
    fn integer_or_null(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn stamp(&self, column: &str) -> Result<Option<Stamp>, sqlx::Error>;
}

impl Columns for PgRow {
    fn text(&self, column: &str) -> Result<String, sqlx::Error> {
        self.try_get(column)
    }

    fn text_or_null(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes_or_null(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }

    fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn integer_or_null(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn stamp(&self, column: &str) -> Result<Option<Stamp>, sqlx::Error> {
        Ok(self
            .try_get::<Option<OffsetDateTime>, _>(column)?
            .map(Stamp::At))
    }
}

impl Columns for SqliteRow {
    fn text(&self, column: &str) -> Result<String, sqlx::Error> {
        self.try_get(column)
    }

    fn text_or_null(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes_or_null(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }

    fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn integer_or_null(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn stamp(&self, column: &str) -> Result<Option<Stamp>, sqlx::Error> {
        let raw = self.try_get_raw(column)?;
        if raw.is_null() {
            return Ok(None);
        }
        let kind = raw.type_info().name().to_owned();
        let text = self
            .try_get_unchecked::<String, _>(column)
            .unwrap_or_else(|_| format!("a {kind}"));
        Ok(Some(
            parse_sqlite_time(&text).map_or(Stamp::Unreadable(text), Stamp::At),
        ))
    }
}

const SQLITE_TIME: &[BorrowedFormatItem<'_>] = format_description!(
    version = 2,
    "[year]-[month]-[day][first [ ][T]][hour]:[minute][optional [:[second][optional [.[subsecond]]]]][optional [Z]]"
);
const SQLITE_TIME_WRITTEN: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");

/// What `datetime()`, `strftime('%Y-%m-%dT%H:%M:%fZ')` and RFC 3339 write; without an offset it is UTC.
fn parse_sqlite_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| {
            time::PrimitiveDateTime::parse(text, SQLITE_TIME)
                .map(time::PrimitiveDateTime::assume_utc)
        })
        .ok()
        .and_then(|at| at.checked_to_offset(time::UtcOffset::UTC))
}

/// A time to be written: PostgreSQL's own type, or text that sorts together with what `datetime('now')` writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written(pub(crate) OffsetDateTime);

impl Type<Postgres> for Written {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Written {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <OffsetDateTime as Encode<'_, Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

impl Type<Sqlite> for Written {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Written {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        let utc = self.0.to_offset(time::UtcOffset::UTC);
        Encode::<Sqlite>::encode(utc.format(SQLITE_TIME_WRITTEN)?, buffer)
    }
}

/// `at` in the precision both databases keep: microseconds, in UTC. What a caller gets back equals what it wrote.
pub(crate) fn kept(at: OffsetDateTime) -> OffsetDateTime {
    let utc = at.to_offset(time::UtcOffset::UTC);
    utc.replace_nanosecond(utc.nanosecond() / 1000 * 1000)
        .unwrap_or(utc)
}

/// A row under validation: its errors name the table, the row and the column.
pub(crate) struct Checked<'r, R> {
    pub(crate) table: &'static str,
    pub(crate) id: String,
    pub(crate) row: &'r R,
}

impl<R: Columns> Checked<'_, R> {
    pub(crate) fn bad(&self, column: &str, reason: impl Display) -> StoreError {
        StoreError::BadRow {
            table: self.table,
            row: self.id.clone(),
            reason: format!("{column}: {reason}"),
        }
    }

    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, StoreError> {
        let text = self.row.text(column)?;
        text.parse()
            .map_err(|reason: T::Err| self.bad(column, reason))
    }

    pub(crate) fn time_or_null(&self, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        match self.row.stamp(column)? {
            None => Ok(None),
            Some(Stamp::At(at)) => Ok(Some(at)),
            Some(Stamp::Unreadable(text)) => Err(self.bad(
                column,
                format!("{text:?} is not a time: write it as datetime('now') does"),
            )),
        }
    }

    pub(crate) fn time(&self, column: &str) -> Result<OffsetDateTime, StoreError> {
        self.time_or_null(column)?
            .ok_or_else(|| self.bad(column, "is null"))
    }

    /// A time whose presence alone matters: one that cannot be read counts as the earliest.
    pub(crate) fn revocation(&self) -> Result<Option<OffsetDateTime>, StoreError> {
        Ok(self.row.stamp("revoked_at")?.map(|stamp| match stamp {
            Stamp::At(at) => at,
            Stamp::Unreadable(_) => OffsetDateTime::UNIX_EPOCH,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn every_form_of_time_that_sqlite_writes_is_read() {
        for (text, expected) in [
            ("2026-01-02 03:04:05", datetime!(2026-01-02 03:04:05 UTC)),
            ("2026-01-02 03:04", datetime!(2026-01-02 03:04 UTC)),
            (
                "2026-01-02T03:04:05.678Z",
                datetime!(2026-01-02 03:04:05.678 UTC),
            ),
            (
                "2026-01-02T03:04:05.678",
                datetime!(2026-01-02 03:04:05.678 UTC),
            ),
            (
                "2026-01-02T05:04:05+02:00",
                datetime!(2026-01-02 03:04:05 UTC),
            ),
        ] {
            assert_eq!(parse_sqlite_time(text), Some(expected), "{text}");
        }
        for text in ["", "yes", "2026-13-02 03:04:05", "now"] {
            assert_eq!(parse_sqlite_time(text), None, "{text}");
        }
    }
}
