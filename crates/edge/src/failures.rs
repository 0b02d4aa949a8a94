//! What wrong keys cost those who send them. Each address has a budget of failed authentications; once it is used up,
//! keys that are not in memory are not looked up for it. And each key that is refused is asked to wait longer every time.
//! Decides that alone: whether a key is good is for others, and a key in memory that is good never comes here.
//!
//! Nothing here sleeps or holds a request up. Both tables are bounded and shared by all cores: only failures touch them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::KeyDigest;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::budgets::Budgets;
use crate::config::BudgetSettings;
use crate::metrics::Metrics;

/// Refused keys that are remembered.
const DEAD_KEYS_MAX: u64 = 65_536;
/// A refused key that is not seen for so long is forgotten.
const DEAD_KEY_IDLE: Duration = Duration::from_mins(10);
/// What a key is asked to wait the first time, in seconds; then twice as long each time. Spreading adds up to a quarter, and
/// nobody shall wait longer than 300 s.
const WAIT_SECONDS_MIN: u32 = 4;
const WAIT_SECONDS_MAX: u32 = 240;
/// How often the sizes of the tables are reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Failed authentications, by address and by key.
pub(crate) struct Failures {
    budgets: ArcSwap<Budgets>,
    dead_keys: Cache<KeyDigest, Arc<Mutex<DeadKey>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct DeadKey {
    wait_seconds: u32,
    last: Instant,
}

impl Failures {
    pub(crate) fn new(settings: &BudgetSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            budgets: ArcSwap::from_pointee(Budgets::new(settings)),
            dead_keys: Cache::builder()
                .max_capacity(DEAD_KEYS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(DEAD_KEY_IDLE)
                .build(),
            metrics,
        }
    }

    /// Gives budgets by other settings from now on. If they are others, every address begins with a full one.
    pub(crate) fn replace(&self, settings: &BudgetSettings) {
        if self.budgets.load().settings() != settings {
            self.budgets.store(Arc::new(Budgets::new(settings)));
        }
    }

    /// Charges `address` for a failed authentication.
    pub(crate) fn charge(&self, address: IpAddr) {
        if self.budgets.load().charge(address, 1) {
            self.metrics.auth_budgets_exhausted.increment(1);
        }
    }

    /// Asks whether a key that is not in memory may be looked up for `address`. What is given charges it unless the key
    /// turns out to be no failure: who hangs up before that is known has had the look-up all the same.
    ///
    /// # Errors
    /// When the budget is used up: the seconds until it is not.
    pub(crate) fn look_up(&self, address: IpAddr) -> Result<LookUp<'_>, u32> {
        self.budgets.load().left(address)?;
        Ok(LookUp {
            failures: self,
            address,
            fails: true,
        })
    }

    /// Notes that a key was refused; how long it is asked to wait, in seconds.
    pub(crate) fn refused(&self, digest: &KeyDigest) -> u32 {
        self.refused_at(digest, Instant::now())
    }

    fn refused_at(&self, digest: &KeyDigest, now: Instant) -> u32 {
        let mut first = false;
        let dead = self.dead_keys.get_with(*digest, || {
            first = true;
            Arc::new(Mutex::new(DeadKey::new(now)))
        });
        let mut dead = dead.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(dead.last) > DEAD_KEY_IDLE {
            *dead = DeadKey::new(now);
        } else if !first {
            dead.wait_seconds = (dead.wait_seconds * 2).min(WAIT_SECONDS_MAX);
        }
        dead.last = now;
        dead.wait_seconds
    }

    /// Forgets that a key was refused: it may work now.
    pub(crate) fn forget(&self, digest: &KeyDigest) {
        self.dead_keys.invalidate(digest);
    }

    fn report(&self) {
        let addresses = self.budgets.load().len();
        self.dead_keys.run_pending_tasks();
        let size = |entries: u64| f64::from(u32::try_from(entries).unwrap_or(u32::MAX));
        let metrics = &self.metrics;
        metrics.auth_addresses.set(size(addresses));
        metrics.dead_keys.set(size(self.dead_keys.entry_count()));
    }
}

