//! What wrong keys cost those who send them. Each address has a budget of failed authentications; once it is used up,
//! keys that are not in memory are not looked up for it. And each key that is refused is asked to wait longer every time.
//! Decides that alone: whether a key is good is for others, and a key in memory that is good never comes here.
//!
//! Nothing here sleeps or holds a request up. Both tables are bounded and shared by all cores: only failures touch them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::KeyDigest;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::AuthFailureSettings;
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
    started: Instant,
    metrics: Arc<Metrics>,
}

/// The budgets that one configuration gives.
struct Budgets {
    /// Keyed by what [`subnet`] makes of an address.
    by_address: Cache<IpAddr, Arc<Budget>>,
    /// `None` where there is no budget.
    rate: Option<Rate>,
    settings: AuthFailureSettings,
}

/// What a budget is, in nanoseconds: every failure costs `cost`, and there are never more than `full` to be had.
#[derive(Debug, Clone, Copy)]
struct Rate {
    cost: u64,
    full: u64,
}

/// When a budget will be full again, in nanoseconds since the start: it refills by itself, without anybody's doing.
#[derive(Debug, Default)]
struct Budget {
    full_at: AtomicU64,
}

#[derive(Debug)]
struct DeadKey {
    wait_seconds: u32,
    last: Instant,
}

impl Failures {
    pub(crate) fn new(settings: &AuthFailureSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            budgets: ArcSwap::from_pointee(Budgets::new(settings)),
            dead_keys: Cache::builder()
                .max_capacity(DEAD_KEYS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(DEAD_KEY_IDLE)
                .build(),
            started: Instant::now(),
            metrics,
        }
    }

    /// Gives budgets by other settings from now on. If they are others, every address begins with a full one.
    pub(crate) fn replace(&self, settings: &AuthFailureSettings) {
        if self.budgets.load().settings != *settings {
            self.budgets.store(Arc::new(Budgets::new(settings)));
        }
    }

    /// Charges `address` for a failed authentication.
    pub(crate) fn charge(&self, address: IpAddr) {
        let budgets = self.budgets.load();
        let Some(rate) = budgets.rate else { return };
        let now = self.now();
        let budget = budgets.by_address.get_with(subnet(address), Arc::default);
        if budget.charge(rate, now) {
            self.metrics.auth_budgets_exhausted.increment(1);
        }
    }

