//! Forgets what is old, from time to time. How long which rows are kept is the store's to know.

use std::time::Duration;

use store::Store;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// When old rows are deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long after the start: a process that starts has better things to do.
    first: Duration,
    /// How long after each time, failed ones too.
    every: Duration,
}

impl Pace {
    pub(crate) const USUAL: Self = Self {
        first: Duration::from_mins(1),
        every: Duration::from_hours(1),
    };
}

/// Deletes old rows at `pace`, until `stop`. Several control planes may do so at once.
pub(crate) async fn keep_house(store: Store, pace: Pace, stop: CancellationToken) {
    let mut pause = pace.first;
    loop {
        tokio::select! {
            () = tokio::time::sleep(stretched(pause)) => {}
            () = stop.cancelled() => return,
        }
        pause = pace.every;
        match store.forget(OffsetDateTime::now_utc()).await {
            Ok(forgotten) => tracing::debug!(?forgotten, "old rows were deleted"),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    again_after_s = pause.as_secs(),
                    "old rows could not be deleted"
                );
            }
        }
    }
}

/// A pause made longer by up to a tenth, by chance, so that several processes do not go on together.
fn stretched(pause: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or_default();
    pause + pause.mul_f64(0.1 * f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Connection as _, SqliteConnection};

    const PACE: Pace = Pace {
        first: Duration::from_millis(1),
        every: Duration::from_millis(20),
    };

    /// Old rows in the feed of changes; `None` where there is no feed yet.
    async fn old_rows(shell: &mut SqliteConnection) -> Option<i64> {
        let count = "select count(*) from changes where at < datetime('now', '-7 days')";
        sqlx::query_scalar(count).fetch_one(shell).await.ok()
    }

    #[tokio::test]
    async fn old_rows_go_again_and_again_whatever_failed_before() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("okmon.db").display());
        let store = Store::connect(&url.parse().unwrap(), 2).await.unwrap();
        // Without a schema, the first times fail.
        assert!(store.forget(OffsetDateTime::now_utc()).await.is_err());
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep_house(store.clone(), PACE, stop.clone()));
        store.migrate().await.unwrap();
        let mut shell = SqliteConnection::connect(&url).await.unwrap();
        for _ in 0..3 {
            let old = "insert into changes (kind, at) values ('all', datetime('now', '-8 days'))";
            sqlx::query(old).execute(&mut shell).await.unwrap();
            let looking = async {
                while old_rows(&mut shell).await != Some(0) {
                    tokio::task::yield_now().await;
                }
            };
            let looked = tokio::time::timeout(Duration::from_secs(20), looking).await;
            assert!(looked.is_ok(), "an old row is still there after 20 s");
        }
        stop.cancel();
        keeping.await.unwrap();
    }

    #[test]
    fn a_pause_is_longer_by_a_tenth_at_most() {
        for _ in 0..1000 {
            let pause = stretched(Pace::USUAL.every);
            assert!(pause >= Pace::USUAL.every && pause <= Duration::from_mins(66));
        }
    }
}
