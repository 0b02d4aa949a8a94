//! What came of it, and what it is held against.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::ensure;
use serde::Serialize;

use super::Way;
use super::replica::Kills;
use crate::document::{Goal, Goals, Machine};
use crate::generator::Report;

/// What makes a sender try again: the edge's temporary refusal, by HTTP and by gRPC.
const RETRYABLE: [&str; 2] = ["http 503", "grpc 14"];
/// The sender's own doing: a request that was due when it had no connection free. It was not sent.
const NEVER_SENT: &str = "due but never sent";
const REPLAYS: &str = "okmon_edge_upstream_replays_total";
/// The counters that are shown begin with one of these.
const SHOWN: [&str; 2] = ["okmon_edge_upstream_", "okmon_edge_endpoint_"];

/// One way to send, and what it got.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    title: &'static str,
    is_repeatable: bool,
    report: Report,
}

impl Row {
    pub(super) fn new(way: &Way, report: Report) -> Self {
        Self {
            title: way.title,
            is_repeatable: way.is_repeatable,
            report,
        }
    }

    /// Requests that were sent and not accepted, by what they got, and whether that makes a sender try again.
    fn failed(&self) -> impl Iterator<Item = (bool, u64)> {
        let sent = self
            .report
            .other
            .iter()
            .filter(|(what, _)| *what != NEVER_SENT);
        sent.map(|(what, count)| (RETRYABLE.contains(&what.as_str()), *count))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    machine: Machine,
    kills: Kills,
    killed: u64,
    rows: Vec<Row>,
    /// How much the edge's counters about upstreams rose.
    counters: BTreeMap<String, f64>,
    pub(super) goals: Goals,
}

impl Findings {
    pub(super) fn new(
        machine: Machine,
        kills: Kills,
        killed: u64,
        rows: Vec<Row>,
        mut counters: BTreeMap<String, f64>,
    ) -> anyhow::Result<Self> {
        let replays = counters.get(REPLAYS).copied().unwrap_or_default();
        ensure!(
            killed > 0 && replays > 0.0,
            "{killed} replicas were killed and {replays} requests sent once more: that shows nothing; take longer"
        );
        counters.retain(|name, rise| *rise > 0.0 && SHOWN.iter().any(|of| name.starts_with(of)));
        let goals = goals(&rows);
        Ok(Self {
            machine,
            kills,
            killed,
            rows,
            counters,
            goals,
        })
    }
}

fn goals(rows: &[Row]) -> Goals {
    let (small, large): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_repeatable);
    let of_small = small.iter().flat_map(|row| row.failed());
    let of_large = large.iter().flat_map(|row| row.failed());
    Goals(vec![
        Goal::none(
            "request answered with anything but success whose body can be sent once more",
            of_small.map(|(_, count)| count).sum(),
        ),
        Goal::none(
            "larger request answered with anything but success, 503 or UNAVAILABLE",
            of_large
                .filter(|(retryable, _)| !retryable)
                .map(|(_, count)| count)
                .sum(),
        ),
    ])
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, three replicas, {} ({} times):\n`{}`\n",
            self.machine, self.kills, self.killed, self.machine.command
        )?;
        self.goals.fmt(f)?;
        writeln!(
            f,
            "| sent as | accepted | anything else | p50 ms | p99 ms | longest ms |\n\
             | --- | --- | --- | --- | --- | --- |"
        )?;
        for Row { title, report, .. } in &self.rows {
            let other: Vec<_> = report
                .other
                .iter()
                .map(|(what, count)| format!("{count} x {what}"))
                .collect();
            let other = match other.as_slice() {
                [] => "none".to_owned(),
                some => some.join("; "),
            };
            let latency = &report.latency_micros;
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(|us| us / 1000.0);
            writeln!(
                f,
                "| {title} | {} | {other} | {p50:.2} | {p99:.2} | {max:.0} |",
                report.accepted
            )?;
        }
        writeln!(f, "\n| the edge counted | |\n| --- | --- |")?;
        for (name, rise) in &self.counters {
            writeln!(f, "| `{name}` | {rise} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(is_repeatable: bool, other: &serde_json::Value) -> Row {
        let micros = json!({"p50": 1.0, "p90": 1.0, "p99": 1.0, "p999": 1.0, "max": 1.0});
        let report = json!({
            "elapsed_seconds": 1.0, "accepted": 9, "per_second": 9.0, "megabytes_per_second": 1.0,
            "reconnects": 0, "other": other, "latency_micros": micros,
        });
        Row {
            title: "",
            is_repeatable,
            report: serde_json::from_value(report).unwrap(),
        }
    }

    #[test]
    fn only_a_request_that_cannot_be_sent_once_more_may_be_refused_and_only_for_now() {
        let fine = json!({"due but never sent": 3});
        let for_now = json!({"http 503": 1, "grpc 14": 1});
        assert!(goals(&[row(true, &fine), row(false, &for_now)]).all_met());
        assert!(!goals(&[row(true, &for_now), row(false, &fine)]).all_met());
        for bad in [
            "http 500",
            "grpc 13",
            "connection: reset",
            "no answer in time",
        ] {
            let bad = json!({ bad: 1 });
            assert!(
                !goals(&[row(true, &fine), row(false, &bad)]).all_met(),
                "{bad}"
            );
        }
    }
}
