//! What one core's runtime holds. Nothing in a [`Worker`] that changes is shared with another core, except what is [`Common`],
//! which is made for it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use model::Signal;
use ops::config::ByteSize;
use tokio_util::sync::CancellationToken;
use wire::count::Scratch;

use crate::clock::Clock;
use crate::config::{Config, ConnectionSettings, RequestLogSettings, TrustedProxies};
use crate::failures::Failures;
use crate::keys::Keyring;
use crate::log_limits::{LogLimits, Of};
use crate::metrics::Metrics;
use crate::protocol::Protocol;
use crate::request::count::CountMemory;
use crate::request::replay::ReplayBudget;
use crate::spans::Spans;
use crate::upstream::{Shared, Targets};
use crate::uses::Uses;

/// What a worker needs of the configuration on the request path.
pub(crate) struct Settings {
    pub(crate) body_max: ByteSize,
    pub(crate) body_idle_max: Duration,
    /// A second.
    pub(crate) body_rate_min: ByteSize,
    pub(crate) suspend_grace: Duration,
    pub(crate) replay: Arc<ReplayBudget>,
    pub(crate) count_memory: Arc<CountMemory>,
    pub(crate) connections: ConnectionSettings,
    pub(crate) trusted: Arc<TrustedProxies>,
    pub(crate) request_log: RequestLogSettings,
    pub(crate) tenant_labels_max: u32,
    /// `None` where no spans are made.
    pub(crate) spans: Option<Spans>,
}

/// What a configuration makes of a worker. A reload puts another in its place; a request keeps the one it began with.
pub(crate) struct Current {
    pub(crate) settings: Arc<Settings>,
    pub(crate) targets: Targets,
}

/// What each worker makes its [`Current`] of: one configuration, its files read and its TLS set up.
pub(crate) struct Blueprint {
    settings: Arc<Settings>,
    routes: Vec<(Protocol, Signal, usize)>,
    upstreams: Vec<Arc<Shared>>,
}

impl Blueprint {
    /// Reads the files that the upstreams name, and looks their hosts up. A host that cannot be found is no error: requests wait
    /// until it can. `spans` is where spans go.
    ///
    /// # Errors
    /// One line per upstream that cannot be set up.
    pub(crate) async fn new(
        config: &Config,
        spans: Option<Spans>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Vec<String>> {
        let (mut shared, mut problems) = (Vec::new(), Vec::new());
        for (name, upstream) in &config.upstreams {
            match Shared::new(name, upstream, metrics) {
                Ok(upstream) => shared.push(upstream),
                Err(error) => problems.push(format!("upstreams.{name}: {error}")),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        for upstream in &shared {
            upstream.resolve(metrics).await;
            upstream.watch(metrics);
        }
        Ok(Self {
            settings: Arc::new(Settings {
                replay: Arc::new(ReplayBudget::new(config.replay)),
                count_memory: Arc::new(CountMemory::new(config.counting)),
                body_max: config.body_max,
                body_idle_max: config.body_idle_max,
                body_rate_min: config.body_rate_min,
                suspend_grace: config.suspend_grace,
                connections: config.connections.clone(),
                trusted: Arc::clone(&config.trusted),
                request_log: config.request_log,
                tenant_labels_max: config.tenant_labels_max,
                spans,
            }),
            routes: config.routes.clone(),
            upstreams: shared,
        })
    }

    /// Makes one worker's share of it, with connections of its own.
    pub(crate) fn build(&self, metrics: &Arc<Metrics>) -> Current {
        Current {
            settings: Arc::clone(&self.settings),
            targets: Targets::new(
                &self.upstreams,
                &self.routes,
                self.settings.body_idle_max,
                metrics,
            ),
        }
    }
}

/// What all workers have in common, as long as the process lives.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) keys: Arc<Keyring>,
    pub(crate) failures: Arc<Failures>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log_limits: Arc<LogLimits>,
    /// Cancelled when the process is to end.
    pub(crate) draining: CancellationToken,
}

/// One core's share of the data plane.
pub(crate) struct Worker {
    current: RefCell<Rc<Current>>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) failures: Arc<Failures>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) uses: Uses,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log_limits: Arc<LogLimits>,
    pub(crate) request_ids: RequestIds,
    pub(crate) date: DateCache,
    /// What bodies are inflated into, one after the other.
    pub(crate) scratch: Rc<RefCell<Scratch>>,
    pub(crate) draining: CancellationToken,
}