/// Reports the sizes of the tables until `stop`.
pub(crate) async fn keep_reporting(failures: Arc<Failures>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REPORT_EVERY) => failures.report(),
            () = stop.cancelled() => return,
        }
    }
}

impl DeadKey {
    const fn new(now: Instant) -> Self {
        Self {
            wait_seconds: WAIT_SECONDS_MIN,
            last: now,
        }
    }
}

/// A look-up of a key for an address.
pub(crate) struct LookUp<'a> {
    failures: &'a Failures,
    address: IpAddr,
    fails: bool,
}

impl LookUp<'_> {
    /// The key exists, or nobody knows.
    pub(crate) fn pass(mut self) {
        self.fails = false;
    }
}

impl Drop for LookUp<'_> {
    fn drop(&mut self) {
        if self.fails {
            self.failures.charge(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(burst: u32, per_minute: u32, addresses_max: u32) -> Failures {
        let settings = BudgetSettings {
            burst,
            per_minute,
            addresses_max,
        };
        Failures::new(&settings, Metrics::new().unwrap().0)
    }

    fn digest(n: u64) -> KeyDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        KeyDigest::from_slice(&bytes).unwrap()
    }

    fn v4(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_look_up_is_charged_unless_it_passes() {
        let (failures, address) = (failures(2, 1, 10), v4(1));
        for _ in 0..10 {
            failures.look_up(address).unwrap().pass();
        }
        drop(failures.look_up(address).unwrap());
        failures.charge(address);
        let wait = failures.look_up(address).err();
        assert!(
            wait.is_some_and(|wait| (1..=60).contains(&wait)),
            "{wait:?}"
        );
        assert!(failures.look_up(v4(2)).is_ok());
    }

    #[test]
    fn other_settings_begin_with_full_budgets_and_the_same_ones_change_nothing() {
        let (failures, address) = (failures(1, 1, 10), v4(1));
        failures.charge(address);
        let settings = |burst| BudgetSettings {
            burst,
            per_minute: 1,
            addresses_max: 10,
        };
        failures.replace(&settings(1));
        assert!(failures.look_up(address).is_err());
        failures.replace(&settings(2));
        for left in [true, true, false] {
            assert_eq!(failures.look_up(address).is_ok(), left);
        }
    }

    #[test]
    fn the_tables_stay_bounded() {
        let failures = failures(10, 60, 1000);
        for n in 0..100_000 {
            failures.charge(v4(n));
        }
        for n in 0..DEAD_KEYS_MAX + 1000 {
            failures.refused(&digest(n));
        }
        failures.report();
        assert!(failures.budgets.load().len() <= 1000);
        assert!(failures.dead_keys.entry_count() <= DEAD_KEYS_MAX);
        // Not those that come last are turned away: whoever tries now is counted.
        for _ in 0..10 {
            failures.charge(v4(7));
        }
        assert!(failures.look_up(v4(7)).is_err());
    }

    #[test]
    fn without_addresses_there_is_no_budget() {
        let failures = failures(1, 1, 0);
        for _ in 0..10 {
            failures.charge(v4(1));
        }
        assert!(failures.look_up(v4(1)).is_ok());
    }

    #[test]
    fn a_dead_key_waits_longer_each_time_up_to_a_bound_and_is_forgotten() {
        let (failures, key, now) = (failures(1, 1, 1), digest(1), Instant::now());
        let waits: Vec<_> = (0..9).map(|_| failures.refused_at(&key, now)).collect();
        assert_eq!(waits, [4, 8, 16, 32, 64, 128, 240, 240, 240]);
        assert_eq!(failures.refused_at(&digest(2), now), 4);
        let later = now + DEAD_KEY_IDLE;
        assert_eq!(failures.refused_at(&key, later), 240);
        let idle = later + DEAD_KEY_IDLE + Duration::from_secs(1);
        assert_eq!(failures.refused_at(&key, idle), 4);
        failures.refused_at(&key, idle);
        failures.forget(&key);
        assert_eq!(failures.refused_at(&key, idle), 4);
    }
}
