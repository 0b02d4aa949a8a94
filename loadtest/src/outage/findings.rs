//! What `loadtest outage` found, and what it is held against.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{Answers, CATCH_UP, RESTARTS, Sorted};
use crate::document::{Goal, Goals, Machine, median};
use crate::site::{Window, sum};

/// p99 during and after may be this many times the p99 before, both in units of the witness's in the same runs.
const P99_RATIO_MAX: f64 = 1.05;
const RESTART_MAX: Duration = Duration::from_secs(2);
/// How many transactions two edges may need in [`CATCH_UP`]. Each poll of each edge is one; what would be a herd is one for each key or
/// each request, thousands.
const QUERIES_MAX: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Before,
    During,
    After,
}

/// When the database went, and when it was back.
pub(super) struct Phases {
    pub(super) killed: Instant,
    pub(super) back: Instant,
}

impl Phases {
    pub(super) fn phase_of(&self, window: &Window) -> Phase {
        let seconds = Duration::from_secs_f64(window.report.elapsed_seconds);
        if window.started + seconds <= self.killed {
            Phase::Before
        } else if window.started < self.back {
            Phase::During
        } else {
            Phase::After
        }
    }
}

/// What happened when the database was back.
#[derive(Debug, Default, Serialize)]
pub(super) struct CatchUp {
    /// Until both edges acted on a key revoked and one made right then.
    pub(super) seen_after: Duration,
    /// Transactions in the database in [`CATCH_UP`].
    pub(super) queries: u64,
    /// Keys that the edge under load asked for one by one.
    pub(super) fetches: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    machine: Machine,
    seconds: u64,
    rates: [u32; 2],
    pub(super) goals: Goals,
    rows: Vec<Row>,
    not_accepted: BTreeMap<String, u64>,
    restarts_millis: Vec<u128>,
    strangers: [Answers; 3],
    catch_up: CatchUp,
}

#[derive(Debug, Serialize)]
struct Row {
    protocol: &'static str,
    phase: &'static str,
    runs: usize,
    accepted: u64,
    p50_micros: f64,
    p99_micros: f64,
    /// Of each run the p99 in units of the witness's in the run of the same time: the median.
    p99_by_witness: f64,
    p99_ratio: f64,
    /// The smallest and the largest p99 of a run: how far the median can be trusted.
    p99_range: (f64, f64),
}

impl Findings {
    pub(super) fn new(
        machine: Machine,
        seconds: Duration,
        rates: [u32; 2],
        windows: &Sorted<'_>,
        restarts: &[Duration],
        strangers: [Answers; 3],
        catch_up: CatchUp,
    ) -> Self {
        let rows = rows(windows);
        let all = windows.iter().flatten().flatten();
        let (_, not_accepted) = sum(all.map(|window| &window.report));
        let mut goals = vec![Goal::none(
            "request with a known key not accepted, before, during and after",
            not_accepted.values().sum(),
        )];
        for row in rows.iter().filter(|row| row.phase != "before") {
            goals.push(Goal::new(
                format!(
                    "p99 of {} {} the outage, by the witness's: at most {P99_RATIO_MAX} x before",
                    row.protocol, row.phase
                ),
                format!("{:.3} x", row.p99_ratio),
                row.p99_ratio <= P99_RATIO_MAX,
            ));
        }
        let [_, during, _] = &strangers;
        let later = ["http 503", "grpc 14"];
        let wrong = during
            .iter()
            .filter(|(answer, _)| !later.contains(&answer.as_str()))
            .map(|(_, count)| count);
        let tried: u64 = during.values().sum();
        goals.push(Goal::none(
            &format!("answer but 503 or UNAVAILABLE to {tried} unknown keys during the outage"),
            wrong.sum(),
        ));
        let slowest = restarts.iter().max().copied().unwrap_or(Duration::MAX);
        goals.push(Goal::new(
            format!(
                "Restarted during the outage ({RESTARTS} times), first request accepted: after at most {} s",
                RESTART_MAX.as_secs()
            ),
            format!("{:.3} s", slowest.as_secs_f64()),
            slowest <= RESTART_MAX,
        ));
        goals.push(Goal::new(
            format!(
                "Transactions of both edges and this tool in the {} s after the outage: at most {QUERIES_MAX}",
                CATCH_UP.as_secs()
            ),
            catch_up.queries.to_string(),
            catch_up.queries <= QUERIES_MAX,
        ));
        Self {
            machine,
            seconds: seconds.as_secs(),
            rates,
            goals: Goals(goals),
            rows,
            not_accepted,
            restarts_millis: restarts.iter().map(Duration::as_millis).collect(),
            strangers,
            catch_up,
        }
    }
}