impl Worker {
    pub(crate) fn new(
        common: Common,
        current: Current,
        uses: Uses,
    ) -> Result<Rc<Self>, getrandom::Error> {
        let Common {
            keys,
            failures,
            clock,
            metrics,
            log_limits,
            draining,
        } = common;
        Ok(Rc::new(Self {
            current: RefCell::new(Rc::new(current)),
            keys,
            failures,
            clock,
            uses,
            metrics,
            log_limits,
            request_ids: RequestIds::new()?,
            date: DateCache::default(),
            scratch: Rc::default(),
            draining,
        }))
    }

    /// The configuration that a request which begins now is served by.
    pub(crate) fn current(&self) -> Rc<Current> {
        Rc::clone(&self.current.borrow())
    }

    /// Whether another line about this failure may be written now.
    pub(crate) fn may_log(&self, of: Of<'_>, cause: &'static str) -> bool {
        let per_minute = self.current().settings.request_log.failures_per_minute;
        self.log_limits.allow(of, cause, per_minute)
    }

    /// Serves the requests that begin from now on by another configuration.
    pub(crate) fn replace(&self, current: Current) {
        self.current.replace(Rc::new(current));
    }
}

/// The id of a request: a ULID (github.com/ulid/spec), so that ids sort by time. Unique, not secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(u128);

impl RequestId {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

    fn text(self) -> [u8; 26] {
        let mut text = [b'0'; 26];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = Self::DIGITS
                .get((rest & 31) as usize)
                .copied()
                .unwrap_or(b'0');
            rest >>= 5;
        }
        text
    }

    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text()).unwrap_or(HeaderValue::from_static(""))
    }

    /// Whether this is one of those that are chosen when one in `n` is; none is when `n` is 0.
    pub(crate) fn is_one_in(self, n: u32) -> bool {
        n > 0 && self.low_bits().is_multiple_of(u64::from(n))
    }

    /// Some bits that differ between requests.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits are what is asked for"
    )]
    pub(crate) const fn low_bits(self) -> u64 {
        (self.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// Makes request ids: 48 bits of milliseconds, then 80 bits counted up from a random start.
pub(crate) struct RequestIds {
    next: Cell<u128>,
}

impl RequestIds {
    const LOW: u128 = (1 << 80) - 1;

    fn new() -> Result<Self, getrandom::Error> {
        let mut start = [0; 16];
        getrandom::fill(&mut start)?;
        Ok(Self {
            next: Cell::new(u128::from_le_bytes(start)),
        })
    }

    pub(crate) fn next(&self) -> RequestId {
        let low = self.next.get();
        self.next.set(low.wrapping_add(1));
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        RequestId((millis << 80) | (low & Self::LOW))
    }
}

/// The `Date` header of this second (RFC 9110 section 6.6.1), formatted once.
#[derive(Default)]
pub(crate) struct DateCache(Cell<Option<(u64, [u8; 29])>>);

impl DateCache {
    pub(crate) fn now(&self) -> [u8; 29] {
        let now = SystemTime::now();
        let second = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if let Some((formatted, text)) = self.0.get()
            && formatted == second
        {
            return text;
        }
        let mut text = [b' '; 29];
        let formatted = httpdate::fmt_http_date(now);
        for (to, from) in text.iter_mut().zip(formatted.bytes()) {
            *to = from;
        }
        self.0.set(Some((second, text)));
        text
    }
}
