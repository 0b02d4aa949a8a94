//! How many lines of the log failures may fill: so many a minute for each tenant and cause, and one that says how many more
//! there were. Decides that alone; what a line says is for those who write it. What is counted here is bounded and shared
//! by all cores: requests that are accepted do not come here.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::TenantId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::budgets::subnet;
use crate::metrics::Metrics;

/// Tenants, addresses and upstreams that are told apart in one minute; all others share their lines. Who sends from many
/// addresses shall not fill the log with them.
const TENANTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 250;
const UPSTREAMS_MAX: usize = 1000;
const LISTENERS_MAX: usize = 100;
/// How often it is told what was not logged.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// How often the lines that standard error was too slow for are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Whose failure it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of<'a> {
    Tenant(&'a TenantId),
    /// Of somebody who has not shown who it is.
    Address(IpAddr),
    Upstream(&'a str),
    /// Of the machine, to take connections from this listener.
    Listener(&'a str),
}

/// What was logged in this minute, and what was not.
#[derive(Default)]
pub(crate) struct LogLimits(Mutex<Tables>);

struct Tables {
    tenants: Table<TenantId>,
    addresses: Table<IpAddr>,
    upstreams: Table<String>,
    listeners: Table<String>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            tenants: Table::new(TENANTS_MAX),
            addresses: Table::new(ADDRESSES_MAX),
            upstreams: Table::new(UPSTREAMS_MAX),
            listeners: Table::new(LISTENERS_MAX),
        }
    }
}

struct Table<K> {
    max: usize,
    causes: HashMap<K, Causes>,
    /// Of those that found no place.
    others: Causes,
}

/// One after another: there are few.
type Causes = Vec<Lines>;

struct Lines {
    cause: &'static str,
    written: u32,
    suppressed: u64,
}

impl LogLimits {
    /// Whether this failure is to be logged, where `per_minute` may be. What is not is counted, and told at the minute's end.
    pub(crate) fn allow(&self, of: Of<'_>, cause: &'static str, per_minute: u32) -> bool {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let causes = match of {
            Of::Tenant(tenant) => tables.tenants.causes_of(tenant),
            Of::Address(address) => tables.addresses.causes_of(&subnet(address)),
            Of::Upstream(name) => tables.upstreams.causes_of(name),
            Of::Listener(name) => tables.listeners.causes_of(name),
        };
        let known = causes.iter().position(|lines| lines.cause == cause);
        let at = known.unwrap_or_else(|| {
            causes.push(Lines {
                cause,
                written: 0,
                suppressed: 0,
            });
            causes.len() - 1
        });
        causes.get_mut(at).is_some_and(|lines| {
            let allowed = lines.written < per_minute;
            lines.written += u32::from(allowed);
            lines.suppressed += u64::from(!allowed);
            allowed
        })
    }

    /// Tells what was not logged, and begins another minute.
    fn tell(&self) {
        const MORE: &str = "more of these were not logged";
        let tables = {
            let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tables)
        };
        tables.tenants.suppressed(|tenant, cause, suppressed| {
            info!(tenant, cause, suppressed, "{MORE}");
        });
        tables.addresses.suppressed(|peer, cause, suppressed| {
            info!(peer, cause, suppressed, "{MORE}");
        });
        tables.upstreams.suppressed(|upstream, cause, suppressed| {
            warn!(upstream, cause, suppressed, "{MORE}");
        });
        tables.listeners.suppressed(|listener, cause, suppressed| {
            warn!(listener, cause, suppressed, "{MORE}");
        });
    }
}

impl<K: Eq + Hash + Display> Table<K> {
    fn new(max: usize) -> Self {
        Self {
            max,
            causes: HashMap::new(),
            others: Vec::new(),
        }
    }

    fn causes_of<Q>(&mut self, whose: &Q) -> &mut Causes
    where
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
        K: Borrow<Q>,
    {
        if !self.causes.contains_key(whose) {
            if self.causes.len() >= self.max {
                return &mut self.others;
            }
            self.causes.insert(whose.to_owned(), Vec::new());
        }
        self.causes.get_mut(whose).unwrap_or(&mut self.others)
    }

