//! What each address may do that comes to nothing: a token bucket for each, which refills with time. Decides who has used its own up;
//! what is charged, and what follows, is for who has the budgets.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::config::BudgetSettings;

/// The budgets that one configuration gives. Bounded, and shared by all cores.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// Keyed by what [`subnet`] makes of an address.
    by_address: Cache<IpAddr, Arc<Budget>>,
    /// `None` where there is no budget.
    rate: Option<Rate>,
    settings: BudgetSettings,
    started: Instant,
}

/// Nothing of a budget is left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsedUp;

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

impl Budgets {
    /// Full ones for everybody.
    pub(crate) fn new(settings: &BudgetSettings) -> Self {
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
            started: Instant::now(),
        }
    }

    /// What they were made by.
    pub(crate) const fn settings(&self) -> &BudgetSettings {
        &self.settings
    }

    /// Charges `address` for as many failures; the last of them may leave a debt. Whether its budget is used up by these.
    pub(crate) fn charge(&self, address: IpAddr, failures: u32) -> bool {
        let Some(rate) = self.rate else { return false };
        let budget = self.by_address.get_with(subnet(address), Arc::default);
        budget.charge(rate, failures, self.now())
    }

    /// Asks whether `address` has something left.
    ///
    /// # Errors
    /// When it has not: the seconds until it has.
    pub(crate) fn left(&self, address: IpAddr) -> Result<(), u32> {
        let Some(rate) = self.rate else { return Ok(()) };
        match self.by_address.get(&subnet(address)) {
            None => Ok(()),
            Some(budget) => budget.left(rate, self.now()),
        }
    }

    /// Charges `address` for a failure before it has come to one, if less than half of its budget is left: of those that come at the
    /// same time, no more pass than there is left. Whether it was charged.
    ///
    /// # Errors
    /// When nothing is left.
    pub(crate) fn charge_ahead(&self, address: IpAddr) -> Result<bool, UsedUp> {
        let Some(rate) = self.rate else {
            return Ok(false);
        };
        match self.by_address.get(&subnet(address)) {
            None => Ok(false),
            Some(budget) => budget.charge_ahead(rate, self.now()),
        }
    }

    /// Takes back one charge.
    pub(crate) fn give_back(&self, address: IpAddr) {
        if let Some(rate) = self.rate
            && let Some(budget) = self.by_address.get(&subnet(address))
        {
            budget.give_back(rate);
        }
    }

    /// How many addresses are remembered, about.
    pub(crate) fn len(&self) -> u64 {
        self.by_address.run_pending_tasks();
        self.by_address.entry_count()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Rate {
    fn new(settings: &BudgetSettings) -> Option<Self> {
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
    /// Takes failures out of the budget. Whether the last one was among them.
    fn charge(&self, rate: Rate, failures: u32, now: u64) -> bool {
        let cost = rate.cost.saturating_mul(u64::from(failures));
        // What is used up already becomes less by one charge, not by all that come at the same time.
        let used_up_at = now.saturating_add(rate.full);
        let most = used_up_at.saturating_add(cost).saturating_sub(rate.cost);
        let next = |full_at: u64| full_at.max(now).saturating_add(cost).min(most.max(full_at));
        let update = |full_at| Some(next(full_at));
        let before = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let before = before.unwrap_or_default();
        rate.wait(before, now) == 0 && rate.wait(next(before), now) > 0
    }

    fn give_back(&self, rate: Rate) {
        let update = |full_at: u64| Some(full_at.saturating_sub(rate.cost));
        // It changes always.
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    fn charge_ahead(&self, rate: Rate, now: u64) -> Result<bool, UsedUp> {
        let mut charged = Ok(false);
        let update = |full_at: u64| {
            let used = full_at.saturating_sub(now);
            charged = match rate.wait(full_at, now) {
                _ if used <= rate.full / 2 => Ok(false),
                0 => Ok(true),
                _ => Err(UsedUp),
            };
            let changes = charged == Ok(true);
            changes.then(|| full_at.saturating_add(rate.cost))
        };
        // Whether there was anything to change is in `charged`.
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        charged
    }

    /// An error when not one failure is left: the seconds until one is.
    fn left(&self, rate: Rate, now: u64) -> Result<(), u32> {
        match rate.wait(self.full_at.load(Ordering::Relaxed), now) {
            0 => Ok(()),
            wait => Err(u32::try_from(wait.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)),
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

    fn rate(burst: u32, per_minute: u32) -> Rate {
        let settings = BudgetSettings {
            burst,
            per_minute,
            addresses_max: 1,
        };
        Rate::new(&settings).unwrap()
    }

    #[test]
    fn a_budget_is_used_up_by_as_many_failures_as_it_has_and_refills_with_time() {
        let (rate, budget) = (rate(3, 30), Budget::default());
        let charged: Vec<_> = (0..5).map(|_| budget.charge(rate, 1, SECOND)).collect();
        assert_eq!(charged, [false, false, true, false, false], "told once");
        assert_eq!(
            budget.left(rate, SECOND),
            Err(2),
            "30 a minute are one in 2 s"
        );
        assert_eq!(budget.left(rate, 2 * SECOND), Err(1));
        assert_eq!(budget.left(rate, 3 * SECOND), Ok(()), "there is no debt");
        assert!(budget.charge(rate, 1, 3 * SECOND));
        assert_eq!(budget.left(rate, 4 * SECOND), Err(1));
        let much_later = 1000 * SECOND;
        let charged: Vec<_> = (0..3).map(|_| budget.charge(rate, 1, much_later)).collect();
        assert_eq!(charged, [false, false, true], "never more than the burst");
    }

    #[test]
    fn what_counts_as_several_uses_a_budget_up_sooner() {
        let (rate, budget) = (rate(20, 60), Budget::default());
        assert!(!budget.charge(rate, 10, SECOND));
        assert!(budget.charge(rate, 10, SECOND));
        assert_eq!(budget.left(rate, SECOND), Err(1));
        assert_eq!(budget.left(rate, 2 * SECOND), Ok(()));
        assert!(budget.charge(rate, 10, 2 * SECOND), "one is enough to try");
        assert_eq!(budget.left(rate, 2 * SECOND), Err(10), "nine are owed");
        assert!(!budget.charge(rate, 10, 2 * SECOND));
        assert_eq!(budget.left(rate, 2 * SECOND), Err(10), "and never more");
        budget.charge(rate, 1, 2 * SECOND);
        assert_eq!(budget.left(rate, 2 * SECOND), Err(10), "nor less");
    }

    #[test]
    fn of_those_that_come_at_the_same_time_no_more_pass_than_there_is_left() {
        let (rate, budget) = (rate(8, 60), Budget::default());
        assert_eq!(budget.charge_ahead(rate, SECOND), Ok(false), "it is full");
        budget.charge(rate, 4, SECOND);
        for _ in 0..9 {
            assert_eq!(budget.charge_ahead(rate, SECOND), Ok(false), "half is left");
        }
        budget.charge(rate, 1, SECOND);
        for _ in 0..3 {
            assert_eq!(budget.charge_ahead(rate, SECOND), Ok(true));
        }
        assert_eq!(budget.charge_ahead(rate, SECOND), Err(UsedUp));
        assert_eq!(budget.charge_ahead(rate, 2 * SECOND), Ok(true));
        assert_eq!(budget.charge_ahead(rate, 2 * SECOND), Err(UsedUp));
        budget.give_back(rate);
        assert_eq!(budget.charge_ahead(rate, 2 * SECOND), Ok(true));
    }

    #[test]
    fn no_setting_overflows() {
        for (burst, per_minute) in [(1, 1), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            let (rate, budget) = (rate(burst, per_minute), Budget::default());
            for now in [0, SECOND, u64::MAX - 1, u64::MAX] {
                budget.charge(rate, u32::MAX, now);
                let _ = budget.left(rate, now);
            }
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
}
