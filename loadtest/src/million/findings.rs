//! What `loadtest million` found, and what it is held against.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::lives::{Change, First, Reload, Restored};
use crate::document::{Goal, Goals, Machine, mebibytes, median};

/// CPU per request with many keys over that with few.
const CPU_RATIO_MAX: f64 = 1.05;

/// What one edge did in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) cpu_micros: f64,
    pub(super) per_second: f64,
    pub(super) p99_micros: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) machine: Machine,
    pub(super) keys: u32,
    pub(super) tenants: u32,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
    pub(super) copied: Duration,
    pub(super) first: First,
    /// For each round, with few keys and with many.
    pub(super) samples: Vec<[Sample; 2]>,
    /// Keys asked for one by one while all were in memory.
    pub(super) fetches: f64,
    pub(super) change: Change,
    pub(super) reload: Reload,
    pub(super) restored: Restored,
}

impl Findings {
    fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<_> = self
            .samples
            .iter()
            .map(|[few, many]| many.cpu_micros / few.cpu_micros)
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    pub(super) fn goals(&self) -> Goals {
        let ratio = median(self.ratios()).unwrap_or(f64::NAN);
        Goals(vec![
            Goal::new(
                format!(
                    "CPU per request, {} keys against {}: at most {CPU_RATIO_MAX} x",
                    self.keys,
                    super::FEW
                ),
                format!("{ratio:.3} x"),
                ratio <= CPU_RATIO_MAX,
            ),
            Goal::new(
                "No key asked for while all are in memory",
                self.fetches.to_string(),
                self.fetches == 0.0,
            ),
        ])
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} keys of {} tenants, medians of {} rounds of {} s:\n`{}`\n",
            self.machine, self.keys, self.tenants, self.rounds, self.seconds, self.machine.command
        )?;
        self.goals().fmt(f)?;
        writeln!(
            f,
            "| HTTP/1.1, 1 KiB bodies, closed loop | CPU µs/request | requests/s | p99 µs |\n| --- | --- | --- | --- |"
        )?;
        for (keys, which) in [(super::FEW, 0), (self.keys, 1)] {
            let figure = |of: fn(&Sample) -> f64| {
                let samples = self.samples.iter().filter_map(|pair| pair.get(which));
                median(samples.map(of).collect()).unwrap_or(f64::NAN)
            };
            writeln!(
                f,
                "| {keys} keys | {:.2} | {:.0} | {:.0} |",
                figure(|sample| sample.cpu_micros),
                figure(|sample| sample.per_second),
                figure(|sample| sample.p99_micros)
            )?;
        }
        let ratios: Vec<_> = self.ratios().iter().map(|it| format!("{it:.3}")).collect();
        writeln!(f, "\nRatios of the rounds: {}.\n", ratios.join(", "))?;
        self.lives(f)
    }
}

impl Findings {
    fn lives(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first,
            change,
            reload,
            restored,
            ..
        } = self;
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let mib = |bytes: u64| format!("{:.0} MiB", mebibytes(bytes));
        let rows = [
            (
                "Keys copied into PostgreSQL, triggers included",
                seconds(self.copied),
                String::new(),
                String::new(),
            ),
            (
                "Start: all keys read from the database, ready",
                seconds(first.ready_after),
                seconds(first.cpu),
                format!(
                    "{}, peak {}",
                    mib(first.memory_bytes),
                    mib(first.peak_bytes)
                ),
            ),
            (
                "Snapshot written after the start",
                seconds(first.snapshot_after),
                seconds(first.snapshot_cpu),
                format!("file {}", mib(first.snapshot_bytes)),
            ),
            (
                "A key revoked by SQL: refused",
                seconds(change.refused_after),
                String::new(),
                String::new(),
            ),
            (
                "… and a new snapshot written",
                seconds(change.snapshot_after),
                seconds(change.cpu),
                format!(
                    "{}, peak {}",
                    mib(change.memory_bytes),
                    mib(change.peak_bytes)
                ),
            ),
            (
                "All keys read again by an edge that has them",
                "–".to_owned(),
                seconds(reload.cpu),
                format!("peak {}", mib(reload.peak_bytes)),
            ),
            (
                "Start from the snapshot, database away: first request accepted",
                seconds(restored.accepted_after),
                seconds(restored.cpu),
                mib(restored.memory_bytes),
            ),
        ];
        writeln!(f, "| | time | CPU | memory |\n| --- | --- | --- | --- |")?;
        for (what, time, cpu, memory) in rows {
            writeln!(f, "| {what} | {time} | {cpu} | {memory} |")?;
        }
        Ok(())
    }
}