fn rows(windows: &Sorted<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (protocol, name) in ["OTLP/HTTP", "OTLP/gRPC"].into_iter().enumerate() {
        let mut before = f64::NAN;
        for (phase, by_protocol) in ["before", "during", "after"].into_iter().zip(windows) {
            let runs = by_protocol.get(protocol).map_or(&[][..], Vec::as_slice);
            let figures = |of: fn(&Window) -> f64| -> Vec<f64> {
                runs.iter().map(|window| of(window)).collect()
            };
            let p99 = figures(|window| window.report.latency_micros.p99);
            let range = p99
                .iter()
                .fold((f64::INFINITY, 0.0_f64), |(low, high), p99| {
                    (low.min(*p99), high.max(*p99))
                });
            let witnesses = by_protocol.get(protocol + 2).map_or(&[][..], Vec::as_slice);
            let pairs = p99.iter().zip(witnesses);
            let by_witness = pairs.map(|(p99, witness)| p99 / witness.report.latency_micros.p99);
            let p99_by_witness = median(by_witness.collect()).unwrap_or(f64::NAN);
            let p99 = median(p99).unwrap_or(f64::NAN);
            if phase == "before" {
                before = p99_by_witness;
            }
            rows.push(Row {
                protocol: name,
                phase,
                runs: runs.len(),
                accepted: sum(runs.iter().map(|window| &window.report)).0,
                p50_micros: median(figures(|window| window.report.latency_micros.p50))
                    .unwrap_or(f64::NAN),
                p99_micros: p99,
                p99_by_witness,
                p99_ratio: p99_by_witness / before,
                p99_range: range,
            });
        }
    }
    rows
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [http, grpc] = self.rates;
        writeln!(
            f,
            "{}, database gone for {} s, {http} OTLP/HTTP and {grpc} gRPC requests/s:\n`{}`\n",
            self.machine, self.seconds, self.machine.command
        )?;
        self.goals.fmt(f)?;
        writeln!(
            f,
            "| | runs | accepted | p50 µs | p99 µs | ÷ the witness's | … ÷ before | p99 of the runs |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        for row in &self.rows {
            let (low, high) = row.p99_range;
            writeln!(
                f,
                "| {}, {} | {} | {} | {:.0} | {:.0} | {:.3} | {:.3} | {low:.0}–{high:.0} |",
                row.protocol,
                row.phase,
                row.runs,
                row.accepted,
                row.p50_micros,
                row.p99_micros,
                row.p99_by_witness,
                row.p99_ratio
            )?;
        }
        writeln!(f)?;
        for (what, count) in &self.not_accepted {
            writeln!(f, "- not accepted: {count} x {what}")?;
        }
        let restarts: Vec<_> = self.restarts_millis.iter().map(u128::to_string).collect();
        writeln!(
            f,
            "- Restarts during the outage, until the first accepted request: {} ms.",
            restarts.join(", ")
        )?;
        for (phase, answers) in ["before", "during", "after"].iter().zip(&self.strangers) {
            let answers: Vec<_> = answers
                .iter()
                .map(|(answer, count)| format!("{count} x {answer}"))
                .collect();
            writeln!(f, "- Unknown keys {phase}: {}.", answers.join(", "))?;
        }
        writeln!(
            f,
            "- The database back, both edges acted on a key revoked and one made right then after {:.1} s; the edge under load asked for {} keys one by one.",
            self.catch_up.seen_after.as_secs_f64(),
            self.catch_up.fetches
        )
    }
}