    fn suppressed(&self, tell: impl Fn(&str, &'static str, u64)) {
        let told_apart = self.causes.iter();
        let told_apart = told_apart.map(|(whose, causes)| (whose.to_string(), causes));
        for (whose, causes) in told_apart.chain([("(others)".to_owned(), &self.others)]) {
            for lines in causes.iter().filter(|lines| lines.suppressed > 0) {
                tell(&whose, lines.cause, lines.suppressed);
            }
        }
    }
}

/// Tells each minute what was not logged, until `stop` and a last time then.
pub(crate) async fn keep_telling(
    limits: Arc<LogLimits>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let (mut told_at, mut told_lost) = (Instant::now(), 0);
    loop {
        let goes_on = tokio::select! {
            () = tokio::time::sleep(COUNT_EVERY) => true,
            () = stop.cancelled() => false,
        };
        let lost = ops::log::lost_lines();
        metrics.log_lines_lost.absolute(lost);
        if !goes_on || told_at.elapsed() >= TELL_EVERY {
            told_at = Instant::now();
            limits.tell();
            if lost > told_lost {
                let lines = lost - told_lost;
                warn!(
                    lines,
                    "log lines were lost: who reads standard error is too slow"
                );
                told_lost = lost;
            }
        }
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn tenant(n: usize) -> TenantId {
        TenantId::parse(&format!("tenant-{n}")).unwrap()
    }

    fn allowed(limits: &LogLimits, of: Of<'_>, cause: &'static str, times: usize) -> usize {
        (0..times).filter(|_| limits.allow(of, cause, 10)).count()
    }

    fn suppressed(limits: &LogLimits) -> Vec<(String, &'static str, u64)> {
        let tables = std::mem::take(&mut *limits.0.lock().unwrap());
        let all = RefCell::new(Vec::new());
        let note = |whose: &str, cause, n| all.borrow_mut().push((whose.to_owned(), cause, n));
        tables.tenants.suppressed(note);
        tables.addresses.suppressed(note);
        tables.upstreams.suppressed(note);
        tables.listeners.suppressed(note);
        let mut all = all.into_inner();
        all.sort();
        all
    }

    #[test]
    fn each_tenant_and_cause_has_lines_of_its_own_and_the_rest_is_counted() {
        let limits = LogLimits::default();
        let (a, b) = (tenant(1), tenant(2));
        assert_eq!(allowed(&limits, Of::Tenant(&a), "scope", 30), 10);
        assert_eq!(allowed(&limits, Of::Tenant(&a), "too_large", 10), 10);
        assert_eq!(allowed(&limits, Of::Tenant(&b), "scope", 11), 10);
        assert_eq!(allowed(&limits, Of::Upstream("tenant-1"), "scope", 12), 10);
        let expected = [
            ("tenant-1".to_owned(), "scope", 2),
            ("tenant-1".to_owned(), "scope", 20),
            ("tenant-2".to_owned(), "scope", 1),
        ];
        assert_eq!(suppressed(&limits), expected);
        // Another minute.
        assert_eq!(allowed(&limits, Of::Tenant(&a), "scope", 30), 10);
        assert!(!limits.allow(Of::Tenant(&b), "scope", 0));
    }

    #[test]
    fn who_has_many_addresses_fills_few_lines() {
        let limits = LogLimits::default();
        let v6 = |n: u128| IpAddr::from((0x2001_0db8_u128 << 96 | n).to_be_bytes());
        let of_one = (0..1000).filter(|n| limits.allow(Of::Address(v6(*n)), "unknown_key", 10));
        assert_eq!(of_one.count(), 10, "one /64");
        let of_many =
            (1..100_000).filter(|n| limits.allow(Of::Address(v6(*n << 64)), "unknown_key", 10));
        assert_eq!(of_many.count(), ADDRESSES_MAX - 1 + 10);
        let told = suppressed(&limits);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].0, "(others)");
        assert_eq!(
            told.iter().map(|(.., n)| n).sum::<u64>(),
            100_999 - (ADDRESSES_MAX as u64 - 1) - 20
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let limits = LogLimits::default();
        for n in 0..10 * TENANTS_MAX {
            limits.allow(Of::Tenant(&tenant(n)), "scope", 1);
        }
        assert_eq!(limits.0.lock().unwrap().tenants.causes.len(), TENANTS_MAX);
    }
}
