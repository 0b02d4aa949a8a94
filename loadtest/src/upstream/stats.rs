//! What the upstream has seen. A request counts when its body is complete; until then it counts as cut short.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Tenants told apart; what comes beyond is not counted as a tenant, to bound the memory.
const TENANTS_MAX: usize = 1_000_000;

#[derive(Default)]
pub(crate) struct Stats {
    begun: Cell<u64>,
    complete: Cell<u64>,
    body_bytes: Cell<u64>,
    no_tenant: Cell<u64>,
    several_tenants: Cell<u64>,
    tenants: RefCell<HashSet<Box<[u8]>>>,
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

impl Stats {
    /// A head arrived, with the values of its `X-Scope-OrgID` headers.
    pub(crate) fn begun<'a>(&self, mut tenants: impl Iterator<Item = &'a [u8]>) {
        add(&self.begun, 1);
        match (tenants.next().filter(|t| !t.is_empty()), tenants.next()) {
            (None, _) => add(&self.no_tenant, 1),
            (Some(_), Some(_)) => add(&self.several_tenants, 1),
            (Some(tenant), None) => {
                let mut known = self.tenants.borrow_mut();
                if !known.contains(tenant) && known.len() < TENANTS_MAX {
                    known.insert(tenant.into());
                }
            }
        }
    }

    /// Its body arrived whole.
    pub(crate) fn complete(&self, body_bytes: u64) {
        add(&self.complete, 1);
        add(&self.body_bytes, body_bytes);
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            requests: self.complete.get(),
            body_bytes: self.body_bytes.get(),
            tenants: self.tenants.borrow().len() as u64,
            cut_short: self.begun.get() - self.complete.get(),
            no_tenant: self.no_tenant.get(),
            several_tenants: self.several_tenants.get(),
        }
    }
}

/// The counts since the start; the JSON of `GET /stats` and `--json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Requests whose body arrived whole.
    pub(crate) requests: u64,
    /// Their bodies' length in bytes.
    pub(crate) body_bytes: u64,
    /// Different tenants seen.
    pub(crate) tenants: u64,
    /// Requests whose body did not arrive whole, those still coming included.
    pub(crate) cut_short: u64,
    /// Requests without a tenant header, or with an empty one.
    pub(crate) no_tenant: u64,
    /// Requests with more than one tenant header.
    pub(crate) several_tenants: u64,
}

impl Report {
    /// Whether every request came whole and named one tenant.
    pub(crate) fn flawless(&self) -> bool {
        self.cut_short + self.no_tenant + self.several_tenants == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests, {} body bytes, {} tenants",
            self.requests, self.body_bytes, self.tenants
        )?;
        writeln!(
            f,
            "violations: {} cut short, {} without tenant, {} with several",
            self.cut_short, self.no_tenant, self.several_tenants
        )
    }
}
