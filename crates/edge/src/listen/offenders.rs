//! Addresses from which connections come that come to nothing. Decides whether another one from such an address is let in; what a
//! connection came to is for its seat to know.
//!
//! Every limit of a connection begins anew with the next one, and opening that costs the sender less than us: what an attack may
//! cost in all is bounded here. Where valid keys are shown from an address, others may share it with whoever shows none: then only
//! abuse counts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::budgets::{Budgets, UsedUp, subnet};
use crate::config::BudgetSettings;

/// What a connection costs its address's budget that we ended for what its sender did, where one that just came to nothing costs 1.
const FAULT_COSTS: u32 = 10;
/// For so long after a valid key was shown from an address only abuse counts.
const KNOWN_FOR: Duration = Duration::from_mins(10);
const KNOWN_MAX: u64 = 65_536;

/// What we ended a connection for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Keys were guessed on it.
    Guesses,
    /// Its sender did what no good sender does.
    Abuse,
}

#[derive(Debug)]
pub(super) struct Offenders {
    budgets: ArcSwap<Budgets>,
    /// Where valid keys were shown lately.
    known: Cache<IpAddr, ()>,
}

impl Offenders {
    pub(super) fn new(settings: &BudgetSettings) -> Self {
        Self {
            budgets: ArcSwap::from_pointee(Budgets::new(settings)),
            known: Cache::builder()
                .max_capacity(KNOWN_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(KNOWN_FOR)
                .build(),
        }
    }

    /// Gives budgets by other settings from now on. If they are others, every address begins with a full one.
    pub(super) fn replace(&self, settings: &BudgetSettings) {
        if self.budgets.load().settings() != settings {
            self.budgets.store(Arc::new(Budgets::new(settings)));
        }
    }

    /// Asks whether a connection from `address` is let in; whether it has paid for coming to nothing then.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn let_in(&self, address: IpAddr) -> Result<bool, UsedUp> {
        self.budgets.load().charge_ahead(address)
    }

    /// Whether a valid key was shown from `address` lately.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        self.known.contains_key(&subnet(address))
    }

    /// Notes that a valid key was shown from `address`, by who may have `paid` for showing none.
    pub(super) fn shows_key(&self, address: IpAddr, paid: bool) {
        self.known.insert(subnet(address), ());
        if paid {
            self.budgets.load().give_back(address);
        }
    }

    /// Notes how a connection ended, whether a valid key was shown on it, and whether it had `paid`.
    pub(super) fn ended(
        &self,
        address: IpAddr,
        for_fault: Option<Fault>,
        showed_key: bool,
        paid: bool,
    ) {
        let is_known = showed_key || self.is_known(address);
        let cost = match for_fault {
            Some(Fault::Abuse) => FAULT_COSTS,
            _ if is_known => 0,
            Some(Fault::Guesses) => FAULT_COSTS,
            None => 1,
        };
        let budgets = self.budgets.load();
        match cost.checked_sub(u32::from(paid)) {
            Some(0) => {}
            Some(cost) => {
                budgets.charge(address, cost);
            }
            None => budgets.give_back(address),
        }
    }
}
