//! What `loadtest changes` found, and what it is held against.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::change::{Kind, Taken};
use crate::document::{Goal, Goals, Machine, percentile};
use crate::generator::Report;
use crate::site::sum;

/// The changes under one condition.
pub(super) struct Phase {
    pub(super) allowed: Duration,
    pub(super) taken: Vec<Taken>,
}

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    machine: Machine,
    rate_per_edge: u32,
    pub(super) goals: Goals,
    /// With notifications, and without: a row for all changes and for each kind.
    phases: [Vec<Row>; 2],
    load_accepted: u64,
    load_not_accepted: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    change: &'static str,
    count: usize,
    p50_millis: u128,
    p99_millis: u128,
    max_millis: u128,
}

impl Row {
    fn of(change: &'static str, times: &[Duration]) -> Self {
        let at = |percent| {
            percentile(times, percent)
                .unwrap_or(Duration::MAX)
                .as_millis()
        };
        Self {
            change,
            count: times.len(),
            p50_millis: at(50),
            p99_millis: at(99),
            max_millis: at(100),
        }
    }
}

impl Findings {
    pub(super) fn new(
        machine: Machine,
        rate_per_edge: u32,
        phases: [Phase; 2],
        load: &[Report],
    ) -> Self {
        let (load_accepted, load_not_accepted) = sum(load);
        let [with, without] = &phases;
        let refused = load_not_accepted.values().sum();
        let goals = vec![
            with.goal("with notifications, p99", 99),
            without.goal("without notifications, the longest", 100),
            Goal::none("request of the load not accepted meanwhile", refused),
        ];
        Self {
            machine,
            rate_per_edge,
            goals: Goals(goals),
            phases: phases.map(|phase| phase.rows()),
            load_accepted,
            load_not_accepted,
        }
    }
}

impl Phase {
    fn goal(&self, what: &str, percent: usize) -> Goal {
        let times: Vec<_> = self.taken.iter().map(|taken| taken.time).collect();
        let time = percentile(&times, percent).unwrap_or(Duration::MAX);
        Goal::new(
            format!(
                "From COMMIT to effect on both edges, {what}: at most {} s",
                self.allowed.as_secs()
            ),
            format!("{:.3} s over {} changes", time.as_secs_f64(), times.len()),
            time <= self.allowed,
        )
    }

    fn rows(&self) -> Vec<Row> {
        let times = |kind: Option<Kind>| -> Vec<_> {
            let of_kind = |taken: &&Taken| kind.is_none_or(|kind| taken.kind == kind);
            let taken = self.taken.iter().filter(of_kind);
            taken.map(|taken| taken.time).collect()
        };
        let mut rows = vec![Row::of("all", &times(None))];
        rows.extend(Kind::ALL.map(|kind| Row::of(kind.name(), &times(Some(kind)))));
        rows
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, two edges, {} requests/s at each:\n`{}`\n",
            self.machine, self.rate_per_edge, self.machine.command
        )?;
        self.goals.fmt(f)?;
        let titles = ["With notifications", "With triggers that notify nobody"];
        for (title, rows) in titles.into_iter().zip(&self.phases) {
            writeln!(
                f,
                "| {title} | changes | p50 ms | p99 ms | longest ms |\n| --- | --- | --- | --- | --- |"
            )?;
            for row in rows.iter().filter(|row| row.count > 0) {
                writeln!(
                    f,
                    "| {} | {} | {} | {} | {} |",
                    row.change, row.count, row.p50_millis, row.p99_millis, row.max_millis
                )?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "The load meanwhile: {} requests accepted.",
            self.load_accepted
        )?;
        for (what, count) in &self.load_not_accepted {
            writeln!(f, "- not accepted: {count} x {what}")?;
        }
        Ok(())
    }
}