    /// Asks whether a key that is not in memory may be looked up for `address`. What is given charges it unless the key
    /// turns out to be no failure: who hangs up before that is known has had the look-up all the same.
    ///
    /// # Errors
    /// When the budget is used up: the seconds until it is not.
    pub(crate) fn look_up(&self, address: IpAddr) -> Result<LookUp<'_>, u32> {
        let budgets = self.budgets.load();
        if let Some(rate) = budgets.rate
            && let Some(budget) = budgets.by_address.get(&subnet(address))
        {
            budget.left(rate, self.now())?;
        }
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

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn report(&self) {
        let addresses = &self.budgets.load().by_address;
        addresses.run_pending_tasks();
        self.dead_keys.run_pending_tasks();
        let size = |entries: u64| f64::from(u32::try_from(entries).unwrap_or(u32::MAX));
        let metrics = &self.metrics;
        metrics.auth_addresses.set(size(addresses.entry_count()));
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

impl Budgets {
    fn new(settings: &AuthFailureSettings) -> Self {
        let rate = Rate::new(settings);
        // What is full again need not be remembered.
        let refilled_in = rate.map_or(Duration::from_secs(1), |rate| {
            Duration::from_nanos(rate.full)
        });
        // Not the default policy, which turns newcomers away when there are many.
        let by_address = Cache::builder()
            .max_capacity(u64::from(settings.addresses_max))
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(refilled_in)
            .build();
        Self {
            by_address,
            rate,
            settings: settings.clone(),
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

impl Rate {
    fn new(settings: &AuthFailureSettings) -> Option<Self> {
        let cost = 60_000_000_000_u64.checked_div(u64::from(settings.per_minute))?;
        let is_kept = settings.addresses_max > 0 && settings.burst > 0;
        is_kept.then_some(Self {
            cost,
            full: cost.saturating_mul(u64::from(settings.burst)),
        })
    }

    /// How long it takes until a budget that is full at `full_at` has one failure to give, in nanoseconds.
    const fn wait(self, full_at: u64, now: u64) -> u64 {
        full_at
            .saturating_add(self.cost)
            .saturating_sub(now.saturating_add(self.full))
    }
}

impl Budget {
    /// Takes one failure out of the budget. Whether that was the last.
    fn charge(&self, rate: Rate, now: u64) -> bool {
        // What is used up already cannot become less.
        let next = |full_at: u64| {
            let charged = full_at.max(now).saturating_add(rate.cost);
            charged.min(now.saturating_add(rate.full))
        };
        let update = |full_at| Some(next(full_at));
        let before = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let before = before.unwrap_or_default();
        rate.wait(before, now) == 0 && rate.wait(next(before), now) > 0
    }

    /// An error when not one failure is left: the seconds until one is.
    fn left(&self, rate: Rate, now: u64) -> Result<(), u32> {
        match rate.wait(self.full_at.load(Ordering::Relaxed), now) {
            0 => Ok(()),
            wait => Err(u32::try_from(wait.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)),
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

/// What shares a budget: an IPv4 address, or the /64 of an IPv6 address, which is what one customer is given at least.
pub(crate) fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn failures(burst: u32, per_minute: u32, addresses_max: u32) -> Failures {
        let settings = AuthFailureSettings {
            burst,
            per_minute,
            addresses_max,
        };
        Failures::new(&settings, Metrics::new().unwrap().0)
    }

    fn rate(burst: u32, per_minute: u32) -> Rate {
        failures(burst, per_minute, 1).budgets.load().rate.unwrap()
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
    fn a_budget_is_used_up_by_as_many_failures_as_it_has_and_refills_with_time() {
        let (rate, budget) = (rate(3, 30), Budget::default());
        let charged: Vec<_> = (0..5).map(|_| budget.charge(rate, SECOND)).collect();
        assert_eq!(charged, [false, false, true, false, false], "told once");
        assert_eq!(
            budget.left(rate, SECOND),
            Err(2),
            "30 a minute are one in 2 s"
        );
        assert_eq!(budget.left(rate, 2 * SECOND), Err(1));
        assert_eq!(budget.left(rate, 3 * SECOND), Ok(()), "there is no debt");
        assert!(budget.charge(rate, 3 * SECOND));
        assert_eq!(budget.left(rate, 4 * SECOND), Err(1));
        let much_later = 1000 * SECOND;
        let charged: Vec<_> = (0..3).map(|_| budget.charge(rate, much_later)).collect();
        assert_eq!(charged, [false, false, true], "never more than the burst");
    }

    #[test]
    fn no_setting_overflows() {
        for (burst, per_minute) in [(1, 1), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            let (rate, budget) = (rate(burst, per_minute), Budget::default());
            for now in [0, SECOND, u64::MAX - 1, u64::MAX] {
                budget.charge(rate, now);
                let _ = budget.left(rate, now);
            }
        }
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
        let settings = |burst| AuthFailureSettings {
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
    fn an_ipv6_customer_has_one_budget_and_a_mapped_address_is_the_ipv4_one() {
        let same = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"];
        let same: BTreeSet<_> = same
            .iter()
            .map(|text| subnet(text.parse().unwrap()))
            .collect();
        assert_eq!(same.len(), 1);
        let others = [
            "2001:db8:1:3::1",
            "192.0.2.1",
            "192.0.2.2",
            "::ffff:192.0.2.2",
        ];
        let others = others.iter().map(|text| subnet(text.parse().unwrap()));
        assert_eq!(
            same.into_iter()
                .chain(others)
                .collect::<BTreeSet<_>>()
                .len(),
            4
        );
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
        assert!(failures.budgets.load().by_address.entry_count() <= 1000);
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
