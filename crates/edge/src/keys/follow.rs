//! Fills the keyring at start and keeps it true. While the database answers, its feed of changes is followed: a
//! notification wakes, a poll backs it up. While it does not, the keys in memory, or else those of the copy on disk, go on
//! being served. Decides when to read what; what a read does to the memory is for `apply`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ops::probe::Readiness;
use store::{FeedListener, FeedPosition, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::apply::{Applied, within};
use super::save::Saved;
use super::{Chain, Keyring, locked, save};

/// The part of readiness that waits for the keys.
pub(crate) const PART: &str = "keys";

/// Changes read at once; beyond, reading all keys again costs less.
const CHANGES: u32 = 10_000;
/// How long the database may take to accept a connection. A start without it shall not take longer.
const REACH_MAX: Duration = Duration::from_secs(1);
/// Pauses between tries to reach it; each is made up to half as long again, by chance.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After a lost connection all keys are read again within this time, by chance, so that edges which lost it together do
/// not come together. Changes are followed at once.
const RELOAD_SPREAD: Duration = Duration::from_secs(5);
/// A condition that lasts is logged again after this time.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// How often the age of what is in memory is looked at.
const AGE_EVERY: Duration = Duration::from_secs(1);

/// Why the feed is not being followed.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the database is another one (installation {found}) than the keys in memory came from (installation {known}); if it is meant to take over, stop the edge, remove the file keys.snapshot_file, and start it"
    )]
    Foreign { known: String, found: String },
}

/// Keeps the keyring until `stop`.
pub(crate) async fn keep(keyring: Arc<Keyring>, readiness: Readiness, stop: CancellationToken) {
    let saving = save::keep_saved(&keyring, &stop);
    let ageing = async {
        loop {
            tokio::time::sleep(AGE_EVERY).await;
            keyring.check_age();
            keyring
                .metrics
                .keys_held
                .set(precise(keyring.held.entry_count()));
        }
    };
    let following = follow(&keyring, &readiness);
    tokio::select! {
        // These two end with the process.
        () = ageing => {}
        () = following => {}
        () = saving => {}
    }
}

