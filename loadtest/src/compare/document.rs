//! What the findings look like: Markdown tables, ratios against the edge, goals met and missed. Ratios are taken round by round,
//! because two figures of the same minute compare better than two medians.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::measure::{Candidate, Sample};
use super::workload::{GOALS, MEMORY_BASE_BYTES, MEMORY_KEY_BYTES, Workload};

const BEGIN: &str = "<!-- loadtest compare: begin -->";
const END: &str = "<!-- loadtest compare: end -->";
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

/// Where and when figures were taken; without it they mean nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    date: String,
    commit: String,
    processor: String,
    cores: usize,
    kernel: String,
    load_before: String,
    command: String,
}

/// Looks at the machine, before it is put under load.
pub(crate) fn machine() -> Machine {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = file("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || "unknown processor".to_owned(),
            |(_, name)| name.to_owned(),
        );
    let date = OffsetDateTime::now_utc()
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute] UTC"
        ))
        .unwrap_or_default();
    let words = std::env::args().skip(1);
    Machine {
        date,
        commit: git(&["describe", "--always", "--dirty", "--abbrev=12"]),
        processor,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: file("/proc/loadavg")
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned(),
        command: words.fold("loadtest".to_owned(), |line, word| line + " " + &word),
    }
}

fn git(arguments: &[&str]) -> String {
    Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Puts `tables` between the markers of the file, and leaves the rest of it alone.
pub(crate) fn write(path: &Path, tables: &impl fmt::Display) -> anyhow::Result<()> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("--write {name}"))?;
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("--write {name}: no line `{BEGIN}`"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("--write {name}: no line `{END}`"))?;
    let text = format!("{before}{BEGIN}\n\n{tables}\n{END}{after}");
    fs::write(path, text).with_context(|| format!("--write {name}"))
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

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory stays far below 2^52 bytes"
)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
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
            "{}, commit {}, {} ({} cores), Linux {}, load {} before the start, {keys} keys, medians of {rounds} rounds of {seconds} s:\n`{}`\n",
            machine.date,
            machine.commit,
            machine.processor,
            machine.cores,
            machine.kernel,
            machine.load_before,
            machine.command,
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
