//! What came of the requests: latencies of the accepted ones, and everything else by its status or error. Each request ends in
//! exactly one of these, so that the sum shows a lost one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Latencies are kept in nanoseconds, from 1 µs to 10 minutes, to three digits.
const LATENCY_NANOS_MIN: u64 = 1_000;
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

pub(crate) struct Tally {
    latencies: RefCell<Histogram<u64>>,
    other: RefCell<BTreeMap<String, u64>>,
    started: Cell<u64>,
    accepted: Cell<u64>,
    bytes: Cell<u64>,
    reconnects: Cell<u64>,
    last_answer: Cell<Instant>,
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

impl Tally {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_bounds(LATENCY_NANOS_MIN, LATENCY_NANOS_MAX, 3)
            .context("latency histogram")?;
        Ok(Self {
            latencies: RefCell::new(latencies),
            other: RefCell::default(),
            started: Cell::new(0),
            accepted: Cell::new(0),
            bytes: Cell::new(0),
            reconnects: Cell::new(0),
            last_answer: Cell::new(Instant::now()),
        })
    }

    /// A request of `bytes` bytes was begun.
    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.started, 1);
        add(&self.bytes, bytes as u64);
    }

    /// The good answer to a request that was due since `due`.
    pub(crate) fn accepted(&self, due: Instant) {
        let now = Instant::now();
        self.last_answer.set(now);
        add(&self.accepted, 1);
        self.record(now - due);
    }

    /// An answer, but not a good one.
    pub(crate) fn refused(&self, kind: &str, status: u32) {
        self.last_answer.set(Instant::now());
        self.count_other(format!("{kind} {status}"));
    }

    /// No answer.
    pub(crate) fn lost(&self, stage: &str, error: &impl fmt::Display) {
        self.count_other(format!("{stage}: {error}"));
    }

    /// A connection had to be opened anew.
    pub(crate) fn reconnected(&self) {
        add(&self.reconnects, 1);
    }

    pub(crate) fn last_answer(&self) -> Instant {
        self.last_answer.get()
    }

    fn record(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.borrow_mut().saturating_record(nanos);
    }

    fn count_other(&self, what: String) {
        *self.other.borrow_mut().entry(what).or_default() += 1;
    }

    /// Closes the books. `unsent` says how long each request had waited that was due and never begun: their waits count among
    /// the latencies, or a stalled target would look fast.
    pub(crate) fn report(
        &self,
        elapsed: Duration,
        unsent: impl Iterator<Item = Duration>,
    ) -> Report {
        let mut never_begun = 0;
        for waited in unsent {
            never_begun += 1;
            self.record(waited);
        }
        let mut other = self.other.take();
        let ended = self.accepted.get() + other.values().sum::<u64>();
        let unanswered = self.started.get().saturating_sub(ended);
        if unanswered > 0 {
            other.insert("no answer in time".to_owned(), unanswered);
        }
        if never_begun > 0 {
            other.insert("due but never sent".to_owned(), never_begun);
        }
        let latencies = self.latencies.borrow();
        let at = |quantile| micros(latencies.value_at_quantile(quantile));
        let seconds = elapsed.as_secs_f64();
        Report {
            elapsed_seconds: seconds,
            accepted: self.accepted.get(),
            per_second: per(self.accepted.get(), seconds),
            megabytes_per_second: per(self.bytes.get(), seconds) / 1e6,
            reconnects: self.reconnects.get(),
            other,
            latency_micros: Latencies {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: micros(latencies.max()),
            },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn per(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// What a run has found; the JSON of `--json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// From the first request to the last answer.
    pub(crate) elapsed_seconds: f64,
    /// Requests answered with 2xx, for gRPC with status 0.
    pub(crate) accepted: u64,
    /// Accepted requests a second.
    pub(crate) per_second: f64,
    /// Sent bytes, heads included where they are HTTP/1.1, in 10^6 a second.
    pub(crate) megabytes_per_second: f64,
    /// Connections opened anew after the start.
    pub(crate) reconnects: u64,
    /// Requests that were not accepted, by status or error.
    pub(crate) other: BTreeMap<String, u64>,
    /// Latencies of accepted requests.
    pub(crate) latency_micros: Latencies,
}

/// Quantiles in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latencies {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = &self.latency_micros;
        writeln!(
            f,
            "accepted    {} in {:.2} s: {:.0}/s, {:.1} MB/s",
            self.accepted, self.elapsed_seconds, self.per_second, self.megabytes_per_second
        )?;
        writeln!(
            f,
            "latency us  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}",
            latency.p50, latency.p90, latency.p99, latency.p999, latency.max
        )?;
        if self.reconnects > 0 {
            writeln!(f, "reconnects  {}", self.reconnects)?;
        }
        for (what, count) in &self.other {
            writeln!(f, "NOT ACCEPTED  {count} x {what}")?;
        }
        Ok(())
    }
}