/// Follows the feed; after a failure begins anew, for ever.
async fn follow(keyring: &Arc<Keyring>, readiness: &Readiness) {
    let follower = Follower {
        keyring,
        readiness,
        position: Mutex::new(None),
        said: Mutex::new(None),
    };
    // Read even where the database answers: it says from which one the keys came last.
    let mut saved = save::read(keyring).await;
    let mut pause = PAUSE_MIN;
    loop {
        let lost = match follower.connect().await {
            Ok((listener, reload_at)) => {
                saved = None;
                pause = PAUSE_MIN;
                follower.run(listener, reload_at).await
            }
            Err(lost) => lost,
        };
        follower.lost(&lost, saved.take()).await;
        tokio::time::sleep(pause + by_chance(pause / 2)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

struct Follower<'a> {
    keyring: &'a Arc<Keyring>,
    readiness: &'a Readiness,
    /// How far the feed has been followed; `None` before the first connection.
    position: Mutex<Option<FeedPosition>>,
    /// What was last logged of the database's absence, and when.
    said: Mutex<Option<(String, Instant)>>,
}

impl Follower<'_> {
    /// Reaches the database, makes sure that it is ours, and catches up: by the feed where it was followed before, by
    /// reading all keys where it was not. Gives the time at which all keys shall be read again.
    async fn connect(&self) -> Result<(FeedListener, Instant), Lost> {
        let store = &self.keyring.store;
        store.reach(REACH_MAX).await?;
        within(store.schema_check()).await?;
        self.recognise().await?;
        self.keyring.tried.cancel();
        let listener = within(store.feed_listen()).await?;
        let followed_before = locked(&self.position).is_some();
        if followed_before {
            self.catch_up().await?;
        } else {
            let position = within(store.feed_position()).await?;
            *locked(&self.position) = Some(position);
            if let Err(lost) = self.reload().await {
                *locked(&self.position) = None;
                return Err(lost);
            }
        }
        self.keyring.metrics.key_database_up.set(1.0);
        self.keyring.database_up.store(true, Ordering::Relaxed);
        *locked(&self.said) = None;
        info!("the database answers; changes of keys are followed");
        let spread = if followed_before {
            by_chance(RELOAD_SPREAD)
        } else {
            self.reload_pause()
        };
        Ok((listener, Instant::now() + spread))
    }

    /// Makes sure that this is the database that the keys in memory came from.
    async fn recognise(&self) -> Result<(), Lost> {
        let found = within(self.keyring.store.installation()).await?;
        let mut known = locked(&self.keyring.installation);
        match &*known {
            Some(known) if *known != found => {
                let known = known.clone();
                Err(Lost::Foreign { known, found })
            }
            _ => {
                *known = Some(found);
                Ok(())
            }
        }
    }

    /// Follows the feed until something fails.
    async fn run(&self, mut listener: FeedListener, mut reload_at: Instant) -> Lost {
        loop {
            let woken = tokio::select! {
                changed = listener.changed() => changed.map_err(Lost::from),
                () = tokio::time::sleep(self.keyring.settings.poll_every) => Ok(()),
                () = tokio::time::sleep_until(reload_at) => {
                    reload_at = Instant::now() + self.reload_pause();
                    self.reload().await
                }
            };
            let followed = match woken {
                Ok(()) => self.catch_up().await,
                Err(lost) => Err(lost),
            };
            if let Err(lost) = followed {
                return lost;
            }
        }
    }

    /// Applies what the feed has that is new.
    async fn catch_up(&self) -> Result<(), Lost> {
        if self.step().await? == Applied::ReadAllAgain {
            self.reload().await?;
        }
        Ok(())
    }

    /// Reads the feed once.
    async fn step(&self) -> Result<Applied, StoreError> {
        let Some(position) = locked(&self.position).clone() else {
            return Ok(Applied::All);
        };
        let asked = Instant::now();
        let read = within(self.keyring.store.changes_since(&position, CHANGES)).await?;
        if read.cut_off || read.went_back {
            // What follows is read from here on, and what came before is read whole.
            let position = within(self.keyring.store.feed_position()).await?;
            *locked(&self.position) = Some(position);
            return Ok(Applied::ReadAllAgain);
        }
        let applied = self.keyring.apply(&read.changes).await?;
        *locked(&self.position) = Some(read.next);
        if applied == Applied::All {
            self.keyring.is_fresh(asked.elapsed());
        }
        Ok(applied)
    }

    /// Reads all keys, following the feed between the pages.
    async fn reload(&self) -> Result<(), Lost> {
        loop {
            let asked = Instant::now();
            let again = AtomicBool::new(false);
            let between = async || {
                let applied = self.step().await?;
                again.fetch_or(applied == Applied::ReadAllAgain, Ordering::Relaxed);
                Ok(())
            };
            let (read, complete) = self.keyring.read_all(between).await?;
            if again.load(Ordering::Relaxed) {
                continue;
            }
            let seconds = asked.elapsed().as_secs_f64();
            info!(keys = read, complete, seconds, "all keys were read");
            self.keyring.is_fresh(asked.elapsed());
            self.readiness.ready(PART);
            return Ok(());
        }
    }

    fn reload_pause(&self) -> Duration {
        let every = self.keyring.settings.reload_every;
        every.mul_f64(0.8) + by_chance(every.mul_f64(0.4))
    }

    /// Notes that the database is away; at start what was `saved` takes its place.
    async fn lost(&self, lost: &Lost, saved: Option<Saved>) {
        let keyring = self.keyring;
        keyring.database_up.store(false, Ordering::Relaxed);
        keyring.metrics.key_database_up.set(0.0);
        keyring.metrics.key_fetch_errors.increment(1);
        if let Some(saved) = saved {
            save::restore(keyring, saved).await;
        }
        keyring.tried.cancel();
        let error = Chain(lost).to_string();
        let age_seconds = keyring.age().map(|age| age.as_secs());
        if age_seconds.is_some() {
            self.readiness.ready(PART);
        } else {
            self.readiness
                .blocked_by(PART, format!("not loaded yet: {error}"));
        }
        if !self.is_news(&error) {
            return;
        }
        match (age_seconds, lost) {
            (None, _) => warn!(error, "the keys could not be loaded; trying again"),
            (Some(age_seconds), Lost::Store(_)) => {
                warn!(
                    error,
                    age_seconds, "the database is away; keys in memory go on being served"
                );
            }
            (Some(age_seconds), Lost::Foreign { .. }) => {
                error!(error, age_seconds, "keys in memory go on being served");
            }
        }
    }

    /// Whether `text` is to be logged: it is new, or was said long ago.
    fn is_news(&self, text: &str) -> bool {
        let mut said = locked(&self.said);
        let repeated = said
            .as_ref()
            .is_some_and(|(last, at)| last == text && at.elapsed() < SAY_AGAIN);
        if !repeated {
            *said = Some((text.to_owned(), Instant::now()));
        }
        !repeated
    }
}

/// A time from nothing to `max`, so that edges which do the same do not do it together.
fn by_chance(max: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or_default();
    max.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of keys stay far below 2^52"
)]
fn precise(count: u64) -> f64 {
    count as f64
}
