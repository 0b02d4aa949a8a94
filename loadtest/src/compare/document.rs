//! What the findings look like: Markdown tables, ratios against the edge, goals met and missed. Ratios are taken round by round,
//! because two figures of the same minute compare better than two medians.

use std::fmt;

use serde::Serialize;

use super::measure::{Candidate, Sample};
use super::workload::{GOALS, MEMORY_BASE_BYTES, MEMORY_KEY_BYTES, Workload};
use crate::document::{Machine, mebibytes, median};

const OURS: &str = "edge";

/// The result of a comparison; the JSON of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) keys: u32,
    pub(crate) skipped: Vec<String>,
    pub(crate) candidates: Vec<Candidate>,
}

impl Findings {
    fn candidate(&self, name: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.name == name)
    }

    /// Whether the edge, where it was asked for, did its job without a fault and missed no goal. A peer's faults are the
    /// peer's.
    pub(crate) fn sound(&self, workloads: &[Workload], with_edge: bool) -> bool {
        let faultless = self
            .candidate(OURS)
            .map_or(!with_edge, |edge| edge.faults.is_empty());
        faultless && self.goals(workloads).iter().all(|(.., met)| *met)
    }

    /// The tables, to be printed.
    pub(crate) fn tables<'a>(&'a self, workloads: &'a [Workload]) -> Tables<'a> {
        Tables {
            findings: self,
            workloads,
        }
    }

    /// What was promised, what was measured, and whether it is met, for all goals that this comparison can speak of.
    fn goals(&self, workloads: &[Workload]) -> Vec<(String, String, bool)> {
        let Some(edge) = self.candidate(OURS) else {
            return Vec::new();
        };
        let mut rows: Vec<_> = GOALS
            .iter()
            .filter_map(|goal| {
                let workload = workloads.iter().find(|w| w.name == goal.workload)?;
                let peer = self.candidate(goal.peer)?;
                let ratio = ratio(edge, peer, workload, |s| s.cpu_micros)?;
                Some((
                    format!(
                        "CPU per request, {}: at most {:.2} x {}",
                        workload.title, goal.ratio_max, goal.peer
                    ),
                    format!("{ratio:.2} x"),
                    ratio <= goal.ratio_max,
                ))
            })
            .collect();
        let allowed = MEMORY_BASE_BYTES + MEMORY_KEY_BYTES * u64::from(self.keys);
        rows.push((
            format!(
                "Peak memory with {} keys: at most {:.0} MiB",
                self.keys,
                mebibytes(allowed)
            ),
            format!("{:.0} MiB", mebibytes(edge.peak_memory_bytes)),
            edge.peak_memory_bytes <= allowed,
        ));
        rows
    }
}

/// The median over the rounds of one figure.
fn figure(candidate: &Candidate, workload: &Workload, of: impl Fn(&Sample) -> f64) -> Option<f64> {
    let samples = candidate.samples.get(workload.name)?;
    median(samples.iter().map(of).collect())
}

/// The median over the rounds of one figure's ratio.
fn ratio(
    edge: &Candidate,
    peer: &Candidate,
    workload: &Workload,
    of: impl Fn(&Sample) -> f64,
) -> Option<f64> {
    let ours = edge.samples.get(workload.name)?;
    let theirs = peer.samples.get(workload.name)?;
    median(
        ours.iter()
            .zip(theirs)
            .map(|(a, b)| of(a) / of(b))
            .collect(),
    )
}

/// Displays findings as Markdown.
pub(crate) struct Tables<'a> {
    findings: &'a Findings,
    workloads: &'a [Workload],
}

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conditions(f)?;
        self.goals(f)?;
        for workload in self.workloads {
            self.workload(f, workload)?;
        }
        self.memory(f)?;
        self.faults(f)
    }
}

impl Tables<'_> {
    fn conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings {
            machine,
            rounds,
            seconds,
            keys,
            ..
        } = self.findings;
        writeln!(
            f,
            "{machine}, {keys} keys, medians of {rounds} rounds of {seconds} s:\n`{}`\n",
            machine.command
        )
    }

    fn goals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.findings.goals(self.workloads);
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "### Goals\n\n| goal | measured | |\n| --- | --- | --- |")?;
        for (goal, measured, met) in rows {
            let verdict = if met { "met" } else { "**missed**" };
            writeln!(f, "| {goal} | {measured} | {verdict} |")?;
        }
        writeln!(f)
    }

    fn workload(&self, f: &mut fmt::Formatter<'_>, workload: &Workload) -> fmt::Result {
        writeln!(
            f,
            "### {}\n\n| | CPU µs/request | edge ÷ it | requests/s | edge ÷ it | p50 µs | p99 µs | p99.9 µs | core busy |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            workload.title
        )?;
        let edge = self.findings.candidate(OURS);
        for candidate in &self.findings.candidates {
            let figure =
                |of: fn(&Sample) -> f64| figure(candidate, workload, of).unwrap_or(f64::NAN);
            if !candidate.samples.contains_key(workload.name) {
                writeln!(f, "| {} | cannot | | | | | | | |", candidate.name)?;
                continue;
            }
            let ratio = |of: fn(&Sample) -> f64| {
                edge.filter(|edge| edge.name != candidate.name)
                    .and_then(|edge| ratio(edge, candidate, workload, of))
                    .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
            };
            writeln!(
                f,
                "| {} | {:.1} | {} | {:.0} | {} | {:.0} | {:.0} | {:.0} | {:.0} % |",
                candidate.name,
                figure(|s| s.cpu_micros),
                ratio(|s| s.cpu_micros),
                figure(|s| s.per_second),
                ratio(|s| s.per_second),
                figure(|s| s.latency_micros.p50),
                figure(|s| s.latency_micros.p99),
                figure(|s| s.latency_micros.p999),
                figure(|s| s.busy) * 100.0,
            )?;
        }
        writeln!(f)
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "### Peak memory, over all of the above\n\n| | version | set up as | MiB | edge ÷ it |\n| --- | --- | --- | --- | --- |"
        )?;
        let edge = self.findings.candidate(OURS);
        for candidate in &self.findings.candidates {
            let memory = mebibytes(candidate.peak_memory_bytes);
            let ratio = edge.filter(|edge| edge.name != candidate.name).map_or_else(
                || "–".to_owned(),
                |edge| format!("{:.2}", mebibytes(edge.peak_memory_bytes) / memory),
            );
            writeln!(
                f,
                "| {} | {} | {} | {memory:.0} | {ratio} |",
                candidate.name, candidate.version, candidate.method
            )?;
        }
        writeln!(f)
    }

    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clean = true;
        for candidate in &self.findings.candidates {
            for fault in &candidate.faults {
                clean = false;
                writeln!(f, "- **{}** {fault}", candidate.name)?;
            }
        }
        for reason in &self.findings.skipped {
            writeln!(f, "- not measured: {reason}")?;
        }
        if clean {
            writeln!(
                f,
                "- Every answer was a success, and every request reached the upstream whole and under exactly one tenant."
            )?;
        }
        Ok(())
    }
}
